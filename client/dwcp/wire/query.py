"""Reads that skip the log: a client asks, and each replica answers from its executed state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import MAX_ENVELOPE_OPERATIONS, envelope_scope
from dwcp.wire.operations import Nonce, RangeRequest
from dwcp.wire.signing import Count, Hash, PublicKey, Scope, Signature, digest

MAX_QUERY_BYTES: Final = 256 * 1024
"""Of a query's body: keys only, so that this is many of them."""
MAX_QUERY_OPERATIONS: Final = MAX_ENVELOPE_OPERATIONS


class QueryBody(Struct, frozen=True, array_like=True):
    """What a client signs: reads that are answered together, from one state.

    `nonce` is 16 bytes that this client never used before: an answer to an earlier query is
    none to this one.
    """

    nonce: Nonce
    operations: tuple[RangeRequest, ...]


class Query(Struct, frozen=True, array_like=True, tag="query"):
    """A signed query: `body` is the MessagePack of a QueryBody, signed as it stands."""

    client: PublicKey
    body: bytes
    sig: Signature

    def digest(self) -> bytes:
        """Names the request, as that of an envelope does."""
        return digest("query", self.client, self.body)


class QueryReply(Struct, frozen=True, array_like=True, tag="query-reply"):
    """A replica's signed answer to a query, from what it has executed (which is final).

    Two replies match when request, revision and results are equal: the revision names the state
    of the keys. `index`, the last entry executed, is signed and takes no part: entries without
    writes move it. `results` is the MessagePack of a tuple of Result.
    """

    request: Hash
    index: Count
    revision: Count
    results: bytes
    epoch: Count
    view: Count
    member: Count
    sig: Signature


def may_be_old(operations: Sequence[RangeRequest]) -> bool:
    """True when an older state answers all of these."""
    return all(one.serializable for one in operations)


_decode_body: Callable[[bytes], QueryBody] = decoder_of(QueryBody)


def query_signing_bytes(genesis: bytes, body: bytes) -> bytes:
    """What a client signs."""
    return envelope_scope(genesis).signing_bytes("query", body)


def query_reply_signing_bytes(scope: Scope, reply: QueryReply) -> bytes:
    """What a replica signs: the answer's content and its position, in its epoch."""
    payload = b"".join(
        (
            reply.request,
            reply.index.to_bytes(8, "big"),
            reply.revision.to_bytes(8, "big"),
            reply.epoch.to_bytes(8, "big"),
            digest("results", reply.results),
        )
    )
    return scope.signing_bytes("query-reply", payload)


def decode_query_body(body: bytes) -> QueryBody:
    """Decode what a client signed. Raises msgspec.DecodeError, naming the field."""
    return _decode_body(body)
