"""Gathers what explains a failed test: process logs, pod logs, events, descriptions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.shell import CommandError, SandboxError, tail

if TYPE_CHECKING:
    from sandbox.cluster import Sandbox

QUESTIONS = {
    "objects.txt": ("get", "all,pvc,pv,pdb,networkpolicy,lease", "-A", "--output=wide"),
    "events.txt": ("get", "events", "-A", "--sort-by=.lastTimestamp", "--output=wide"),
    "nodes.txt": ("describe", "nodes"),
    "pods.txt": ("describe", "pods", "-A"),
    "claims.txt": ("describe", "pvc", "-A"),
}


def gather(sandbox: Sandbox, destination: Path) -> None:
    """Write everything into `destination`; what can not be asked is replaced by the reason."""
    destination.mkdir(parents=True, exist_ok=True)
    if sandbox.layout.logs.exists():
        shutil.copytree(sandbox.layout.logs, destination / "processes", dirs_exist_ok=True)
    for file, question in QUESTIONS.items():
        (destination / file).write_text(_answer(sandbox, *question))
    _pod_logs(sandbox, destination / "pods")


def _answer(sandbox: Sandbox, *question: str) -> str:
    try:
        return sandbox.kubectl(*question)
    except CommandError as error:
        return f"{error}\n"


def _pod_logs(sandbox: Sandbox, destination: Path) -> None:
    """Current and earlier logs, straight from the nodes' disks: they need no API server."""
    record_root = sandbox.layout.state / "nodes"
    for log in sorted(record_root.glob("*/pod-logs/*/*/*.log")):
        node, _, pod, container = log.relative_to(record_root).parts[:4]
        target = destination / f"node-{node}" / pod
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, target / f"{container}.{log.name}")


def process_summary(sandbox: Sandbox) -> str:
    """One line for each process: its id and whether it is alive."""
    lines = []
    for name in sandbox.processes.names():
        found = sandbox.processes.find(name)
        if found is not None:
            state = "running" if found.alive() else "ended"
            lines.append(f"{name:<28} {found.pid:>8}  {state}")
    return "\n".join(lines)


def process_log(sandbox: Sandbox, name: str, lines: int) -> str:
    """The last lines of a process's log."""
    if name not in sandbox.processes.names():
        known = ", ".join(sandbox.processes.names())
        raise SandboxError(f"there is no process {name}: use one of {known}")
    return tail(sandbox.processes.log(name), lines)
