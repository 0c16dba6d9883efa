"""A small world around one SessionCore: real stores behind a network that loses and reorders.

Agreement is taken for granted here (one list of batches, the simulator's subject): any member
that has an envelope puts it into the log. Everything else is as the replicas do it: every honest
member applies the log to a store of its own, at its own pace; answers what was executed to the
client; repeats stored answers; rejects what its store refuses for good. Liars sign what they like.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from client.members import Members, results
from dwcp.matching import ReplicaMessage
from dwcp.outcomes import TicketOutcome
from dwcp.session import SessionCore
from dwcp.waiting import Limits
from dwcp.wire.envelope import (
    Batch,
    Envelope,
    EnvelopeBody,
    Reply,
    decode_body,
    decode_results,
)
from dwcp.wire.operations import (
    KeyValue,
    OpenSession,
    Operation,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Result,
    SessionOpened,
)
from dwcp_replica.store import Outcome, Refusal, Store, StoreLimits

_T = TypeVar("_T")

WALL_MS = 1_800_000_000_000

Lie = Callable[["World", int, Envelope], list[ReplicaMessage]]


@dataclass
class Faults:
    """Probabilities for each message, and who lies how."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False
    reconnect: float = 0.0
    liars: dict[int, Lie] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()


class World:
    """One client, n members, one seed."""

    def __init__(
        self,
        *,
        seed: int = 0,
        n: int = 4,
        faults: Faults | None = None,
        limits: Limits | None = None,
        store_limits: StoreLimits | None = None,
    ) -> None:
        self.members = Members(n)
        self.faults = faults or Faults()
        self.random = random.Random(seed)
        self.core = SessionCore(
            self.members.genesis, self.members.client, self.members.verifier, limits
        )
        self.now_ms = 1000
        self.log: list[Batch] = []
        self.ordered: set[bytes] = set()
        self.stores = [Store(self.members.genesis, store_limits) for _ in range(n)]
        self.store_limits = store_limits
        self.outcomes: dict[int, TicketOutcome] = {}
        self.truth: dict[bytes, Outcome] = {}
        """The first outcome of every request."""
        self.sent: dict[bytes, Envelope] = {}
        self.sends: list[tuple[int, Envelope]] = []
        self.lies: Counter[int] = Counter()
        self._to_members: list[tuple[int, Envelope]] = []
        self._to_client: list[tuple[int, ReplicaMessage]] = []
        self._nonces = 0

    # --- the client's shell ------------------------------------------------------------------

    def connect(self, *members: int) -> None:
        for member in members or range(self.members.n):
            self.core.connected(member)

    def submit(self, *operations: Operation) -> int:
        return self.core.submit(operations)

    def poll(self) -> list[tuple[int, Envelope]]:
        """Step the client; what it sends now."""
        self.core.tick(self.now_ms)
        if self.core.wants_session(self.now_ms):
            self._nonces += 1
            nonce = self._nonces.to_bytes(16, "big")
            self.core.open(nonce, WALL_MS + self.now_ms, self.now_ms)
        out = self.core.poll(self.now_ms)
        for ticket, outcome in out.outcomes:
            assert ticket not in self.outcomes, f"ticket {ticket} has two outcomes"
            self.outcomes[ticket] = outcome
        for _, envelope in out.send:
            self.sent.setdefault(envelope.digest(), envelope)
            assert self.sent[envelope.digest()] == envelope, "a repetition differs"
        self.lies.update(lie.member for lie in out.lies)
        self.sends.extend(out.send)
        return out.send

    def receive(self, member: int, message: ReplicaMessage) -> None:
        self.core.received(member, message, self.now_ms)

    # --- the replicas ------------------------------------------------------------------------

    def order(self, *envelopes: Envelope) -> None:
        """Agree on the next batch."""
        self.log.append(Batch(WALL_MS + self.now_ms, envelopes))

    def apply(self, member: int, count: int = 1) -> list[Reply]:
        """Let a member execute up to `count` entries of the log; its replies."""
        store, replies = self.stores[member], []
        for _ in range(count):
            if store.applied_index >= len(self.log):
                break
            index = store.applied_index + 1
            for outcome in store.apply(index, self.log[index - 1]):
                first = self.truth.setdefault(outcome.request, outcome)
                if not outcome.duplicate and first.index == outcome.index:
                    assert first == outcome, "the stores differ"
                replies.append(self.sign(member, outcome))
        return replies

    def sign(self, member: int, outcome: Outcome) -> Reply:
        return self.members.reply(
            member,
            outcome.request,
            index=outcome.index,
            revision=outcome.revision,
            content=outcome.results,
        )

    def admit(self, member: int, envelope: Envelope) -> list[ReplicaMessage]:
        """What a member does with an envelope from the client, and answers at once."""
        if (lie := self.faults.liars.get(member)) is not None:
            return lie(self, member, envelope)
        body = decode_body(envelope.body)
        store = self.stores[member]
        assert store.check(envelope, body) is None, "the client sent what no replica takes"
        match store.lookup(envelope, body):
            case Outcome() as outcome:
                return [self.sign(member, outcome)]
            case Refusal(reason, failure):
                return [self.members.rejected(member, envelope, reason, failure.message)]
            case _:
                if envelope.digest() not in self.ordered or self.random.random() < 0.1:
                    self.ordered.add(envelope.digest())
                    self.order(envelope)
                return []

    def read_all(self) -> dict[bytes, KeyValue]:
        """All keys once the whole log is executed, read by an envelope of another session."""
        reader = Store(self.members.genesis, self.store_limits)
        for index, batch in enumerate(self.log, start=1):
            reader.apply(index, batch)
        stamp_ms, key = reader.stamp_ms, self.members.client

        def execute(body: EnvelopeBody) -> Result:
            envelope = Envelope(key.public_key, msgspec.msgpack.encode(body), bytes(64))
            batch = Batch(stamp_ms, (envelope,))
            (outcome,) = reader.apply(reader.applied_index + 1, batch)
            (result,) = decode_results(outcome.results)
            return result

        opened = execute(EnvelopeBody(0, 0, 0, (OpenSession(b"r" * 16, stamp_ms),)))
        assert isinstance(opened, SessionOpened)
        found = execute(EnvelopeBody(opened.session, 1, 0, (RangeRequest(b"\0", b"\0"),)))
        assert isinstance(found, RangeResponse)
        return {kv.key: kv for kv in found.kvs}

    # --- everything at once --------------------------------------------------------------------

    def step(self, *, ms: int = 5) -> None:
        """Deliver some messages, execute some entries, let time pass."""
        self.now_ms += ms
        self._to_members.extend(self._pass_on(self.poll()))
        for member, envelope in self._take(self._to_members):
            if member not in self.faults.silent:
                answers = self.admit(member, envelope)
                self._to_client.extend(self._pass_on([(member, a) for a in answers]))
        for member in range(self.members.n):
            honest = member not in self.faults.liars and member not in self.faults.silent
            if honest and self.random.random() < 0.7:
                replies = self.apply(member, self.random.randint(1, 4))
                self._to_client.extend(self._pass_on([(member, r) for r in replies]))
        for member, message in self._take(self._to_client):
            self.receive(member, message)
        if self.random.random() < self.faults.reconnect:
            member = self.random.randrange(self.members.n)
            self.core.disconnected(member, self.now_ms)
            self.core.connected(member)

    def run(self, *, steps: int = 4000) -> None:
        """Until nothing waits; fails when that takes too long."""
        for _ in range(steps):
            self.step()
            if self.core.idle:
                self.poll()
                return
        raise AssertionError(f"not done after {steps} steps: {self.core.deadline_ms()}")

    def heal(self) -> None:
        """From now on the network is perfect; liars stay liars."""
        self.faults.loss = self.faults.duplicate = self.faults.reconnect = 0.0

    def _pass_on(self, messages: Sequence[_T]) -> list[_T]:
        passed = []
        for message in messages:
            if self.random.random() >= self.faults.loss:
                passed.append(message)
            if self.random.random() < self.faults.duplicate:
                passed.append(message)
        return passed

    def _take(self, queue: list[_T]) -> list[_T]:
        """Some messages from the queue, in order unless the network reorders."""
        if self.faults.reorder:
            self.random.shuffle(queue)
            count = self.random.randint(0, len(queue))
        else:
            count = len(queue)
        taken, queue[:] = queue[:count], queue[count:]
        return taken


def silent_but_busy(world: World, member: int, envelope: Envelope) -> list[ReplicaMessage]:
    """A liar that is always busy."""
    return [world.members.busy(member, envelope, 10**12)]


def rejecting(world: World, member: int, envelope: Envelope) -> list[ReplicaMessage]:
    """A liar that rejects everything, each time for another reason."""
    reason = world.random.choice(["malformed", "session-gone", "unknown-client", "nonsense"])
    return [world.members.rejected(member, envelope, reason, "no")]


def forging(world: World, member: int, envelope: Envelope) -> list[ReplicaMessage]:
    """A liar that signs a wrong answer at once, and gives it in all other names as well."""
    count = len(decode_body(envelope.body).operations)
    content = results(*[PutResponse()] * count)
    view = world.random.randint(0, 2**62)
    index = world.random.randint(0, 50)
    return [
        world.members.reply(
            claimed,
            envelope.digest(),
            index=index,
            revision=999,
            content=content,
            view=view,
            signed_by=member,
        )
        for claimed in range(world.members.n)
    ]


LIARS = (silent_but_busy, rejecting, forging)
