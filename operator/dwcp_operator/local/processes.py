"""Member processes: found, started and stopped by identity, never by a number alone.

A process is a member's when its command line runs the replica on that member's volume. It is
held as process id plus start time (psutil checks both before it signals), so that a process
id that the kernel has given to somebody else is never signalled.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from dwcp_operator.local.files import rotate
from dwcp_operator.local.layout import ClusterFile, Layout, MemberPorts, SupervisorFile

LOG_BYTES_MAX: Final = 8 * 1024 * 1024
ALLOW_STRATEGIES: Final = "DWCP_ALLOW_TEST_STRATEGIES"
REPLICA_MODULE: Final = "dwcp_replica"
SUPERVISOR_MODULE: Final = "dwcp_operator.local"


def member_command(layout: Layout, cluster: ClusterFile, member: MemberPorts) -> list[str]:
    """The command that runs a member, without what only some starts need."""
    return [
        *(sys.executable, "-m", REPLICA_MODULE),
        *("--data", str(layout.volume(member.name))),
        *("--name", member.name),
        *("--cluster", cluster.name),
        *("--namespace", cluster.namespace),
        *("--client-listen", member.client_address),
        *("--peer-listen", member.peer_address),
        *(("--client-tls",) if member.client_tls else ()),
    ]


def runs_on(command_line: list[str], volume: Path) -> bool:
    """True when this command line runs a replica on this volume."""
    pairs = list(itertools.pairwise(command_line))
    return ("-m", REPLICA_MODULE) in pairs and ("--data", str(volume)) in pairs


def find_members(layout: Layout, names: Iterable[str]) -> dict[str, psutil.Process]:
    """Running processes of these members, whoever started them."""
    volumes = {name: layout.volume(name) for name in names}
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            command_line = process.cmdline()
        except psutil.Error:
            continue
        for name, volume in volumes.items():
            if runs_on(command_line, volume):
                found[name] = process
    return found


def find_supervisor(file: SupervisorFile | None) -> psutil.Process | None:
    """The process that the file names, when it still is that process."""
    if file is None:
        return None
    try:
        process = psutil.Process(file.pid)
        if abs(process.create_time() - file.started) < 0.01 and is_alive(process):
            return process
    except psutil.Error:
        return None
    return None


def is_alive(process: psutil.Process) -> bool:
    """True while it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def terminate(process: psutil.Process) -> None:
    """Ask a process to stop, if it still is the one that was found."""
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return


def kill(process: psutil.Process) -> None:
    """Stop a process at once, if it still is the one that was found."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


class MemberProcess:
    """A member's process: our own child, or one that an earlier supervisor left running."""

    def __init__(self, process: psutil.Process, child: subprocess.Popen[bytes] | None) -> None:
        self.process = process
        self._child = child
        # the kernel tells start times since a boot time in whole seconds: up to a second early
        self._started_at = time.time() if child is not None else float(process.create_time())

    @classmethod
    def start(cls, command: list[str], log: Path, *, allow_strategies: bool) -> MemberProcess:
        """Start a member in a session of its own, so that Ctrl-C reaches the supervisor only."""
        log.parent.mkdir(exist_ok=True)
        rotate(log, size_max=LOG_BYTES_MAX)
        environment = {k: v for k, v in os.environ.items() if k != ALLOW_STRATEGIES}
        if allow_strategies:
            environment[ALLOW_STRATEGIES] = "1"
        with log.open("ab") as out:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=environment,
            )
        return cls(psutil.Process(child.pid), child)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.process.pid)

    def running(self) -> bool:
        """True while it runs."""
        if self._child is not None:
            return self._child.poll() is None
        return is_alive(self.process)

    @property
    def started_at(self) -> float:
        """When it was started, in Unix seconds."""
        return self._started_at

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs or when it is no child."""
        return None if self._child is None else self._child.poll()
