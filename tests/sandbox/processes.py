"""Background processes that outlive the command that started them, and are ended by their id.

A process id alone does not name a process: ids are used again. So a record holds the id, the
process's start time and the boot it belongs to, and a signal goes through a descriptor that was
compared with all three.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox import cgroups
from sandbox.shell import SandboxError, tail, write_file

START_TIME_FIELD = 22  # of /proc/PID/stat, counted from 1: proc(5)
STATE_FIELD = 3
ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "TZ")


def boot_id() -> str:
    """The identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_stat(stat: str) -> tuple[str, int]:
    """State letter and start time in clock ticks from the text of /proc/PID/stat.

    The second field is the program's name in brackets, and may itself hold blanks and brackets.
    """
    rest = stat[stat.rindex(")") + 2 :].split()
    return rest[STATE_FIELD - 3], int(rest[START_TIME_FIELD - 3])


def start_time(pid: int) -> int | None:
    """When the process `pid` started, in clock ticks after the boot; None when it has ended."""
    try:
        state, ticks = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else ticks


@dataclass(frozen=True, slots=True)
class Started:
    """What identifies a process that was started."""

    pid: int
    ticks: int
    boot: str

    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.ticks

    def signal(self, number: signal.Signals, wait_s: float) -> bool:
        """Send a signal to this very process; True when it has ended within `wait_s`."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            signal.pidfd_send_signal(descriptor, number)
            ended, _, _ = select.select([descriptor], [], [], wait_s)
            return bool(ended)
        except ProcessLookupError:
            return True
        finally:
            os.close(descriptor)
            self._reap()

    def _reap(self) -> None:
        """Collect the ended process when this program is the one that started it."""
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return


class Processes:
    """The processes of one sandbox: a record and a log file for each name."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """The names that were started and not stopped, in alphabetical order."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def find(self, name: str) -> Started | None:
        """The record of `name`, whether it is still alive or not."""
        path = self._records / f"{name}.json"
        return Started(**json.loads(path.read_text())) if path.exists() else None

    def alive(self, name: str) -> bool:
        found = self.find(name)
        return found is not None and found.alive()

    def require(self, *names: str) -> None:
        """SandboxError with the end of the log when one of `names` has ended."""
        for name in names:
            if not self.alive(name):
                log = self.log(name)
                raise SandboxError(f"{name} has ended; the end of {log}:\n{tail(log)}")

    def start(self, name: str, command: Sequence[str | Path], group: str) -> None:
        """Start `command` in a session of its own and in the cgroup `group`, unless it runs."""
        if self.alive(name):
            return
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        pid = _spawn([str(word) for word in command], self.log(name))
        ticks = start_time(pid)
        if ticks is None:
            raise SandboxError(f"{name} ended at once:\n{tail(self.log(name))}")
        record = Started(pid=pid, ticks=ticks, boot=boot_id())
        write_file(self._records / f"{name}.json", json.dumps(asdict(record)))
        cgroups.join(group, pid)

    def stop(self, name: str, *, grace_s: float) -> None:
        """End `name`: SIGTERM, and SIGKILL after `grace_s` (at once when it is 0)."""
        found = self.find(name)
        if found is None:
            return
        ended = grace_s > 0 and found.signal(signal.SIGTERM, grace_s)
        if not ended and not found.signal(signal.SIGKILL, 10.0):
            raise SandboxError(f"{name} (process {found.pid}) does not end: see its kernel stack")
        (self._records / f"{name}.json").unlink(missing_ok=True)


def _spawn(command: list[str], log: Path) -> int:
    """Start `command` detached from this terminal and session; its output is added to `log`."""
    program = shutil.which(command[0])
    if program is None:
        raise SandboxError(f"there is no program {command[0]}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(program, command, environment(), file_actions=actions, setsid=True)


def environment() -> dict[str, str]:
    """What a background process may know of its caller's environment.

    Not more: a proxy variable, say, would send the components' own traffic to that proxy.
    """
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
