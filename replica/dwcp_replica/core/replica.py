"""One replica's engine: the single door through which events come in and effects go out.

It has one core at a time, that of the newest epoch record it knows, with the driver that the
record names. Between sealing an epoch and holding the start of the next, the driver rests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from dwcp.wire.epochs import CertifiedRecord, EpochBound, Records
from dwcp.wire.peer import (
    Certificate,
    CheckpointVote,
    Header,
    PeerMessage,
    Status,
)
from dwcp.wire.records import EpochRecord, Member
from dwcp.wire.signing import Signer, Verifier
from dwcp.wire.state import StableCheckpoint
from dwcp.wire.switch import AdminSwitch, SwitchRequest
from dwcp_replica.core import catchup, checkpoints, collection, peers, restore, transfer
from dwcp_replica.core.driver import Driver, Handler
from dwcp_replica.core.effects import (
    EVERYONE,
    Alarm,
    Applied,
    EpochBegun,
    HandOver,
    Input,
    Learners,
    Order,
    Outbound,
    ReadIndex,
    Ready,
    Received,
    Record,
    Restored,
    Saved,
    Submit,
    Tick,
    TransferBegun,
    TransferDone,
)
from dwcp_replica.core.epochs import rest, resume, slot, succession, switching
from dwcp_replica.core.epochs.keeper import Keeper
from dwcp_replica.core.epochs.keys import Keys
from dwcp_replica.core.epochs.messages import epoch_of
from dwcp_replica.core.epochs.mute import Muteness
from dwcp_replica.core.epochs.wishing import Wish
from dwcp_replica.core.outline import Outline, outline
from dwcp_replica.core.pbft import driver as pbft
from dwcp_replica.core.raft import driver as raft
from dwcp_replica.core.raft.leading import set_learners
from dwcp_replica.core.raft.state import Draw
from dwcp_replica.core.restore import OwnState
from dwcp_replica.core.standing import Standing
from dwcp_replica.core.state_tree import StateTree
from dwcp_replica.core.tables import (
    ENDINGS,
    KEEPERS,
    LAGGARDS_SEND,
    OUTSIDERS_MAY_SEND,
    RESTING,
    SHARED,
    WAITING,
)

DRIVERS: Final[dict[str, Callable[[], Driver]]] = {"pbft": pbft.driver, "raft": raft.driver}
"""By the protocol that an epoch record names."""
EPOCHS_AT_ONCE_MAX: Final = 8


class Replica:
    """The chain core with the driver that the record names, from epoch to epoch.

    `me` is this replica's number in genesis, None for one that is to join later. `records` is
    what it made durable before, in order. `mute` is the reason why it must not sign (a damaged
    log tail): it then learns and executes, and counts as one of f, until an epoch that it can
    not have voted in; `mute_for_good` when its log can not be written either.
    `own` is the state that a start has found, and `state` gives access to it; without them
    everything is executed again from the start, and no state is shown or fetched.
    `keys` are all that it signs with (default: `signer`), the shell may let another one follow.
    `draw(bound)` gives random numbers below a bound; only Raft's election time-outs use it.
    """

    def __init__(
        self,
        *,
        genesis: EpochRecord,
        me: int | None,
        signer: Signer,
        verifier: Verifier,
        records: Iterable[Record] = (),
        mute: str | None = None,
        state: StateTree | None = None,
        own: OwnState | None = None,
        draw: Draw | None = None,
        mute_for_good: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys or Keys(signer)
        self._keeper = Keeper(genesis, verifier, Muteness(mute, mute_for_good))
        first = (self._keys.of(genesis)[0], verifier)
        self._core = succession.first_core(
            self._keeper.line, me, first, self._keeper.muteness, state, draw
        )
        self._started = False
        self._use_driver()
        self._replay(records, own)

    def _use_driver(self) -> None:
        """Drive the present core as its record says."""
        self._driver = DRIVERS[self._core.record.protocol]()
        self._handlers: dict[type[Any], Handler] = {
            **SHARED,
            CheckpointVote: checkpoints.on_checkpoint_vote,
            **self._driver.handlers,
        }

    # --- what the shell asks -------------------------------------------------------------------

    def step(self, event: Input | Wish) -> Ready:
        """Take one event; return what must be done because of it, in `Ready`'s order."""
        core = self._core
        assert self._started or isinstance(event, Tick), "the first event is a Tick"
        if core.halted is None:
            self._dispatch(event)
            self._follow_up()
        ready, self._core.out = self._core.out, Ready()
        return self._addressed(ready)

    def _addressed(self, ready: Ready) -> Ready:
        """Name receivers by their place in the directory, where that is not their number."""
        directory = self._keeper.directory
        if directory.is_plain or not ready.send:
            return ready
        places = [place for place in directory.places() if place != self._place]
        sent: list[Outbound] = []
        for out in ready.send:
            targets = places if out.to == EVERYONE else [directory.place_of(out.to)]
            sent += [Outbound(place, out.message) for place in targets]
        ready.send = sent
        return ready

    def durable(self) -> list[Record]:
        """Records that stand for all those before: the log on disk may begin anew with them."""
        return resume.durable(self._core, self._keeper.line)

    @property
    def _place(self) -> int | None:
        return self._keeper.directory.number_of(self._core.signer.public_key)

    def deadline_ms(self) -> int | None:
        """When (core time, ms) the next Tick matters; None after a halt."""
        core = self._core
        if core.halted is not None:
            return None
        due = rest.deadline_ms(core) if self._rests else self._driver.deadline_ms(core)
        return max(core.now_ms, min(due, self._keeper.beat_ms))

    @property
    def peers(self) -> tuple[Member, ...]:
        """Whom numbers in `Received` and `Outbound` name: members, learners, former members."""
        return tuple(self._keeper.directory.members)

    @property
    def certified(self) -> tuple[CertifiedRecord, ...]:
        """The epoch records after genesis, each with its certificate."""
        return tuple(self._keeper.line.chain.certified)

    def record_of(self, epoch: int) -> EpochRecord:
        """The record of an epoch up to the present one."""
        return self._keeper.line.chain.record(epoch) or self._core.record

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

    def outline(self, saved: int) -> Outline | None:
        """What proves the state that was saved at this index, and what is final above it."""
        return outline(self._core, self._keeper.line, saved)

    @property
    def stable_index(self) -> int:
        """Of the newest stable checkpoint that is known, of whatever epoch."""
        known = self._keeper.line.checkpoints
        return max(self._core.low if self._core.stable else 0, *known, 0)

    def standing(self) -> Standing:
        """Where this replica stands now."""
        core = self._core
        evidence_held = core.past_evidence | core.evidence
        return Standing(
            epoch=core.record.epoch,
            view=core.view,
            active=core.active,
            primary=core.primary,
            last=core.log.last,
            prepared=core.prepared,
            final=core.final,
            applied=max(core.applied, self._keeper.applied),
            stable=core.low,
            stable_state=core.stable.state if core.stable else b"",
            pending=len(core.pool),
            waits_since_ms=core.pool.oldest_ms(),
            mute=core.mute,
            halted=core.halted,
            evidence=tuple(evidence_held[m] for m in sorted(evidence_held)),
            peers=dict(core.peers),
            outsiders=dict(self._keeper.outsiders),
            pre_prepare_log_size=core.log.last - core.low,
            prepare_log_size=len(core.prepares),
            commit_log_size=len(core.commits),
            log_base=core.log.base.index,
            saved=core.saved,
            has_state=not core.stateless,
            transfer=None if core.transfer is None else core.transfer.index,
            transfer_left=0 if core.transfer is None else core.transfer.left,
            transfer_bytes=0 if core.transfer is None else core.transfer.received_bytes,
            record=core.record,
            me=None if core.me == succession.NOBODY else core.me,
            sealed=core.sealed,
            waiting=core.waiting,
        )

    # --- events --------------------------------------------------------------------------------

    def _dispatch(self, event: Input | Wish) -> None:
        core = self._core
        match event:
            case Tick(now_ms, wall_ms):
                assert now_ms >= core.now_ms, f"time went back: {core.now_ms} -> {now_ms}"
                core.now_ms, core.wall_ms = now_ms, wall_ms
                self._tick()
            case Received(sender, message):
                self._receive(sender, message)
            case Submit(envelope):
                has_state = core.transfer is None and not core.stateless
                if has_state and core.pool.add(envelope, core.now_ms) and not self._rests:
                    self._driver.submitted(core, envelope)
            case Applied(index, state, saved, due_ms):
                core.due_ms = due_ms
                self._applied(index, state, saved)
            case Saved() | TransferBegun() | Restored():
                self._about_state(event)
            case Wish():
                self._keeper.wishes.wish(core, event)
            case HandOver(to) if not self._rests:
                self._driver.hand_over(core, to)
            case Alarm() | Order() | ReadIndex() | Learners():
                self._ask(event)

    def _ask(self, event: Alarm | Order | ReadIndex | Learners) -> None:
        core = self._core
        match event:
            case Alarm():
                switching.panic(core)
            case Order(switch, learn):
                if not learn:
                    switching.on_order(core, core.me, switch)
                self._keeper.order(core, switch)
            case ReadIndex(token):
                if not self._rests:
                    self._driver.read(core, token)
            case Learners(numbers):
                set_learners(core, numbers)

    @property
    def _rests(self) -> bool:
        """True while no driver acts: the epoch is sealed, or its start is not here."""
        return self._core.sealed or self._core.waiting

    def _applied(self, index: int, state: bytes | None, saved: int) -> None:
        """The state machine has come so far; below the epoch's start that counts as its start."""
        core, keeper = self._core, self._keeper
        keeper.applied = max(keeper.applied, index)
        if index > core.record.start_index:
            checkpoints.on_applied(core, index, state, saved)
        else:
            core.saved = max(core.saved, saved)

    def _about_state(self, event: Saved | TransferBegun | Restored) -> None:
        """The shell has saved the state, or given it up, or got it from others."""
        core = self._core
        match event:
            case Saved(index):
                core.saved = max(core.saved, index)
                if not core.waiting:
                    collection.collect(core)
                if core.saved > core.record.start_index:
                    self._keeper.line.collect(core.record.start_index - core.window)
            case TransferBegun(index):
                transfer.on_begun(core, index)
            case Restored(index):
                self._restored(index)

    def _restored(self, index: int) -> None:
        """The state came from others: execution goes on above it, in whatever epoch that is."""
        core, keeper = self._core, self._keeper
        if core.transfer is None or core.transfer.index != index:
            return
        keeper.applied = keeper.emitted = index
        if index >= core.record.start_index:
            transfer.on_restored(core, index)
            self._go_on()
            return
        # a state of an ended epoch: what lies between is history, and is executed first
        core.emit(TransferDone(index, core.transfer.received_bytes))
        core.transfer, core.stateless = None, False
        keeper.emitted = succession.emit_history(core, keeper.line, index)
        core.emit_final()
        self._go_on()

    def _go_on(self) -> None:
        if not self._rests:
            self._driver.restored(self._core)

    def _tick(self) -> None:
        core = self._core
        rests = self._rests
        if not self._started:
            self._started = True
            self._keeper.start(core)
            restore.begin(core)
            if rests:
                resume.begin(core)
            else:
                self._driver.begin(core)
        elif rests:
            rest.on_tick(core)
        else:
            self._driver.on_tick(core)
        self._keeper.on_tick(core)

    def _receive(self, place: int, message: PeerMessage) -> None:
        core = self._core
        sender = self._keeper.directory.position_of(place)
        if sender is None and place in core.raft.learners:
            sender = place
        if sender is None or sender == core.me:
            core.refuse(place, message, "stranger")
            return
        if sender < core.n or sender in core.raft.learners:
            core.heard_ms[sender] = core.now_ms
        elif not isinstance(message, OUTSIDERS_MAY_SEND):
            core.refuse(sender, message, "stranger")
            return
        epoch = epoch_of(message)
        if isinstance(message, Status):
            if self._keeper.on_status(core, sender, message):
                self._handle(sender, message)
        elif epoch is not None and epoch > core.record.epoch:
            self._keeper.keep_early(core, sender, message, epoch)
        elif isinstance(message, StableCheckpoint) and epoch != core.record.epoch:
            self._keeper.on_old_checkpoint(core, sender, message)
        elif epoch is not None and epoch < core.record.epoch:
            if isinstance(message, LAGGARDS_SEND):
                self._keeper.send_records(core, sender, epoch)
            core.refuse(sender, message, "epoch")
        else:
            self._handle(sender, message)

    def _handle(self, sender: int, message: PeerMessage) -> None:
        """Give a message of the present epoch, or of none, to whom it concerns."""
        core, keeper = self._core, self._keeper
        kind = type(message)
        if isinstance(message, Records):
            self._take_records(sender, message)
        elif isinstance(message, EpochBound):
            self._take_records(sender, Records(message.records))
            keeper.muteness.answered(self._core, sender, message)
        elif isinstance(message, SwitchRequest):
            switching.on_request(core, sender, message)
            if message.member in core.ending.requests:
                keeper.help_mute(core, message)
        elif isinstance(message, AdminSwitch):
            switching.on_order(core, sender, message)
            keeper.order(core, message)
        elif kind in KEEPERS:
            KEEPERS[kind](keeper, core, sender, message)
        elif kind in ENDINGS:
            ENDINGS[kind](core, sender, message)
        else:
            rests = self._rests
            table = WAITING if core.waiting else RESTING if rests else self._handlers
            handler = table.get(kind)
            if handler is not None:
                handler(core, sender, message)
            elif not rests:
                core.refuse(sender, message, "protocol")  # of the other driver

    def _take_records(self, sender: int, message: Records) -> None:
        """Follow records that somebody shows, each checked against the one before."""
        for certified in message.records:
            core = self._core
            if certified.record.epoch <= core.record.epoch or core.halted is not None:
                continue
            reason = succession.fault(core, self._keeper.line, certified)
            if reason is not None:
                core.refuse(sender, message, "record")
                return
            self._begin_epoch(certified)

    # --- epochs --------------------------------------------------------------------------------

    def _follow_up(self) -> None:
        """What any event may have made possible."""
        keeper = self._keeper
        for _ in range(EPOCHS_AT_ONCE_MAX):
            core = self._core
            if core.halted is not None:
                break
            if not core.sealed and not core.waiting:
                keeper.look_for_switch(core)
                self._driver.follow_up(core)
            switching.look(core)
            certified = slot.decided(core)
            if certified is None:
                break
            self._begin_epoch(certified)
            keeper.announce(self._core, certified)
        self._begin_when_complete()
        if self._core.halted is None:
            keeper.say_ready(self._core)
        if self._core.out.persist:
            self._core.save_final()

    def _begin_epoch(self, certified: CertifiedRecord) -> None:
        """Leave the present epoch for the one that this record begins."""
        core = self._core
        succession.adopt_start(core, certified)
        if core.halted is not None:
            return
        self._succeed(certified)
        self._begin_when_complete()

    def _succeed(self, certified: CertifiedRecord) -> None:
        core, keeper = self._core, self._keeper
        if not core.waiting:
            keeper.emitted = max(keeper.emitted, core.emitted)
        self._core = succession.succeed(core, keeper.line, certified, keeper.muteness, self._keys)
        keeper.begin(self._core)
        self._use_driver()

    def _begin_when_complete(self) -> None:
        """Execute what ended epochs left; take part once all of it is here."""
        core, keeper = self._core, self._keeper
        keeper.emitted = succession.emit_history(core, keeper.line, keeper.emitted)
        if not core.waiting:
            return
        if not succession.begin(core, keeper.line):
            return
        keeper.emitted = succession.emit_history(core, keeper.line, keeper.emitted)
        self._driver.resume(core, 1)
        core.active = core.active and not core.sealed
        self._driver.begin(core)
        peers.forward_waiting(core)  # what was dropped with the old log, or came while it rested
        for place, message in keeper.take_early():
            self._receive(place, message)

    # --- after a crash -------------------------------------------------------------------------

    def _replay(self, records: Iterable[Record], own: OwnState | None) -> None:
        """Live through the epochs of the records again; only what is to be executed comes out."""
        segment: list[Record] = []
        for record in records:
            if isinstance(record, EpochBegun):
                resume.replay_epoch(self._core, self._keeper.line, segment, self._driver.resume)
                self._core.out = Ready()
                self._core.stateless = False  # what state there is, is seen at the end
                self._succeed(record.certified)
                segment = []
            else:
                segment.append(record)
        core, keeper = self._core, self._keeper
        resume.replay_epoch(core, keeper.line, segment, self._driver.resume, own)
        if own is not None and own.applied is not None:
            keeper.applied = own.applied
        keeper.emitted = keeper.applied
        above, core.out = core.out.apply, Ready()
        keeper.emitted = succession.emit_history(core, keeper.line, keeper.emitted)
        core.out.apply += above


__all__ = ["Replica", "Standing"]
