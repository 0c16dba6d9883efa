"""One replica's engine: the single door through which events come in and effects go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from dwcp.wire.peer import (
    Certificate,
    CheckpointVote,
    DoubleVote,
    Entries,
    Equivocation,
    Fetch,
    FetchElections,
    Header,
    PeerMessage,
    Status,
)
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp.wire.state import FetchCheckpoint, FetchState, StableCheckpoint, StateChunk
from dwcp_replica.core import (
    catchup,
    checkpoints,
    collection,
    election_book,
    evidence,
    restore,
    state_source,
    transfer,
)
from dwcp_replica.core.driver import Driver, Handler
from dwcp_replica.core.effects import (
    Applied,
    EvidenceFound,
    HandOver,
    Input,
    Learners,
    ReadIndex,
    Ready,
    Received,
    Record,
    Restored,
    Saved,
    Submit,
    Tick,
    TransferBegun,
)
from dwcp_replica.core.pbft import driver as pbft
from dwcp_replica.core.raft import driver as raft
from dwcp_replica.core.raft.leading import set_learners
from dwcp_replica.core.raft.state import Draw
from dwcp_replica.core.restore import OwnState
from dwcp_replica.core.state import Core
from dwcp_replica.core.state_tree import StateTree

DRIVERS: Final[dict[str, Callable[[], Driver]]] = {"pbft": pbft.driver, "raft": raft.driver}
"""By the protocol that an epoch record names."""


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
    log_base: int
    saved: int
    has_state: bool
    transfer: int | None
    transfer_left: int
    transfer_bytes: int


class Replica:
    """The chain core with the driver that the record names, for one epoch.

    `records` is what the replica made durable before, in order. `mute` is the reason why it
    must not sign (a damaged log tail): it then learns and executes, and counts as one of f.
    `own` is the state that a start has found, and `state` gives access to it; without them
    everything is executed again from the start, and no state is shown or fetched.
    `draw(bound)` gives random numbers below a bound; only Raft's election time-outs use it.
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
        state: StateTree | None = None,
        own: OwnState | None = None,
        draw: Draw | None = None,
    ) -> None:
        self._core = Core(genesis, me, signer, verifier, mute, state=state, draw=draw)
        self._started = False
        self._driver = DRIVERS[genesis.protocol]()
        restore.replay(self._core, records, self._driver.resume, own)
        self._handlers: dict[type[Any], Handler] = {
            CheckpointVote: checkpoints.on_checkpoint_vote,
            Equivocation: evidence.on_evidence,
            DoubleVote: evidence.on_evidence,
            Fetch: catchup.on_fetch,
            Entries: catchup.on_entries,
            FetchCheckpoint: state_source.on_fetch_checkpoint,
            StableCheckpoint: transfer.on_stable_checkpoint,
            FetchState: state_source.on_fetch_state,
            StateChunk: transfer.on_state_chunk,
            FetchElections: election_book.on_fetch_elections,
            **self._driver.handlers,
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

    def durable(self) -> list[Record]:
        """Records that stand for all those before: the log on disk may begin anew with them."""
        return collection.durable(self._core)

    def deadline_ms(self) -> int | None:
        """When (core time, ms) the next Tick matters; None after a halt."""
        return None if self._core.halted is not None else self._driver.deadline_ms(self._core)

    def proof_of(self, index: int) -> tuple[tuple[Header, ...], Certificate] | None:
        """What shows that `index` is final here: headers from it to a certificate's entry.

        The headers are missing where the log begins above `index`, below a stable checkpoint. None
        when there is no certificate yet.
        """
        core = self._core
        certificate = catchup.certificate_from(core, index)
        if certificate is None or index > core.final:
            return None
        slots = core.log.slots(index - 1, certificate.header.index)
        if slots and slots[0].header.index == index:
            return tuple(slot.header for slot in slots), certificate
        return ((), certificate) if certificate.kind == "checkpoint" else None

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
            log_base=core.log.base.index,
            saved=core.saved,
            has_state=not core.stateless,
            transfer=None if core.transfer is None else core.transfer.index,
            transfer_left=0 if core.transfer is None else core.transfer.left,
            transfer_bytes=0 if core.transfer is None else core.transfer.received_bytes,
        )

    def _dispatch(self, event: Input) -> None:
        core = self._core
        match event:
            case Tick(now_ms, wall_ms):
                assert now_ms >= core.now_ms, f"time went back: {core.now_ms} -> {now_ms}"
                core.now_ms, core.wall_ms = now_ms, wall_ms
                if self._started:
                    self._driver.on_tick(core)
                else:
                    self._started = True
                    restore.begin(core)
                    self._driver.begin(core)
            case Received(sender, message):
                self._receive(sender, message)
            case Submit(envelope):
                has_state = core.transfer is None and not core.stateless
                if has_state and core.pool.add(envelope, core.now_ms):
                    self._driver.submitted(core, envelope)
            case Applied(index, state, saved, due_ms):
                core.due_ms = due_ms
                checkpoints.on_applied(core, index, state, saved)
            case Saved(index):
                core.saved = max(core.saved, index)
                collection.collect(core)
            case TransferBegun(index):
                transfer.on_begun(core, index)
            case Restored(index):
                transfer.on_restored(core, index)
            case ReadIndex() | Learners():
                self._ask(event)
            case HandOver():
                self._driver.hand_over(core)

    def _ask(self, event: ReadIndex | Learners) -> None:
        match event:
            case ReadIndex(token):
                self._driver.read(self._core, token)
            case Learners(numbers):
                set_learners(self._core, numbers)

    def _receive(self, sender: int, message: PeerMessage) -> None:
        core = self._core
        known = 0 <= sender < core.n or sender in core.raft.learners
        if sender == core.me or not known:
            core.refuse(sender, message, "stranger")
            return
        core.heard_ms[sender] = core.now_ms
        handler = self._handlers.get(type(message))
        if handler is None:
            core.refuse(sender, message, "protocol")  # of the other driver
        else:
            handler(core, sender, message)

    def _follow_up(self) -> None:
        """What any event may have made possible."""
        self._driver.follow_up(self._core)
        if self._core.out.persist:
            self._core.save_final()


__all__ = ["Replica", "Standing"]
