"""The members' processes as one supervisor runs them, with what restarts need to remember."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dwcp_operator.features import Features
from dwcp_operator.local import ports
from dwcp_operator.local.files import last_lines
from dwcp_operator.local.layout import ClusterFile, Layout, MemberPorts
from dwcp_operator.local.observe import Run
from dwcp_operator.local.processes import (
    MemberProcess,
    find_members,
    kill,
    member_command,
    terminate,
)

STEADY_S: Final = 30.0
"""A member that was ready this long begins its back-off anew."""
STOP_S_MAX: Final = 7.0
"""A member that was asked to stop and runs on is stopped at once after so long."""
BEFORE: Final = "before"
"""The revision of a member that is older than the request for a restart."""


@dataclass(slots=True)
class _Track:
    process: MemberProcess | None = None
    attempts: int = 0
    last_exit: int | None = None
    stopped_at: float = 0.0
    ready_since: float | None = None
    asked_at: float | None = None
    """When it was asked to stop, to be started again."""


class Members:
    """Starts, watches and stops the members of one cluster. `emit` is told what happens."""

    def __init__(
        self, layout: Layout, cluster: ClusterFile, emit: Callable[[str], None], features: Features
    ) -> None:
        self._layout = layout
        self._features = features
        self._cluster = cluster
        self._emit = emit
        self._tracks = {m.name: _Track() for m in cluster.members}
        self._leaving: list[MemberProcess] = []

    def adopt(self) -> None:
        """Take over members that an earlier supervisor left running."""
        for name, process in find_members(self._layout, self._tracks).items():
            self._tracks[name].process = MemberProcess(process, None)
            self._emit(f"{name} runs already (pid {process.pid})")

    def follow(self, cluster: ClusterFile) -> None:
        """Other replicas are to run: those that are not named any more are stopped."""
        self._cluster = cluster
        names = {member.name for member in cluster.members}
        for name in [name for name in self._tracks if name not in names]:
            track = self._tracks.pop(name)
            if track.process is not None and track.process.running():
                terminate(track.process.process)
                self._emit(f"{name} is stopped: it is no member any more")
                self._leaving.append(track.process)
        for name in names - self._tracks.keys():
            self._tracks[name] = _Track()

    def runs(self) -> dict[str, Run]:
        """What is known of each member's process now; notices those that have stopped."""
        now, asked = time.monotonic(), restart_request(self._layout)
        for name, track in self._tracks.items():
            if track.process is not None and not track.process.running():
                self._note_stop(name, track, now)
        return {
            name: Run(
                running=track.process is not None,
                attempts=track.attempts,
                last_exit=track.last_exit,
                stopped_for_ms=int((now - track.stopped_at) * 1000),
                revision=_revision(track.process, asked),
                unready_for_ms=_unready_ms(track),
            )
            for name, track in self._tracks.items()
        }

    def _note_stop(self, name: str, track: _Track, now: float) -> None:
        assert track.process is not None, "only a process stops"
        code = track.process.exit_code
        track.process, track.last_exit, track.stopped_at = None, code, now
        if track.asked_at is None:
            track.attempts += 1
        track.asked_at = None
        track.ready_since = None
        self._emit(f"{name} stopped ({_describe(code)})")
        if code not in (0, None) and code > 0:
            for line in last_lines(self._layout.log(name), 3):
                self._emit(f"{name} said: {line[:400]}")

    def note_ready(self, name: str, *, ready: bool) -> None:
        """Remember since when a member is ready: one that is steady begins its back-off anew."""
        track, now = self._tracks[name], time.monotonic()
        if not ready:
            track.ready_since = None
        elif track.ready_since is None:
            track.ready_since = now
        elif now - track.ready_since >= STEADY_S:
            track.attempts = 0

    def start(self, member: MemberPorts, *, strategy: str | None) -> None:
        """Start a member, unless its ports are taken."""
        track = self._tracks[member.name]
        assert track.process is None, f"{member.name} runs already"
        taken = [p for p in (member.client_port, member.peer_port) if not ports.is_free(p)]
        if taken:
            track.attempts += 1
            track.stopped_at = time.monotonic()
            self._emit(
                f"{member.name} can not start: port {taken[0]} is taken by another process: stop it"
            )
            return
        command = member_command(self._layout, self._cluster, member)
        names = [one.name for one in self._cluster.members]
        command += self._features.arguments(names.index(member.name), len(names))
        token = self._layout.token(member.name)
        if token.exists():
            command += ["--token-file", str(token)]
        if self._layout.backup.exists():
            command += ["--restore", self._layout.backup.read_text()]
        if strategy is not None:
            command += ["--test-strategy", strategy]
        track.process = MemberProcess.start(
            command, self._layout.log(member.name), allow_strategies=strategy is not None
        )
        lying = f", test strategy {strategy}" if strategy is not None else ""
        self._emit(f"{member.name} started (pid {track.process.pid}{lying})")

    def restart(self, name: str) -> None:
        """Ask a member to stop, once: it hands over when it leads, and is then started again."""
        track, now = self._tracks[name], time.monotonic()
        if track.process is None or not track.process.running():
            return
        if track.asked_at is None:
            track.asked_at = now
            terminate(track.process.process)
            self._emit(f"{name} is restarted: it was asked for")
        elif now - track.asked_at > STOP_S_MAX:
            kill(track.process.process)

    def any_running(self) -> bool:
        """True while a member's process runs."""
        self._leaving = [process for process in self._leaving if process.running()]
        return bool(self._leaving) or any(
            t.process is not None and t.process.running() for t in self._tracks.values()
        )

    def terminate(self) -> None:
        """Ask every member to stop."""
        for track in self._tracks.values():
            if track.process is not None and track.process.running():
                terminate(track.process.process)

    def kill(self) -> list[str]:
        """Stop those that still run at once; returns their names."""
        names = []
        for process in self._leaving:
            kill(process.process)
        for name, track in self._tracks.items():
            if track.process is not None and track.process.running():
                kill(track.process.process)
                names.append(name)
        return names


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """A request that members be restarted; `at` is Unix seconds."""

    revision: str
    at: float


def restart_request(layout: Layout) -> RestartRequest | None:
    """The last request for a restart; None when there was none."""
    try:
        return RestartRequest(layout.restart.read_text().strip(), layout.restart.stat().st_mtime)
    except FileNotFoundError:
        return None


def _revision(process: MemberProcess | None, asked: RestartRequest | None) -> str:
    """Told by the process itself, so that a new supervisor knows it too."""
    if process is None or asked is None:
        return ""
    return asked.revision if process.started_at >= asked.at else BEFORE


def _unready_ms(track: _Track) -> int:
    if track.process is None or track.ready_since is not None:
        return 0
    return max(0, int((time.time() - track.process.started_at) * 1000))


def _describe(code: int | None) -> str:
    if code is None:
        return "exit code unknown"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
