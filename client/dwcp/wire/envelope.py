"""Envelopes that clients sign, batches that replicas agree on, replies that replicas sign."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.operations import Operation, Result
from dwcp.wire.signing import (
    ZERO_HASH,
    Count,
    Hash,
    PublicKey,
    Scope,
    Signature,
    Signer,
    digest,
)
from dwcp.wire.switch import Switch

MAX_ENVELOPE_BYTES: Final = 1_572_864
"""1.5 MiB, etcd's default request limit."""
MAX_ENVELOPE_OPERATIONS: Final = 4096


class EnvelopeBody(Struct, frozen=True, array_like=True):
    """What a client signs: operations in order, at one sequence number of one session.

    `acked` says that replies up to and including that sequence number have arrived, so that
    replicas may forget them. Sequence numbers of a session start at 1.
    """

    session: Count
    sequence: Count
    acked: Count
    operations: tuple[Operation, ...]


class Envelope(Struct, frozen=True, array_like=True, tag="envelope"):
    """A signed envelope: `body` is the MessagePack of an EnvelopeBody, signed as it stands."""

    client: PublicKey
    body: bytes
    sig: Signature

    def digest(self) -> bytes:
        """Names the request: covers client and body. The signature is left out, since a valid
        one could be made again by its signer without changing the request."""
        return digest("envelope", self.client, self.body)


class Batch(Struct, frozen=True, array_like=True):
    """The body of one log entry: envelopes in order, and the agreed time in Unix milliseconds.

    An entry with a `switch` ends its epoch and has no envelopes.
    """

    stamp_ms: Count
    envelopes: tuple[Envelope, ...]
    switch: Switch | None = None


class Reply(Struct, frozen=True, array_like=True, tag="reply"):
    """A replica's signed answer to an envelope that was executed.

    Two replies match when request, index, revision and results are equal; `member`, `epoch`
    and `view` never take part. `results` is the MessagePack of a tuple of Result.
    """

    request: Hash
    index: Count
    revision: Count
    results: bytes
    epoch: Count
    view: Count
    member: Count
    sig: Signature


class Busy(Struct, frozen=True, array_like=True, tag="busy"):
    """The replica's queue is full and the envelope was not taken: send it again later.

    Signed by the member, as Rejected is; see `refusal_signing_bytes`.
    """

    request: Hash
    retry_after_ms: Count
    epoch: Count
    member: Count
    sig: Signature


class Rejected(Struct, frozen=True, array_like=True, tag="rejected"):
    """The replica will never take this envelope; `reason` is an enumerated word, `message` helps.

    One replica's signed word only: a client gives up when f+1 replicas say so. What could not
    be read has no digest: `request` is zero then, and no client counts it.
    """

    request: Hash
    reason: str
    message: str
    epoch: Count
    member: Count
    sig: Signature


_NoAnswer = TypeVar("_NoAnswer", Busy, Rejected)
_decode_batch: Callable[[bytes], Batch] = decoder_of(Batch)
_decode_body: Callable[[bytes], EnvelopeBody] = decoder_of(EnvelopeBody)
_decode_results: Callable[[bytes], tuple[Result, ...]] = decoder_of(tuple[Result, ...])


def envelope_scope(genesis: bytes) -> Scope:
    """Envelopes count in the cluster, whatever its epoch: a session outlives mode switches."""
    return Scope(genesis, ZERO_HASH)


def envelope_signing_bytes(genesis: bytes, body: bytes) -> bytes:
    """What a client signs."""
    return envelope_scope(genesis).signing_bytes("envelope", body)


def reply_signing_bytes(scope: Scope, reply: Reply) -> bytes:
    """What a replica signs: the answer's content, in its epoch; never the view hint."""
    payload = b"".join(
        (
            reply.request,
            reply.index.to_bytes(8, "big"),
            reply.revision.to_bytes(8, "big"),
            reply.epoch.to_bytes(8, "big"),
            digest("results", reply.results),
        )
    )
    return scope.signing_bytes("reply", payload)


def refusal_signing_bytes(scope: Scope, refusal: Busy | Rejected, envelope_sig: bytes) -> bytes:
    """What a replica signs when it does not answer: the request, its words, in its epoch.

    The client's signature is bound too (`envelope_sig`, 64 bytes; zero when nothing was read): a
    request's digest leaves it out, and a rejection of a copy that somebody has spoiled must not
    pass for a rejection of what the client sent.
    """
    parts = [refusal.request, envelope_sig, refusal.epoch.to_bytes(8, "big")]
    if isinstance(refusal, Busy):
        kind = "busy"
        parts.append(refusal.retry_after_ms.to_bytes(8, "big"))
    else:
        kind = "rejected"
        parts += [refusal.reason.encode(), refusal.message.encode()]
    return scope.signing_bytes(kind, digest(kind, *parts))


def signed_refusal(
    refusal: _NoAnswer, scope: Scope, signer: Signer, envelope_sig: bytes
) -> _NoAnswer:
    """The refusal with its member's signature."""
    sig = signer.sign(refusal_signing_bytes(scope, refusal, envelope_sig))
    return msgspec.structs.replace(refusal, sig=sig)


def decode_body(body: bytes) -> EnvelopeBody:
    """Decode what a client signed. Raises msgspec.DecodeError, naming the field."""
    return _decode_body(body)


def decode_batch(body: bytes) -> Batch:
    """Decode the body of a log entry. Raises msgspec.DecodeError, naming the field."""
    return _decode_batch(body)


def decode_results(results: bytes) -> tuple[Result, ...]:
    """Decode a reply's results. Raises msgspec.DecodeError, naming the field."""
    return _decode_results(results)


def batch_digest(body: bytes) -> bytes:
    """What the chain binds of an entry's body: 32 bytes over its exact bytes."""
    return digest("batch", body)
