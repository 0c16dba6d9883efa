"""What a lying member may do: change, drop, delay and invent messages, with its own key only.

The engine inside is honest; a `Liar` stands between it and the world. It sees what arrives and
what the engine wants to send, and may speak at any time by itself. It never holds another
member's or a client's key, so that what it can not sign it can only repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from dwcp.wire.envelope import Batch, Envelope, Reply, batch_digest
from dwcp.wire.peer import (
    CheckpointVote,
    Commit,
    DoubleVote,
    Entry,
    Equivocation,
    Header,
    PeerMessage,
    Prepare,
    ViewChange,
    Vote,
    VoteKind,
    vote_signing_bytes,
)
from dwcp.wire.query import QueryReply
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer
from dwcp_replica.core.effects import EVERYONE, Outbound
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.world import World

VOTE_KINDS: dict[type[Prepare | Commit], VoteKind] = {Prepare: "prepare", Commit: "commit"}


@dataclass(frozen=True, slots=True)
class Context:
    """Whom the liar is: its cluster, its number, its key, its dice."""

    genesis: EpochRecord
    me: int
    signer: Signer
    random: Random


class Liar:
    """The honest strategy; each lie overrides what it changes."""

    beat_every_ms = 0
    """How often `beat` is called, in ms; 0 for never."""

    def __init__(self, context: Context) -> None:
        self.genesis = context.genesis
        self.me = context.me
        self.signer = context.signer
        self.random = context.random
        self.n = len(context.genesis.members)
        self.number: int | None = context.me
        self.others = [m for m in range(self.n) if m != context.me]
        self.scope = scope_of(context.genesis, context.genesis)
        self.timeout_ms = context.genesis.parameters.request_timeout_ms
        self.record = context.genesis
        self._say: Callable[[Outbound], None]
        self._world: World

    # --- what the host asks --------------------------------------------------------------------

    def join(self, say: Callable[[Outbound], None], world: World) -> None:
        """Get a voice of its own."""
        self._say = say
        self._world = world
        if self.beat_every_ms:
            world.after(self.beat_every_ms, self._beat)

    def enter(self, record: EpochRecord) -> None:
        """Another epoch is in force: what is signed counts under its record."""
        self.record = record
        self.scope = scope_of(self.genesis, record)
        self.number = record.member_with(self.signer.public_key)

    def possess(self, replica: Replica) -> None:
        """Meet the engine at the start of a life."""

    def send(self, outbound: list[Outbound]) -> list[Outbound]:
        """What is sent in place of what the engine wants to send; never a proof against me."""
        sent: list[Outbound] = []
        for out in outbound:
            if not isinstance(out.message, Equivocation | DoubleVote):
                sent += self.alter(out)
        return sent

    def alter(self, out: Outbound) -> list[Outbound]:
        """What is sent in place of one message."""
        return [out]

    def delay_ms(self, _message: PeerMessage) -> int:
        """How long a message is held back."""
        return 0

    def hear(self, _sender: int, _message: PeerMessage) -> bool:
        """False when the engine shall not see what has arrived."""
        return True

    def take(self, _envelope: Envelope) -> bool:
        """False when the engine shall not see what a client sent."""
        return True

    def reply(self, reply: Reply) -> Reply:
        """The answer that a client gets."""
        return reply

    def query_reply(self, reply: QueryReply, _older: QueryReply) -> QueryReply:
        """The answer to a read beside the log; `_older` is that of an earlier state."""
        return reply

    def beat(self) -> None:
        """Speak by itself."""

    # --- what lies are made of -------------------------------------------------------------------

    def say(self, to: int, message: PeerMessage) -> None:
        """Send something that no engine asked for."""
        self._say(Outbound(to, message))

    def shout(self, message: PeerMessage) -> None:
        """Send something to everybody."""
        self._say(Outbound(EVERYONE, message))

    def leads(self, term: int) -> bool:
        """True when this member's signature counts on a header of `term`."""
        return term >= 1 and self.record.primary(term) == self.number

    def next_term(self, above: int) -> int | None:
        """My lowest Raft term above `above`; None where PBFT runs, or I am barred or no member."""
        if self.record.protocol != "raft":
            return None
        terms = range(above + 1, above + 1 + 2 * self.n)
        return next((term for term in terms if self.leads(term)), None)

    def signed_header(self, header: Header) -> Header:
        """The header with this member's signature, whether it may sign it or not."""
        sig = self.signer.sign(header.signing_bytes(self.scope))
        return msgspec.structs.replace(header, sig=sig)

    def entry(self, like: Header, batch: Batch, index: int, prev: bytes) -> Entry:
        """An entry of the same term with another batch or place, signed by this member."""
        body = msgspec.msgpack.encode(batch)
        header = msgspec.structs.replace(like, batch=batch_digest(body), index=index, prev=prev)
        return Entry(self.signed_header(header), body)

    def vote(self, kind: type[Prepare | Commit], header: Header, member: int) -> Prepare | Commit:
        """A vote that this member signs, in whatever name."""
        message = vote_signing_bytes(self.scope, VOTE_KINDS[kind], header)
        return kind(header, member, self.signer.sign(message))

    def resigned(self, message: PeerMessage) -> PeerMessage:
        """The message with this member's signature made anew, where it has one."""
        match message:
            case Prepare() | Commit():
                return self.vote(type(message), message.header, message.member)
            case CheckpointVote(header, state, _, _):
                signed = vote_signing_bytes(self.scope, "checkpoint", header, state)
            case ViewChange() | Vote():
                signed = message.signing_bytes(self.scope)
            case _:
                return message
        return msgspec.structs.replace(message, sig=self.signer.sign(signed))

    def noise(self, length: int) -> bytes:
        """Random bytes, a signature of nobody."""
        return self.random.randbytes(length)

    def _beat(self) -> None:
        self.beat()
        self._world.after(self.beat_every_ms, self._beat)
