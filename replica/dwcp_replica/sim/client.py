"""A simulated client: the real session core, asking for one operation after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dwcp.matching import Lie, ReplicaMessage
from dwcp.outcomes import Answered, TicketOutcome
from dwcp.reads import SEED_BYTES
from dwcp.session import SessionCore
from dwcp.waiting import Limits
from dwcp.wire.envelope import Envelope
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.operations import DeleteRangeRequest, Operation, PutRequest, RangeRequest
from dwcp.wire.query import Query
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.sim.host import WALL_START_MS, Host
from dwcp_replica.sim.world import World

SERIALIZABLE = 0.2
"""The share of reads that may be old, where reads skip the log at all."""
RETRY_MS = 300
"""Shorter than a real client's, as the members' timeouts are: what is lost is asked for soon."""


@dataclass(slots=True)
class Call:
    """One operation as the client saw it; times in virtual ms."""

    client: str
    operation: Operation
    invoked_ms: int
    returned_ms: int | None = None
    outcome: TicketOutcome | None = None


class SimClient:
    """Issues `count` operations in turn, the last one only when told, and keeps their history."""

    def __init__(
        self,
        world: World,
        name: str,
        genesis: EpochRecord,
        keys: tuple[Signer, Verifier],
        count: int,
        think_ms: int,
        submitted: set[bytes],
        random: Random,
    ) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.lies: list[Lie] = []
        fast = genesis.parameters.fast_reads
        seed = random.randbytes(SEED_BYTES) if fast else None
        self.session = SessionCore(genesis, *keys, Limits(retry_ms=RETRY_MS), seed)
        self._serializable = SERIALIZABLE if fast else 0.0
        self._world = world
        self._random = random
        self._left = count
        self._held = min(1, count)
        self._think_ms = think_ms
        self._hosts: Sequence[Host] = ()
        self._tickets: dict[int, Call] = {}
        self._submitted = submitted
        self._key = keys[0].public_key
        self._tick_ms = 0
        self._known = 0
        self._asking = False

    def connect(self, hosts: Sequence[Host]) -> None:
        """Have links to all members, and begin."""
        self._hosts = hosts
        for host in hosts:
            host.reply_to[self._key] = self.receive
        self._meet()
        self._world.after(self._random.randint(1, 50), self._next)

    def connect_to(self, host: Host) -> None:
        """Another machine is there; it is asked once a verified record names it."""
        host.reply_to[self._key] = self.receive

    def release(self) -> None:
        """Ask for the rest too: whatever happened before, it must be answered."""
        self._held = 0
        if not self._tickets:
            self._next()

    @property
    def done(self) -> bool:
        """Every operation has its answer."""
        return self._left == 0 and not self._tickets

    @property
    def idle(self) -> bool:
        """Every operation but the one held back has its answer."""
        return self._left <= self._held and not self._tickets

    @property
    def waiting(self) -> int:
        """Operations without an answer."""
        return len(self._tickets)

    def receive(self, sender: bytes, message: ReplicaMessage) -> None:
        """An answer arrives from whoever holds the key `sender`."""
        place = self._place(sender)
        if place is None:
            return
        self.session.received(place, message, self._world.now_ms)
        if self.session.checker.wants_records and not self._asking:
            self._asking = True
            host = self._random.choice(self._reachable())
            self._world.deliver(("client", host.name), 100, self._ask_records, host)
            self._world.after(RETRY_MS, self._stop_asking)
        self._pump()

    def _reachable(self) -> list[Host]:
        return [host for host in self._hosts if self._place(host.identity) is not None]

    def _place(self, identity: bytes) -> int | None:
        peers = self.session.checker.peers
        return next((n for n, peer in enumerate(peers) if peer.identity == identity), None)

    def _meet(self) -> None:
        """Have links to everybody that a verified record names."""
        for place in range(self._known, len(self.session.checker.peers)):
            self.session.connected(place)
        self._known = len(self.session.checker.peers)

    def _ask_records(self, host: Host) -> None:
        if host.up:
            pair = (host.name, "client")
            self._world.deliver(pair, 1000, self._learn, host.core.certified)

    def _learn(self, certified: tuple[CertifiedRecord, ...]) -> None:
        fault = self.session.learn(certified, self._world.now_ms)
        assert fault is None, fault
        self._asking = False
        self._meet()
        self._pump()

    def _stop_asking(self) -> None:
        self._asking = False

    def _next(self) -> None:
        if self._left <= self._held or self._tickets:
            return
        self._left -= 1
        operation = self._operation()
        ticket = self.session.submit([operation])
        call = Call(self.name, operation, self._world.now_ms)
        self._tickets[ticket] = call
        self.calls.append(call)
        self._pump()

    def _operation(self) -> Operation:
        key = b"k%d" % self._random.randrange(4)
        kind = self._random.randrange(10)
        if kind < 5:
            return PutRequest(key, b"%s-%d" % (self.name.encode(), len(self.calls)))
        if kind < 9:
            old = self._serializable > 0 and self._random.random() < self._serializable
            return RangeRequest(key, serializable=old)
        return DeleteRangeRequest(key)

    def _pump(self) -> None:
        now = self._world.now_ms
        if self.session.wants_session(now):
            self.session.open(self._random.randbytes(16), WALL_START_MS + now, now)
        out = self.session.poll(now)
        for member, envelope in out.send:
            self._send(member, envelope)
        for ticket, outcome in out.outcomes:
            call = self._tickets.pop(ticket)
            call.outcome = outcome
            call.returned_ms = now
            assert isinstance(outcome, Answered), f"{self.name}: {outcome}"
            self._world.after(self._random.randint(0, self._think_ms), self._next)
        self.lies += out.lies
        self._plan_tick()

    def _send(self, member: int, request: Envelope | Query) -> None:
        size = len(request.body) + 100
        identity = self.session.checker.peers[member].identity
        for host in self._hosts:
            if host.identity != identity:
                continue
            pair = ("client", host.name)
            if isinstance(request, Query):
                self._world.deliver(pair, size, host.query, request)
            else:
                self._submitted.add(request.digest())
                self._world.deliver(pair, size, host.envelope, request)

    def _plan_tick(self) -> None:
        due = self.session.deadline_ms()
        if due is None:
            return
        due = max(due, self._world.now_ms + 1)
        if self._tick_ms <= self._world.now_ms or due < self._tick_ms:
            self._tick_ms = due
            self._world.at(due, self._tick)

    def _tick(self) -> None:
        self.session.tick(self._world.now_ms)
        self._pump()
