"""Control groups: each process of a sandbox is in a group under the sandbox's own name.

So whatever a process forked is found again, and everything can be ended without a search by
program name. Works with cgroup v1 (also beside an empty v2, "hybrid") and v2.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from sandbox.shell import SandboxError, wait_until


def parse_hierarchies(mountinfo: str) -> list[Path]:
    """The mount points of all control group hierarchies in the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in {"cgroup", "cgroup2"}:
            found.append(Path(before.split(" ")[4]))
    return found


def hierarchies() -> list[Path]:
    """The mount points of the control group hierarchies of this machine."""
    return parse_hierarchies(Path("/proc/self/mountinfo").read_text())


def create(group: str) -> None:
    """Make `group` (a path such as `name/node-1`) and its parents in every hierarchy."""
    for root in hierarchies():
        current = root
        for part in Path(group).parts:
            _delegate(current)
            current /= part
            current.mkdir(exist_ok=True)
            _fill_cpuset(current)


def _has_v2_controllers(directory: Path) -> bool:
    """Whether a control group directory belongs to a v2 hierarchy that has controllers."""
    controllers = directory / "cgroup.controllers"
    return controllers.exists() and bool(controllers.read_text().split())


def _delegate(directory: Path) -> None:
    """Hand all v2 controllers to the children; v1 has nothing to hand over."""
    if _has_v2_controllers(directory):
        wanted = (directory / "cgroup.controllers").read_text().split()
        enabled = (directory / "cgroup.subtree_control").read_text().split()
        for controller in sorted(set(wanted) - set(enabled)):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _fill_cpuset(directory: Path) -> None:
    """A new v1 cpuset is empty, and no process can join it before it has CPUs and memory."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, parent = directory / name, directory.parent / name
        if own.exists() and parent.exists() and not own.read_text().strip():
            own.write_text(parent.read_text())


def join(group: str, pid: int) -> None:
    """Move the process `pid` into `group`, in every hierarchy."""
    for root in hierarchies():
        (root / group / "cgroup.procs").write_text(str(pid))


def pids(group: str) -> set[int]:
    """The processes in `group` and below, in any hierarchy."""
    found: set[int] = set()
    for directory in _directories(group):
        try:
            text = (directory / "cgroup.procs").read_text()
        except OSError:  # the group was removed meanwhile
            continue
        found.update(pid for word in text.split() if (pid := int(word)) > 0)
    return found


def _directories(group: str) -> Iterator[Path]:
    """Every directory of `group`, the deepest first."""
    for root in hierarchies():
        for path, _, _ in os.walk(root / group, topdown=False):
            yield Path(path)


def exists(group: str) -> bool:
    """Whether `group` is there in some hierarchy."""
    return any((root / group).is_dir() for root in hierarchies())


def kill(group: str, timeout_s: float = 20.0) -> None:
    """End every process in `group` with SIGKILL and return when the group is empty."""

    def still_there() -> str:
        alive = pids(group)
        for pid in alive:
            _kill_member(group, pid)
        return f"the end of processes {sorted(alive)} in {group}" if alive else ""

    wait_until(still_there, timeout_s=timeout_s, interval_s=0.05)


def _kill_member(group: str, pid: int) -> None:
    """Kill `pid` if it is in `group`; the descriptor keeps the id from meaning another process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if f"/{group}" in Path(f"/proc/{pid}/cgroup").read_text():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return
    finally:
        os.close(descriptor)


def remove(group: str, timeout_s: float = 10.0) -> None:
    """Remove the empty `group` and what is below it; does nothing where it is not there."""

    def still_there() -> str:
        for directory in _directories(group):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"removal of {directory}: {error.strerror}"
        return ""

    try:
        wait_until(still_there, timeout_s=timeout_s, interval_s=0.05)
    except SandboxError as error:
        raise SandboxError(f"{error}; a process joined it: see cgroup.procs there") from error
