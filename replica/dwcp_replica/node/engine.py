"""Steps the core and keeps its promises: durable first, then sent, executed and answered.

    inbox ──step──> group being filled ──(one write, one fdatasync)──> send, execute, publish
      ^                                                                      │
      └────────────────────────── Applied ───────────────────────────────────┘

All events that are waiting are stepped, and their effects merge into one group, which costs
one fdatasync. While a group is being written (on a thread) the next one fills. Groups complete
strictly in order: nothing of a group is sent before the fdatasync of that group and of all
before it, even where it persists nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol

from dwcp.wire.envelope import decode_batch
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.peer import Certificate, Entry, Header
from dwcp.wire.records import Member
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import (
    Applied,
    CheckpointStable,
    Event,
    Outbound,
    Ready,
    Record,
    Restored,
    Saved,
    Tick,
    TransferBegun,
)
from dwcp_replica.core.outline import Outline
from dwcp_replica.core.replica import Replica, Standing
from dwcp_replica.durable import DiskFull
from dwcp_replica.node.inbox import Inbox
from dwcp_replica.node.phases import PhaseClock
from dwcp_replica.node.saving import LogKeeper
from dwcp_replica.store import Outcome, Store
from dwcp_replica.store.records import View
from dwcp_replica.store.shelf import Shelf

TICK_S_MIN: Final = 0.005
TICK_S_MAX: Final = 0.1
STEPS_AT_ONCE_MAX: Final = 128
"""Events after which sockets get their turn."""
GROUP_RECORDS_MAX: Final = 4096
"""The group being filled grows no further while the disk is busy."""
EXECUTE_S_MAX: Final = 0.01
"""Execution gives way to the event loop after this long."""
DISK_FULL_RETRY_S: Final = 1.0

_log = logging.getLogger(__name__)


class Journal(Protocol):
    """Where records become durable; a failure of `sync` must end the process.

    `append` may raise DiskFull: then it took none of the records.
    """

    def append(self, records: list[Record]) -> None:
        """Write records."""
        ...

    def sync(self) -> None:
        """Make everything written durable."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Effects(Protocol):
    """What the engine lets out once it is durable."""

    def send(self, messages: list[Outbound]) -> None:
        """Send to peers."""
        ...

    def executed(self, outcomes: tuple[Outcome, ...]) -> None:
        """Answer the clients that wait for these."""
        ...

    def publish(self, events: list[Event]) -> None:
        """Tell logs and metrics; raises where an event means that the process must stop."""
        ...


async def _at_once(work: Callable[..., object], *arguments: object) -> None:
    work(*arguments)


class Engine:
    """Owns the core and its store, from the event loop's one thread."""

    def __init__(
        self, core: Replica, store: Store, shelf: Shelf, journal: Journal, keeper: LogKeeper,
        effects: Effects, interval: int, metrics: ReplicaMetrics,
    ) -> None:  # fmt: skip
        self.inbox = Inbox()
        self.disk_full = False
        self._core = core
        self._store = store
        self._shelf = shelf
        self._journal = journal
        self._keeper = keeper
        self._effects = effects
        self._interval = interval
        self._metrics = metrics
        self._phases = PhaseClock(metrics.phase_seconds)
        self._disk = ThreadPoolExecutor(1, "dwcp-disk")
        self._standing: Standing | None = None
        self._filling = Ready()
        self._releasing = False
        self._filled = asyncio.Event()
        self._moved = asyncio.Event()
        self._tick_s = 0.0
        self._next_tick_s = 0.0

    @property
    def standing(self) -> Standing:
        """Where the core stands now."""
        if self._standing is None:
            self._standing = self._core.standing()
        return self._standing

    @property
    def checkpoint_index(self) -> int:
        """The newest checkpoint that was made here, stable or not."""
        return self._shelf.newest

    def proof_of(self, index: int) -> tuple[tuple[Header, ...], Certificate] | None:
        """What shows that an entry is final (Replica.proof_of)."""
        return self._core.proof_of(index)

    def backup(self) -> tuple[Outline, View | None] | None:
        """A backup's outline with a view of the saved state; None when nothing proves one now."""
        if self._store.target is not None:
            return None
        outline = self._core.outline(self._shelf.saved)
        if outline is None:
            return None
        return outline, None if outline.is_empty else self._shelf.view()

    @property
    def certified(self) -> tuple[CertifiedRecord, ...]:
        """The epoch records after genesis, with their certificates."""
        return self._core.certified

    @property
    def peers(self) -> tuple[Member, ...]:
        """Whom numbers in `Received` and `Outbound` name (Replica.peers)."""
        return self._core.peers

    @property
    def commit_ms(self) -> float | None:
        """The median time from an entry's acceptance here until it was known to be final."""
        return self._phases.commit_ms

    @property
    def committed_s(self) -> float | None:
        """When (monotonic) an entry became final here last; None before the first."""
        return self._phases.final_s

    @property
    def idle(self) -> bool:
        """True when nothing waits to be stepped, written or let out."""
        return not (self.inbox or self._filling or self._releasing)

    async def run(self) -> None:
        """Step and release, until cancelled or until something fails."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._step_forever())
                tasks.create_task(self._release_forever())
                tasks.create_task(self._keeper.run(self._disk))
        finally:
            self._disk.shutdown()  # waits for a write that is under way

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this holds; it is looked at after every step and every release."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    # --- stepping ------------------------------------------------------------------------------

    async def _step_forever(self) -> None:
        while True:
            await self._wait_for_work()
            self._step_some()
            await self.until(self._has_room)

    def _has_room(self) -> bool:
        return len(self._filling.persist) < GROUP_RECORDS_MAX

    async def _wait_for_work(self) -> None:
        """Return when events wait or a tick is due; let the sockets have their turn first."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        delay_s = self._next_tick_s - loop.time()
        if self.inbox or delay_s <= 0:
            return
        timer = loop.call_later(delay_s, self.inbox.filled.set)
        self.inbox.filled.clear()
        await self.inbox.filled.wait()
        timer.cancel()

    def _step_some(self) -> None:
        self._tick()
        for event in self.inbox.take(STEPS_AT_ONCE_MAX):
            self._merge(self._core.step(event))
        self._standing = None
        self._moved.set()
        if self._filling:
            self._filled.set()
        deadline_ms = self._core.deadline_ms()
        due_s = TICK_S_MAX if deadline_ms is None else deadline_ms / 1000 - self._tick_s
        self._next_tick_s = self._tick_s + min(max(due_s, TICK_S_MIN), TICK_S_MAX)

    def _tick(self) -> None:
        """Tell the core the time, unless it was told a moment ago."""
        now_s = time.monotonic()
        if now_s - self._tick_s >= TICK_S_MIN:
            self._tick_s = now_s
            self._merge(self._core.step(Tick(int(now_s * 1000), int(time.time() * 1000))))

    def _merge(self, ready: Ready) -> None:
        self._phases.note(ready)
        group = self._filling
        group.persist += ready.persist
        group.send += ready.send
        group.apply += ready.apply
        group.events += ready.events
        if ready.transfer is not None:  # what was to be done for an older one is not any more
            group.transfer, group.transferred = ready.transfer, False
        group.transferred = group.transferred or ready.transferred

    # --- releasing -----------------------------------------------------------------------------

    async def _release_forever(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._filling:
                group, self._filling = self._filling, Ready()
                # now the core stands exactly where this group leads
                anew = self._core.durable() if self._keeper.is_due(self._store) else None
                self._releasing = True
                await self._release(group, anew)
                self._releasing = False
                self._moved.set()

    async def _release(self, group: Ready, anew: list[Record] | None) -> None:
        if group.persist:
            loop = asyncio.get_running_loop()
            await self._with_room(
                lambda: loop.run_in_executor(self._disk, self._write, group.persist)
            )
        if anew is not None:
            await self._keeper.begin_anew(anew, self._shelf.saved, self._disk)
        if group.send:
            self._effects.send(group.send)
        await self._execute(group.apply)
        if group.transfer is not None:
            await self._with_room(partial(_at_once, self._shelf.begin_transfer, group.transfer))
            self.inbox.put(TransferBegun(group.transfer[0]))
        if group.transferred:
            await self._with_room(partial(_at_once, self._shelf.end_transfer))
            self.inbox.put(Restored(self._store.applied_index))
        if group.events:
            self._note_stable(group.events)
            self._effects.publish(group.events)

    def _note_stable(self, events: list[Event]) -> None:
        """Let a restart find the state that a quorum has certified."""
        stable = [event.index for event in events if isinstance(event, CheckpointStable)]
        if stable:
            before = self._shelf.saved
            self._shelf.stable(max(stable))
            if self._shelf.saved != before:
                self.inbox.put(Saved(self._shelf.saved))

    async def _with_room(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write something; while the disk is full, wait for room and let nothing out."""
        while True:
            try:
                await write()
            except DiskFull as error:
                if not self.disk_full:
                    _log.error("disk-full", extra={"detail": str(error)})
                self.disk_full = True
                await asyncio.sleep(DISK_FULL_RETRY_S)
            else:
                if self.disk_full:
                    _log.warning("disk-has-room-again")
                self.disk_full = False
                return

    def _write(self, records: list[Record]) -> None:
        began_s = time.perf_counter()
        self._journal.append(records)
        self._journal.sync()
        self._metrics.fsync_seconds.observe(time.perf_counter() - began_s)
        self._metrics.group_records.observe(len(records))

    def _enter(self, epoch: int) -> None:
        """Tell the store under which record the next entry stands."""
        if epoch != self._store.record.epoch:
            self._store.enter(self._core.record_of(epoch))

    async def _execute(self, entries: list[Entry]) -> None:
        """Run entries in order; report back at every checkpoint and at the end.

        The loop gets its turn within an entry too: an entry's envelopes may be as many reads of
        everything as fit a batch.
        """
        since_s = time.monotonic()
        for entry in entries:
            index = entry.header.index
            self._enter(entry.header.epoch)
            for outcome in self._store.steps(index, decode_batch(entry.body)):
                self._metrics.executed.inc()
                self._effects.executed((outcome,))
                if time.monotonic() - since_s > EXECUTE_S_MAX:
                    await asyncio.sleep(0)
                    since_s = time.monotonic()
            if index % self._interval == 0:
                state = self._shelf.checkpoint()
                due_ms = self._store.next_due_ms
                self.inbox.put(Applied(index, state, self._shelf.saved, due_ms))
            elif entry is entries[-1]:
                due_ms = self._store.next_due_ms
                self.inbox.put(Applied(index, None, self._shelf.saved, due_ms))
            if time.monotonic() - since_s > EXECUTE_S_MAX:
                await asyncio.sleep(0)
                since_s = time.monotonic()
