"""Keeps a local cluster as its manifest says: look at everything, plan, act, look again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import aiohttp
import msgspec
import psutil

from dwcp.identity import KeyFileError
from dwcp_operator.agreed import AgreedSettings
from dwcp_operator.conditions import Situation, situation
from dwcp_operator.local.access import Granting
from dwcp_operator.local.errors import GenesisConflictError
from dwcp_operator.local.files import replace_file
from dwcp_operator.local.genesis import GenesisKeeper
from dwcp_operator.local.layout import Layout, SupervisorFile, open_layout
from dwcp_operator.local.members import Members, restart_request
from dwcp_operator.local.observe import Observer, utc_now
from dwcp_operator.local.probe import DeliveryRefusedError, ProbeError
from dwcp_operator.plan.backoff import restart
from dwcp_operator.plan.observed import Desired
from dwcp_operator.plan.planner import plan
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.plan.steps import (
    AdoptGenesis,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    EnsureKeys,
    RollMember,
    StartMember,
    Step,
)
from dwcp_operator.resources import ClusterStatus, UpgradeStatus
from dwcp_operator.status import cluster_status, is_available

LOOK_S_BUSY: Final = 0.1
LOOK_S_IDLE: Final = 0.5
STOP_S_MAX: Final = 7.0
QUIET_CONDITIONS: Final = frozenset({"Progressing", "ZonesSpread"})
"""Not told as lines: one changes all the time, and one machine is one zone."""

_RETRIED: Final = (
    ProbeError,
    DeliveryRefusedError,
    GenesisConflictError,
    KeyFileError,
    OSError,
)
"""What can keep a step from being done now: said once, and tried again."""

Emit = Callable[[str], None]


class Supervisor:
    """One cluster's supervisor; `run` returns when it was asked to stop and all members have.

    `emit` gets one line per event; `on_status` each status that differs from the last one. With
    `leave_on_fault` a fault of the supervisor itself leaves the members running.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        emit: Emit,
        on_status: Callable[[ClusterStatus], None],
        allow_strategies: bool = False,
        leave_on_fault: bool = False,
    ) -> None:
        self._layout = layout
        _, self._cluster, self._manifest = open_layout(layout.root)
        self._emit = emit
        self._on_status = on_status
        self._allow_strategies = allow_strategies
        self._leave_on_fault = leave_on_fault
        self._keeper = GenesisKeeper(layout, self._cluster, self._manifest)
        self._members = Members(layout, self._cluster, emit, self._manifest.spec.features)
        self._stop = asyncio.Event()
        self._status: ClusterStatus | None = None
        self._problems: dict[str, str] = {}
        self._failures: dict[Step, str] = {}
        self._granting = Granting(layout, emit)
        self._agreed = AgreedSettings(
            lambda: self._granting.administrator(self._manifest, self._keeper), emit
        )

    def stop(self) -> None:
        """Ask `run` to stop the members and return."""
        self._stop.set()

    async def run(self) -> None:
        """Supervise until `stop`; SIGTERM, SIGINT and SIGHUP ask for it too."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        self._write_supervisor_file()
        self._layout.status.unlink(missing_ok=True)
        try:
            self._members.adopt()
            async with aiohttp.ClientSession() as http:
                observer = Observer(self._layout, self._cluster, self._keeper, http)
                while not self._stop.is_set():
                    if self._reread():
                        observer = Observer(self._layout, self._cluster, self._keeper, http)
                    busy = await self._round(observer)
                    await self._pause(LOOK_S_BUSY if busy else LOOK_S_IDLE)
        finally:
            await self._agreed.close()
            if self._leave_on_fault and not self._stop.is_set():
                self._emit("the supervisor failed; members run on: `dwcp up` takes them over")
            else:
                await self._stop_members()
            self._layout.supervisor_file.unlink(missing_ok=True)
            self._layout.status.unlink(missing_ok=True)

    def _write_supervisor_file(self) -> None:
        me = psutil.Process(os.getpid())
        file = SupervisorFile(pid=me.pid, started=me.create_time())
        replace_file(self._layout.supervisor_file, msgspec.json.encode(file))

    def _reread(self) -> bool:
        """Follow cluster.json: replicas that are to run, or no longer; True when it changed."""
        _, cluster, manifest = open_layout(self._layout.root)
        if cluster == self._cluster:
            return False
        self._cluster, self._manifest = cluster, manifest
        self._keeper = GenesisKeeper(self._layout, cluster, manifest)
        self._members.follow(cluster)
        return True

    @property
    def _desired(self) -> Desired:
        return Desired(cluster=self._cluster.name, members=self._keeper.members)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _round(self, observer: Observer) -> bool:
        """Look, plan, act, report; True while there is something to do or to wait for."""
        asked = restart_request(self._layout)
        desired = replace(self._desired, revision=asked.revision if asked else "")
        observed = await observer.observe(self._members.runs())
        steps = plan(desired, observed)
        for step in steps:
            if self._stop.is_set():
                return False
            await self._act(step, observer)
        self._run_learners()
        seen = situation(desired, observed, steps)
        if len(seen.good) >= quorum(seen.n):
            await self._granting.round(self._manifest, self._keeper)
        for member in observed.members:
            self._members.note_ready(member.name, ready=member.ready)
            if member.ready and observed.genesis is not None and observed.genesis.published:
                self._keeper.drop_token(member.name)
        self._report_problems(observer)
        self._report(seen)
        documents = self._manifest.spec.documents
        if documents is not None and self._status is not None and is_available(self._status):
            self._agreed.want(documents.settings())
        return bool(steps)

    def _run_learners(self) -> None:
        """Keep those running that are to join, or have just been removed."""
        runs = self._members.runs()
        for member in self._cluster.members:
            run = runs[member.name]
            if member.name in self._keeper.members or run.running:
                continue
            delay_ms = restart(run.attempts, run.last_exit).delay_ms
            if delay_ms is not None and run.stopped_for_ms >= delay_ms:
                self._members.start(member, strategy=None)

    # --- actions ---------------------------------------------------------------------------

    async def _act(self, step: Step, observer: Observer) -> None:
        try:
            await self._do(step, observer)
        except _RETRIED as error:
            if self._failures.get(step) != str(error):
                self._emit(str(error))
            self._failures[step] = str(error)
        else:
            self._failures.pop(step, None)

    async def _do(self, step: Step, observer: Observer) -> None:
        match step:
            case EnsureKeys():
                self._keeper.ensure_keys()
                self._emit("keys and tokens made")
            case CreateVolume(name):
                self._layout.volume(name).mkdir(parents=True, exist_ok=True, mode=0o700)
            case StartMember(name):
                self._members.start(self._cluster.member(name), strategy=self._strategy(name))
            case CreateGenesis():
                self._keeper.create(observer.identities)
                self._emit("genesis record made")
            case AdoptGenesis(name):
                found = await observer.genesis_of(name)
                if found is not None:
                    self._keeper.adopt(found)
                    self._emit(f"genesis record taken over from {name}")
            case DeliverGenesis(name):
                signed = self._keeper.signed
                assert signed is not None, "the record is kept before it is delivered"
                token = self._keeper.token(name)
                self._keeper.collect(await observer.probe(name).deliver(signed, token))
            case CompleteGenesis():
                self._keeper.publish()
                self._emit(f"genesis signed by all {len(self._keeper.members)} members")
            case RollMember(name):
                self._members.restart(name)
            case _:
                return  # waits and reports act on nothing: the conditions say them

    def _strategy(self, name: str) -> str | None:
        """How this member is to lie: for tests and the demo, and only when that was allowed."""
        if not self._allow_strategies:
            return None
        try:
            chosen = msgspec.json.decode(self._layout.testing.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return None
        return chosen.get(name)

    # --- reports ---------------------------------------------------------------------------

    def _report_problems(self, observer: Observer) -> None:
        for name, problem in observer.problems.items():
            # A member that is only starting refuses connections: its start was told already.
            if self._problems.get(name) != problem and "does not answer" not in problem:
                self._emit(problem)
        self._problems = dict(observer.problems)

    def _report(self, seen: Situation) -> None:
        before = self._status
        status = cluster_status(
            seen,
            generation=self._cluster.generation,
            cluster_id=self._cluster.cluster_id,
            previous=before.conditions if before is not None else (),
            now=utc_now(),
            upgrade=_upgrade(seen),
            access=self._granting.status(self._manifest),
        )
        if before is not None and _gist(status) == _gist(before):
            return
        self._status = status
        try:
            replace_file(self._layout.status, msgspec.json.encode(status.manifest()))
        except OSError as error:
            self._emit(f"can not write {self._layout.status}: {error.strerror}")
        for line in _changes(before, status):
            self._emit(line)
        self._on_status(status)

    # --- the end ---------------------------------------------------------------------------

    async def _stop_members(self) -> None:
        """Ask all members to stop, wait a bounded time, then stop the rest at once."""
        self._members.terminate()
        deadline = time.monotonic() + STOP_S_MAX
        while self._members.any_running() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # their exits are polled: adopted ones are no children
        killed = self._members.kill()
        if killed:
            self._emit(f"{', '.join(killed)} did not stop within {STOP_S_MAX:.0f} s: killed")
        self._emit("all members stopped")


def _upgrade(seen: Situation) -> UpgradeStatus | None:
    """How far a restart that was asked for has come; None when none was."""
    revision = seen.desired.revision
    updated = sum(m.ready and m.revision == revision for m in seen.observed.members)
    return UpgradeStatus(revision=revision, updated=updated) if revision else None


def _gist(status: ClusterStatus) -> tuple[object, ...]:
    """What a status says besides members' progress, which changes all the time."""
    return (
        status.conditions,
        status.epoch,
        status.view,
        status.primary,
        status.ready,
        status.upgrade,
        status.access,
    )


def _changes(before: ClusterStatus | None, after: ClusterStatus) -> list[str]:
    """A line for each thing that users care about."""
    lines = []
    view_before = before.view if before is not None else None
    if after.view is not None and after.view != view_before:
        lines.append(f"view {after.view}, primary {after.primary}")
    old = {c.type: c for c in before.conditions} if before is not None else {}
    for condition in after.conditions:
        was = old.get(condition.type)
        same = was is not None and (was.status, was.reason) == (condition.status, condition.reason)
        if not same and condition.type not in QUIET_CONDITIONS:
            lines.append(
                f"{condition.type}={condition.status} ({condition.reason}): {condition.message}"
            )
    return lines
