"""Processes in pods, found from the host by what they run, and killed by identity."""

from __future__ import annotations

import psutil


def _find(*words: str) -> list[psutil.Process]:
    """Processes whose command line has these words in this order, one after the other."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        spans = (line[i : i + len(words)] for i in range(len(line)))
        if any(tuple(span) == words for span in spans):
            found.append(process)
    return found


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
