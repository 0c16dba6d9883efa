"""Processes in pods, found from the host by what they run, and killed by identity."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def _find(*words: str) -> list[psutil.Process]:
    """Contained processes whose command line has these words, one after the other.

    A cluster of local processes may run beside the sandbox, under the same names.
    """
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            contained = _files_of(process.pid) != _files_of(os.getpid())
        except (psutil.Error, OSError):
            continue
        spans = (line[i : i + len(words)] for i in range(len(line)))
        if contained and any(tuple(span) == words for span in spans):
            found.append(process)
    return found


def _files_of(pid: int) -> str:
    """The mount namespace: a container has one of its own."""
    return str(Path(f"/proc/{pid}/ns/mnt").readlink())


def replica(namespace: str, name: str) -> psutil.Process:
    """The process of a member in a pod."""
    mine = [p for p in _find("-m", "dwcp_replica") if _argument(p, "--name") == name]
    (only,) = (p for p in mine if _argument(p, "--namespace") == namespace)
    return only


def operators() -> list[psutil.Process]:
    """The processes of operators."""
    return _find("-m", "dwcp_operator")


def _argument(process: psutil.Process, option: str) -> str | None:
    line = process.cmdline()
    return line[line.index(option) + 1] if option in line else None
