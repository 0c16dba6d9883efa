"""One replica's engine: the single door through which events come in and effects go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dwcp.wire.peer import (
    Bodies,
    CheckpointVote,
    Commit,
    DoubleVote,
    Elections,
    Entries,
    Equivocation,
    Fetch,
    FetchBodies,
    FetchElections,
    Forward,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
)
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.core import catchup, checkpoints, election_book, evidence, restore
from dwcp_replica.core.effects import (
    Applied,
    EvidenceFound,
    HandOver,
    Input,
    Ready,
    Received,
    Record,
    Submit,
    Tick,
    ViewChangeReason,
)
from dwcp_replica.core.pbft import adoption, normal, timers, view_change
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a replica stands, for status and metrics. Indexes are chain indexes."""

    epoch: int
    view: int
    active: bool
    primary: int
    last: int
    prepared: int
    final: int
    applied: int
    stable: int
    stable_state: bytes
    pending: int
    mute: str | None
    halted: str | None
    evidence: tuple[EvidenceFound, ...]
    peers: dict[int, Status]
    pre_prepare_log_size: int
    prepare_log_size: int
    commit_log_size: int


class Replica:
    """PBFT over the chain core, for one epoch.

    `records` is what the replica made durable before, in order. `mute` is the reason why it
    must not sign (a damaged log tail): it then learns and executes, and counts as one of f.
    """

    def __init__(
        self,
        *,
        genesis: EpochRecord,
        me: int,
        signer: Signer,
        verifier: Verifier,
        records: Iterable[Record] = (),
        mute: str | None = None,
    ) -> None:
        self._core = Core(genesis, me, signer, verifier, mute)
        self._started = False
        restore.replay(self._core, records)
        self._handlers: dict[type[Any], Callable[[Core, int, Any], None]] = {
            PrePrepare: normal.on_pre_prepare,
            Prepare: normal.on_prepare,
            Commit: normal.on_commit,
            CheckpointVote: checkpoints.on_checkpoint_vote,
            ViewChange: view_change.on_view_change,
            NewView: view_change.on_new_view,
            Forward: timers.on_forward,
            Equivocation: evidence.on_evidence,
            DoubleVote: evidence.on_evidence,
            Status: timers.on_status,
            Fetch: catchup.on_fetch,
            Entries: catchup.on_entries,
            FetchBodies: adoption.on_fetch_bodies,
            Bodies: view_change.on_bodies,
            FetchElections: election_book.on_fetch_elections,
            Elections: view_change.on_elections,
        }

    def step(self, event: Input) -> Ready:
        """Take one event; return what must be done because of it, in `Ready`'s order."""
        core = self._core
        assert self._started or isinstance(event, Tick), "the first event is a Tick"
        if core.halted is None:
            self._dispatch(event)
            self._follow_up()
        ready, core.out = core.out, Ready()
        return ready

    def deadline_ms(self) -> int | None:
        """When (core time, ms) the next Tick matters; None after a halt."""
        return None if self._core.halted is not None else timers.deadline_ms(self._core)

    def standing(self) -> Standing:
        """Where this replica stands now."""
        core = self._core
        return Standing(
            epoch=core.record.epoch,
            view=core.view,
            active=core.active,
            primary=core.primary,
            last=core.log.last,
            prepared=core.prepared,
            final=core.final,
            applied=core.applied,
            stable=core.low,
            stable_state=core.stable.state if core.stable else b"",
            pending=len(core.pool),
            mute=core.mute,
            halted=core.halted,
            evidence=tuple(core.evidence[m] for m in sorted(core.evidence)),
            peers=dict(core.peers),
            pre_prepare_log_size=core.log.last - core.low,
            prepare_log_size=len(core.prepares),
            commit_log_size=len(core.commits),
        )

    def _dispatch(self, event: Input) -> None:
        core = self._core
        match event:
            case Tick(now_ms, wall_ms):
                assert now_ms >= core.now_ms, f"time went back: {core.now_ms} -> {now_ms}"
                core.now_ms, core.wall_ms = now_ms, wall_ms
                if self._started:
                    timers.on_tick(core)
                else:
                    self._started = True
                    restore.begin(core)
            case Received(sender, message):
                self._receive(sender, message)
            case Submit(envelope):
                taken = core.pool.add(envelope, core.now_ms)
                if taken and core.active and core.primary != core.me:
                    core.send(core.primary, Forward((envelope,)))
            case Applied(index, state):
                checkpoints.on_applied(core, index, state)
            case HandOver():
                if core.leads:
                    view_change.start(core, view_change.next_view(core), ViewChangeReason.HANDOVER)

    def _receive(self, sender: int, message: PeerMessage) -> None:
        core = self._core
        if sender == core.me or not 0 <= sender < core.n:
            core.refuse(sender, message, "stranger")
            return
        core.heard_ms[sender] = core.now_ms
        self._handlers[type(message)](core, sender, message)

    def _follow_up(self) -> None:
        """What any event may have made possible."""
        core = self._core
        if core.active and core.early:
            self._replay_early()
        if core.mute is None and core.active and core.primary in core.evidence:
            reason = timers.overdue(core)
            if reason is not None:
                view_change.start(core, view_change.next_view(core), reason)
        if core.leave_view:
            core.leave_view = False
            if core.active and core.mute is None:
                view_change.start(core, view_change.next_view(core), ViewChangeReason.EQUIVOCATION)
        normal.propose(core)
        if core.out.persist:
            core.save_final()

    def _replay_early(self) -> None:
        """Take the messages that had come before their view began here."""
        core = self._core
        early, core.early = core.early, {}
        for sender in sorted(early):
            for message in early[sender]:
                if core.active:
                    self._handlers[type(message)](core, sender, message)


__all__ = ["Replica", "Standing"]
