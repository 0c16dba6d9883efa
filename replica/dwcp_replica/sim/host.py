"""A simulated replica: the real core and store on a machine with its own clock and disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import msgspec

from dwcp.matching import ReplicaMessage
from dwcp.wire.committed import Committed
from dwcp.wire.envelope import (
    Envelope,
    Rejected,
    Reply,
    decode_batch,
    decode_body,
    reply_signing_bytes,
    signed_refusal,
)
from dwcp.wire.operations import RangeRequest
from dwcp.wire.peer import Entry, PeerMessage, decode_message, encode_message
from dwcp.wire.query import (
    Query,
    QueryReply,
    decode_query_body,
    may_be_old,
    query_reply_signing_bytes,
)
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer, Verifier
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.core.effects import (
    EVERYONE,
    Applied,
    CheckpointStable,
    EpochEntered,
    Event,
    Input,
    Order,
    Outbound,
    Ready,
    Received,
    Record,
    Restored,
    Saved,
    Submit,
    Tick,
    TransferBegun,
    ViewEntered,
    VoiceFound,
)
from dwcp_replica.core.epochs.wishing import Wish
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.restore import OwnState
from dwcp_replica.sim.crypto import member_of
from dwcp_replica.sim.disk import Disk
from dwcp_replica.sim.liar import Liar
from dwcp_replica.sim.observer import Observer
from dwcp_replica.sim.world import World
from dwcp_replica.store.records import MemoryRecords, MemoryView
from dwcp_replica.store.refusals import Refusal
from dwcp_replica.store.shelf import Shelf
from dwcp_replica.store.store import Outcome, Store

WALL_START_MS = 1_700_000_000_000
SNAPSHOT = 0.3
"""How often a checkpoint's state is saved durably, and the log begun anew."""
CLOCK_STEP_MS = 8
"""How far the engine's clock may lag between its own deadlines: ticks cost as much as messages."""
BROKEN = (AssertionError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""How code that is wrong stops: an invariant, or what the language itself refuses."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Clock and disk: wall clock off by `skew_ms`, all clocks fast by `drift`, sync in ms."""

    skew_ms: int = 0
    drift: float = 0.0
    sync_ms: int = 1


class Host:
    """One member's machine. `honest` is False when its strategy lies."""

    def __init__(
        self,
        world: World,
        genesis: EpochRecord,
        me: int,
        keys: tuple[Signer, Verifier],
        observer: Observer,
        machine: Machine,
        dice: tuple[Random, Random],
        liar: Liar | None = None,
        suffix: str = "",
    ) -> None:
        self.world = world
        self.genesis = genesis
        self.me = me
        self.identity = keys[0].public_key
        self.member = member_of(me, self.identity)
        self.name = self.member.name + suffix
        self.record = genesis
        self.honest = liar is None
        self.liar = liar
        self.peers: list[Host] = []
        self.reply_to: dict[bytes, Callable[[bytes, ReplicaMessage], None]] = {}
        self.frames = False
        self.up = False
        self.gone = False
        self.life = 0
        self.view = 1
        self.disk = Disk(world, dice[0], machine.sync_ms, self._kept)
        self._machine = machine
        self._draw = dice[1].randrange
        self.signer, self._verifier = keys
        self._observer = observer
        self._interval = genesis.parameters.checkpoint_interval
        self.core: Replica
        self.store: Store
        self._queue: deque[Ready] = deque()
        self._draining = False
        self._tick_ms = 0
        self._read_from = 0
        self._stepped_ms = -CLOCK_STEP_MS
        self._random = dice[0]
        self.records: MemoryRecords
        self.shelf: Shelf
        self.committed: MemoryView | None = None
        self.snapshot: MemoryView | None = None
        self._saving_due = False
        self._saving: MemoryView | None = None
        if liar is not None:
            liar.join(self._say, world)

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again, from what the disk holds."""
        assert not self.up, f"{self.name} runs already"
        if self.gone:
            return
        self.up = True
        self.life += 1
        self.records = MemoryRecords(self.committed)
        self.store = Store(self.genesis, records=self.records)
        self.shelf = Shelf(self.store)
        applied = None if self.store.target else self.store.applied_index
        self.core = Replica(
            genesis=self.genesis,
            me=self.genesis.member_with(self.identity),
            signer=self.signer,
            verifier=self._verifier,
            records=list(self.disk.records),
            mute=self.disk.mute,
            mute_for_good=self.disk.read_only,
            state=self.shelf,
            own=OwnState(applied, self.records.digest()),
            draw=self._draw,
        )
        self.store.enter(self.core.standing().record)
        self.shelf.stable(self.core.stable_index)
        self._saving = None
        self._enter()
        if self.liar is not None:
            self.liar.possess(self.core)
        self._tick_ms = 0
        self._stepped_ms = -CLOCK_STEP_MS
        self._read_from = self.core.standing().last
        self._observer.started(self)
        self.feed(None)

    def crash(self) -> None:
        """Stop at once: memory is lost, and so is what was not synced yet."""
        self.up = False
        self.life += 1
        self._queue.clear()
        self._draining = False
        self.disk.crash()
        self.committed = self.records.committed
        if self._random.random() < 0.5:
            self.committed = self.snapshot  # the machine stopped: what was not synced is worthless

    def remove(self) -> None:
        """The volume is lost, and this member with it: it must not come back under its key."""
        if self.up:
            self.crash()
        self.gone = True

    # --- time --------------------------------------------------------------------------------

    @property
    def clock_ms(self) -> int:
        """This machine's monotonic clock."""
        return int(self.world.now_ms * (1.0 + self._machine.drift))

    def _world_ms(self, clock_ms: int) -> int:
        """The first moment in the world at which the clock shows this."""
        rate = 1.0 + self._machine.drift
        moment = int(clock_ms / rate)
        while int(moment * rate) < clock_ms:
            moment += 1
        return moment

    # --- events in -----------------------------------------------------------------------------

    def feed(self, event: Input | Wish | None) -> None:
        """Step the engine: the time if it is due or has moved on, then the event."""
        if not self.up:
            return
        clock = self.clock_ms
        try:
            if event is None or clock - self._stepped_ms >= CLOCK_STEP_MS:
                self._stepped_ms = clock
                wall_ms = WALL_START_MS + clock + self._machine.skew_ms
                self._group(self.core.step(Tick(clock, wall_ms)))
            if event is not None and self.up:
                self._group(self.core.step(event))
            self._plan_tick()
        except BROKEN:
            if self.honest:
                raise
            self.remove()  # its own lies have broken it

    def receive(self, sender: bytes, frame: PeerMessage | bytes) -> None:
        """A message arrives from whoever holds the key `sender`."""
        if not self.up:
            return
        place = self.places.get(sender)
        if place is None:
            return  # no connection from strangers
        message = decode_message(frame) if isinstance(frame, bytes) else frame
        if self.liar is None or self.liar.hear(place, message):
            self.feed(Received(place, message))

    def _enter(self) -> None:
        """The engine may know more peers, and another record, than before."""
        standing = self.core.standing()
        self.view, self.record = standing.view, standing.record
        self.number = standing.me
        self.places = {peer.identity: n for n, peer in enumerate(self.core.peers)}
        self._scope = scope_of(self.genesis, self.record)
        if self.liar is not None:
            self.liar.enter(self.record)

    def order(self, switch: AdminSwitch) -> None:
        """The admin's order arrives."""
        if self.liar is None or self.liar.hear(self.me, switch):
            self.feed(Order(switch))
        self._meet()

    def _meet(self) -> None:
        """Whom the engine has learned of may connect."""
        if self.up and len(self.core.peers) != len(self.places):
            self.places = {peer.identity: n for n, peer in enumerate(self.core.peers)}

    def envelope(self, envelope: Envelope) -> None:
        """An envelope arrives from a client."""
        if not self.up or (self.liar is not None and not self.liar.take(envelope)):
            return
        if self.store.target is not None:
            return  # its state is being fetched: it can not tell what is new
        body = decode_body(envelope.body)
        found = self.store.check(envelope, body) or self.store.lookup(envelope, body)
        if isinstance(found, Outcome):
            self._answer(found)
        elif isinstance(found, Refusal):
            words = (found.reason, found.failure.message)
            number = 0 if self.number is None else self.number
            rejected = Rejected(envelope.digest(), *words, self.record.epoch, number, bytes(64))
            signed = signed_refusal(rejected, self._scope, self.signer, envelope.sig)
            self._tell(envelope.client, signed)
        else:
            self.feed(Submit(envelope))

    def query(self, query: Query) -> None:
        """A read beside the log arrives from a client."""
        operations = decode_query_body(query.body).operations
        if not self.up or not self.may_read(operations):
            return
        reply = self._read(query, operations)
        if self.liar is not None:
            back = min(self.store.revision - 1, 3)
            old = max(self.store.revision - self.world.now_ms % (back + 1), 1)
            earlier = tuple(msgspec.structs.replace(one, revision=old) for one in operations)
            older = msgspec.structs.replace(self._read(query, earlier), revision=old)
            reply = self.liar.query_reply(reply, older)
        sig = self.signer.sign(query_reply_signing_bytes(self._scope, reply))
        self._tell(query.client, msgspec.structs.replace(reply, sig=sig))

    def may_read(self, operations: tuple[RangeRequest, ...]) -> bool:
        """True once all is executed that this member may have confirmed in an earlier life."""
        held, applied = self.store.target is None, self.store.applied_index
        if self.disk.mute is not None or not held or applied < self._read_from:
            return False
        return may_be_old(operations) or self.core.standing().shows_newest(applied)

    def _read(self, query: Query, operations: tuple[RangeRequest, ...]) -> QueryReply:
        revision, results = self.store.read(query.client, operations)
        index = self.store.applied_index
        epoch, number = self.record.epoch, self.number or 0
        return QueryReply(
            query.digest(), index, revision, results, epoch, self.view, number, bytes(64)
        )

    # --- effects out ---------------------------------------------------------------------------

    def _group(self, ready: Ready) -> None:
        if ready:
            self._queue.append(ready)
            if not self._draining:
                self._drain()

    def _drain(self) -> None:
        """Release in order; what waits for the disk is synced as one group with all behind it."""
        if self.disk.busy:
            return
        life = self.life
        self._draining = True
        while self._queue and life == self.life:
            if self._queue[0].persist:
                records = [record for ready in self._queue for record in ready.persist]
                anew = self._begin_anew()
                self.disk.write(records, partial(self._synced, len(self._queue)), anew)
                break
            self._release(self._queue.popleft())
        if life == self.life:
            self._draining = False

    def _begin_anew(self) -> list[Record] | None:
        """Once in a while: what the log may begin anew with, beside a snapshot of the state."""
        if not self._saving_due or self.store.target is not None:
            return None
        self._saving_due = False
        self._saving = self.records.committed
        return self.core.durable()

    def _synced(self, count: int) -> None:
        life = self.life
        if self._saving is not None:
            self.snapshot, self._saving = self._saving, None
        self._draining = True
        for _ in range(count):
            if life == self.life:
                self._release(self._queue.popleft())
        if life == self.life:
            self._draining = False
            self._drain()

    def _kept(self, record: Record) -> None:
        self._observer.durable(self, record)

    def _release(self, ready: Ready) -> None:
        for event in ready.events:
            if isinstance(event, VoiceFound):  # what it signs from now on leaves after this
                self._observer.event(self, event)
                self.disk.mute = None
        if self.liar is None:
            for out in ready.send:
                self._observer.sent(self, out.message)
                self._send(out)
        elif ready.send:
            for out in self.liar.send(ready.send):
                self._say(out)
        for entry in ready.apply:
            self._apply(entry)
        if ready.transfer is not None:
            self.shelf.begin_transfer(ready.transfer)
            self.feed(TransferBegun(ready.transfer[0]))
        if ready.transferred:
            state = self.shelf.end_transfer()
            self._observer.restored(self, self.store.applied_index, state)
            self.feed(Restored(self.store.applied_index))
        self._publish(ready.events)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ViewEntered):
                self.view = event.view
            elif isinstance(event, CheckpointStable):
                self._stable(event.index)
            elif isinstance(event, EpochEntered):
                self._enter()
            if not isinstance(event, VoiceFound):  # that was said before
                self._observer.event(self, event)

    def _apply(self, entry: Entry) -> None:
        index = entry.header.index
        if entry.header.epoch != self.store.record.epoch:
            self.store.enter(self.core.record_of(entry.header.epoch))
        outcomes = self.store.apply(index, decode_batch(entry.body))
        self._observer.executed(self, index, entry.header.hash(), outcomes)
        for outcome in outcomes:
            self._answer(outcome)
        state = None
        if index % self._interval == 0:
            state = self.shelf.checkpoint()
            self._observer.digested(self, index, state)
        self.feed(Applied(index, state, self.shelf.saved, self.store.next_due_ms))

    def _stable(self, index: int) -> None:
        self.shelf.stable(index)
        self._saving_due = self._saving_due or self._random.random() < SNAPSHOT
        self.feed(Saved(self.shelf.saved))

    def _send(self, out: Outbound) -> None:
        message = out.message
        frame: PeerMessage | bytes = message
        size = 0
        if self.frames or self.world.narrow:
            encoded = encode_message(message)
            size = len(encoded)
            frame = encoded if self.frames else message
        if (self.name, type(message).__name__) in self.world.lost_kinds:
            return
        self._meet()
        for peer in self.peers:
            place = self.places.get(peer.identity)
            if place is not None and out.to in (EVERYONE, place):
                pair = (self.name, peer.name)
                self.world.deliver(pair, size, peer.receive, self.identity, frame)

    def _say(self, out: Outbound) -> None:
        """A liar's message: only what the wire can carry, when its strategy lets it go."""
        assert self.liar is not None, "only liars choose their words"
        if not self.up:
            return
        try:
            message = decode_message(encode_message(out.message))
        except (msgspec.DecodeError, msgspec.ValidationError, OverflowError):
            return
        delay = self.liar.delay_ms(message)
        if delay:
            self.world.after(delay, self._send, Outbound(out.to, message))
        else:
            self._send(Outbound(out.to, message))

    def _answer(self, outcome: Outcome) -> None:
        if self.number is None:
            return  # an outsider's word counts nowhere
        reply = Reply(
            request=outcome.request,
            index=outcome.index,
            revision=outcome.revision,
            results=outcome.results,
            epoch=self.record.epoch,
            view=self.view,
            member=self.number,
            sig=bytes(64),
        )
        if self.liar is not None:
            reply = self.liar.reply(reply)
        if outcome.client in self.reply_to:
            sig = self.signer.sign(reply_signing_bytes(self._scope, reply))
            signed = msgspec.structs.replace(reply, sig=sig)
            proof = self.core.proof_of(outcome.index)
            if self.genesis.trust != "Crash":
                self._tell(outcome.client, signed)
            elif proof is not None:
                self._tell(outcome.client, Committed(signed, *proof))

    def _tell(self, client: bytes, message: ReplicaMessage) -> None:
        back = self.reply_to.get(client)
        if back is not None:
            self.world.deliver((self.name, "client"), 200, back, self.identity, message)

    def _plan_tick(self) -> None:
        if not self.up or (due := self.core.deadline_ms()) is None:
            return
        now = self.world.now_ms
        moment = max(self._world_ms(due), now + 1)
        if self._tick_ms <= now or moment < self._tick_ms:
            self._tick_ms = moment
            self.world.at(moment, self._tick, self.life)

    def _tick(self, life: int) -> None:
        if life == self.life:
            self.feed(None)
