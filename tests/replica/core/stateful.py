"""Engines with a real store each, whose states are saved, cut off below, and fetched."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Envelope, EnvelopeBody, decode_batch, envelope_signing_bytes
from dwcp.wire.operations import OpenSession, Operation, PutRequest
from dwcp.wire.peer import Entry, PeerMessage
from dwcp_replica.core.effects import (
    Applied,
    CheckpointStable,
    Event,
    Ready,
    Restored,
    Saved,
    Submit,
    TransferBegun,
)
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.restore import OwnState
from dwcp_replica.store import Store
from dwcp_replica.store.records import MemoryRecords, MemoryView
from dwcp_replica.store.shelf import Shelf
from replica.core.conversation import WALL_MS, Conversation


class Stateful(Conversation):
    """A conversation whose members keep what they execute, and forget the log below it."""

    def __init__(self, n: int = 4, interval: int = 2, timeout_ms: int = 400) -> None:
        self.committed: list[MemoryView | None] = [None] * n
        self.stores: dict[int, Store] = {}
        self.shelves: dict[int, Shelf] = {}
        self.events: list[tuple[int, Event]] = []
        self.sent: list[tuple[int, int, PeerMessage]] = []
        super().__init__(n, interval, timeout_ms)
        self.sequence = 0

    def _engine(self, me: int) -> Replica:
        store = Store(self.genesis, records=MemoryRecords(self.committed[me]))
        self.stores[me], self.shelves[me] = store, Shelf(store)
        replica = Replica(
            genesis=self.genesis,
            me=me,
            signer=self.signers[me],
            verifier=self.verifier,
            records=self.records[me],
            state=self.shelves[me],
            own=OwnState(None if store.target else store.applied_index, store.held.digest()),
        )
        self.shelves[me].stable(replica.stable_index)
        return replica

    # --- what a test does ------------------------------------------------------------------------

    def open(self) -> None:
        """The client opens session 1."""
        operation = OpenSession(bytes(16), WALL_MS + self.now_ms)
        self.order(self.seal(EnvelopeBody(0, 0, 0, (operation,))))

    def put(self, start: int, stop: int, value: bytes = b"v") -> None:
        """One envelope that writes these keys."""
        self.write(*(PutRequest(b"k%05d" % number, value) for number in range(start, stop)))

    def write(self, *operations: Operation) -> None:
        """One envelope in session 1."""
        self.sequence += 1
        body = EnvelopeBody(1, self.sequence, self.sequence - 1, operations)
        self.order(self.seal(body))

    def write_to(self, member: int) -> None:
        """A put that only this member hears of; its sequence number is used again."""
        body = EnvelopeBody(1, self.sequence + 1, self.sequence, (PutRequest(b"lost"),))
        self._act(member, Submit(self.seal(body)))

    def seal(self, body: EnvelopeBody) -> Envelope:
        data = msgspec.msgpack.encode(body)
        sig = self.client.sign(envelope_signing_bytes(self.genesis.hash(), data))
        return Envelope(self.client.public_key, data, sig)

    def order(self, envelope: Envelope) -> None:
        """Hand an envelope to a member that can pass it on, and deliver what follows."""
        cut = {member for pair in self.cut for member in pair if len(self.cut) > 1}
        alone = {m for m in cut if all((m, o) in self.cut for o in range(self.n) if o != m)}
        taker = next(m for m in range(self.n) if m not in self.down | alone)
        self._act(taker, Submit(envelope))
        self.deliver()

    def crash(self, member: int) -> None:
        """Stop a member; its disk stays, with the state that it had committed."""
        super().crash(member)
        held = self.stores[member].held
        assert isinstance(held, MemoryRecords)
        self.committed[member] = held.committed
        self.due[member].clear()

    def digests(self) -> list[bytes]:
        return [self.stores[member].digest() for member in range(self.n)]

    def of(self, member: int, kind: type[Event]) -> list[Event]:
        """What a member's engine has said of one kind."""
        return [event for who, event in self.events if who == member and isinstance(event, kind)]

    # --- effects ---------------------------------------------------------------------------------

    def execute(self, me: int, entry: Entry) -> Applied:
        index = entry.header.index
        self.stores[me].apply(index, decode_batch(entry.body))
        due = index % self.genesis.parameters.checkpoint_interval == 0
        state = self.shelves[me].checkpoint() if due else None
        return Applied(index, state, self.shelves[me].saved, self.stores[me].next_due_ms)

    def after(self, me: int, ready: Ready) -> None:
        shelf = self.shelves[me]
        if ready.transfer is not None:
            shelf.begin_transfer(ready.transfer)
            self._act(me, TransferBegun(ready.transfer[0]))
        if ready.transferred:
            shelf.end_transfer()
            self._act(me, Restored(shelf.saved))
        for event in ready.events:
            self.events.append((me, event))
            if isinstance(event, CheckpointStable):
                shelf.stable(event.index)
                self._act(me, Saved(shelf.saved))


def left_behind(
    keys: int = 600, entries: int = 12, changed: int = 5, timeout_ms: int = 4000
) -> Stateful:
    """Member 3 is away while the others write much and cut their logs; then it hears them again."""
    talk = Stateful(timeout_ms=timeout_ms)
    talk.open()
    for start in range(0, keys, 100):
        talk.put(start, start + 100)
    talk.crash(3)
    for number in range(entries):
        talk.put(number * 7, number * 7 + changed, b"later %d" % number)
    talk.wait(500)
    return talk
