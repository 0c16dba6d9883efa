"""How a member lies, for tests and demonstrations: hooks around an honest engine.

An outbound hook sees what the engine wants to send and says what is sent instead; a reply hook
does the same for answers to clients, before they are signed. Nothing here can forge another
member's signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec

from dwcp.wire.envelope import Reply, batch_digest, decode_batch, decode_results
from dwcp.wire.operations import RangeResponse, Result
from dwcp.wire.peer import Entry, PeerMessage, PrePrepare
from dwcp.wire.query import QueryReply
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer
from dwcp.wire.state import StateChunk
from dwcp_replica.core.effects import EVERYONE, Outbound

OutboundHook = Callable[[list[Outbound]], list[Outbound]]
AnyReply = TypeVar("AnyReply", Reply, QueryReply)


class ReplyHook(Protocol):
    """Says what a client gets in place of a reply."""

    def __call__(self, reply: AnyReply, /) -> AnyReply:
        """The reply that the client gets."""
        ...


Hooks = tuple[OutboundHook, ReplyHook]


def honest(outbound: list[Outbound]) -> list[Outbound]:
    """Change nothing."""
    return outbound


def honest_reply(reply: AnyReply, /) -> AnyReply:
    """Change nothing."""
    return reply


def silent(_outbound: list[Outbound]) -> list[Outbound]:
    """Send nothing at all."""
    return []


def wrong_reply(reply: AnyReply, /) -> AnyReply:
    """Claim another result: values changed, revision one too high."""
    results = tuple(falsified(result) for result in decode_results(reply.results))
    return msgspec.structs.replace(
        reply, revision=reply.revision + 1, results=msgspec.msgpack.encode(results)
    )


def falsified(result: Result) -> Result:
    """A read that returns what was never written."""
    if isinstance(result, RangeResponse):
        kvs = tuple(msgspec.structs.replace(kv, value=kv.value + b"!") for kv in result.kvs)
        return RangeResponse(kvs=kvs, more=result.more, count=result.count)
    return result


class Equivocator:
    """As primary, propose one entry to half of the members and another to the rest."""

    def __init__(self, genesis: EpochRecord, me: int, signer: Signer) -> None:
        self._genesis = genesis
        self._scope = scope_of(genesis, genesis)
        self._others = [m for m in range(len(genesis.members)) if m != me]
        self._signer = signer

    def enter(self, record: EpochRecord) -> None:
        """Sign under another record from now on."""
        self._scope = scope_of(self._genesis, record)

    def __call__(self, outbound: list[Outbound]) -> list[Outbound]:
        """Split every broadcast proposal in two."""
        sent: list[Outbound] = []
        for out in outbound:
            if out.to == EVERYONE and isinstance(out.message, PrePrepare):
                other = PrePrepare(self.variant(out.message.entry))
                half = len(self._others) // 2
                sent += [Outbound(m, out.message) for m in self._others[half:]]
                sent += [Outbound(m, other) for m in self._others[:half]]
            else:
                sent.append(out)
        return sent

    def variant(self, entry: Entry) -> Entry:
        """The same place in the chain with another batch, signed as well."""
        batch = decode_batch(entry.body)
        body = msgspec.msgpack.encode(msgspec.structs.replace(batch, stamp_ms=batch.stamp_ms + 1))
        unsigned = msgspec.structs.replace(entry.header, batch=batch_digest(body))
        sig = self._signer.sign(unsigned.signing_bytes(self._scope))
        return Entry(msgspec.structs.replace(unsigned, sig=sig), body)


def _lie(genesis: EpochRecord, me: int, signer: Signer) -> Hooks:
    return Equivocator(genesis, me, signer), wrong_reply


def _equivocate(genesis: EpochRecord, me: int, signer: Signer) -> Hooks:
    return Equivocator(genesis, me, signer), honest_reply


def _wrong_replies(_genesis: EpochRecord, _me: int, _signer: Signer) -> Hooks:
    return honest, wrong_reply


def _silent(_genesis: EpochRecord, _me: int, _signer: Signer) -> Hooks:
    return silent, honest_reply


def _lying_state(_genesis: EpochRecord, _me: int, _signer: Signer) -> Hooks:
    return wrong_state, honest_reply


def wrong_state(outbound: list[Outbound]) -> list[Outbound]:
    """Give another state than the certified one to who fetches it."""
    return [Outbound(out.to, _another_state(out.message)) for out in outbound]


def _another_state(message: PeerMessage) -> PeerMessage:
    if not isinstance(message, StateChunk) or not message.nodes:
        return message
    nodes = tuple(
        msgspec.structs.replace(node, children=tuple(reversed(node.children)))
        if node.children
        else msgspec.structs.replace(node, records=node.records[1:])
        for node in message.nodes
    )
    return msgspec.structs.replace(message, nodes=nodes)


STRATEGIES: Final[Mapping[str, Callable[[EpochRecord, int, Signer], Hooks]]] = {
    "lie": _lie,
    "equivocate": _equivocate,
    "wrong-replies": _wrong_replies,
    "silent": _silent,
    "lying-state": _lying_state,
}


def strategy_hooks(name: str, genesis: EpochRecord, me: int, signer: Signer) -> Hooks:
    """The hooks of a strategy by its name. Raises ValueError naming the known ones."""
    if name not in STRATEGIES:
        raise ValueError(f"no strategy {name!r}: use one of {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[name](genesis, me, signer)
