"""A simulated client: the real session core, asking for one operation after the other."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dwcp.outcomes import Answered, TicketOutcome
from dwcp.session import SessionCore
from dwcp.wire.envelope import Envelope, Rejected, Reply
from dwcp.wire.operations import DeleteRangeRequest, Operation, PutRequest, RangeRequest
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.sim.host import WALL_START_MS, Host
from dwcp_replica.sim.world import World


@dataclass(slots=True)
class Call:
    """One operation as the client saw it; times in virtual ms."""

    client: str
    operation: Operation
    invoked_ms: int
    returned_ms: int | None = None
    outcome: TicketOutcome | None = None


class SimClient:
    """Issues `count` operations in turn and keeps their history."""

    def __init__(
        self,
        world: World,
        name: str,
        genesis: EpochRecord,
        signer: Signer,
        verifier: Verifier,
        count: int,
        submitted: set[bytes],
    ) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.session = SessionCore(genesis, signer, verifier)
        self._world = world
        self._random = Random(world.random.getrandbits(64))
        self._left = count
        self._hosts: list[Host] = []
        self._tickets: dict[int, Call] = {}
        self._submitted = submitted
        self._key = signer.public_key
        self._tick_ms = 0

    def connect(self, hosts: list[Host]) -> None:
        """Have links to all members, and begin."""
        self._hosts = hosts
        for host in hosts:
            host.reply_to[self._key] = self.receive
            self.session.connected(host.me)
        self._world.after(self._random.randint(1, 50), self._next)

    @property
    def done(self) -> bool:
        """Every operation has its answer."""
        return self._left == 0 and not self._tickets

    def receive(self, member: int, message: Reply | Rejected) -> None:
        """An answer arrives."""
        self.session.received(member, message, self._world.now_ms)
        self._pump()

    def _next(self) -> None:
        if self._left == 0:
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
            return RangeRequest(key)
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
            self._world.after(self._random.randint(0, 20), self._next)
        self._plan_tick()

    def _send(self, member: int, envelope: Envelope) -> None:
        self._submitted.add(envelope.digest())
        host = self._hosts[member]
        self._world.deliver("client", host.name, lambda: host.envelope(envelope))

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
