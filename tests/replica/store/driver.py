"""Drives a Store as a client and a log would: one envelope per entry unless told otherwise."""

from __future__ import annotations

import msgspec

from dwcp.identity import Ed25519Signer
from dwcp.wire.envelope import Batch, Envelope, EnvelopeBody, decode_results, envelope_signing_bytes
from dwcp.wire.operations import OpenSession, Operation, Result, SessionOpened
from dwcp.wire.records import ClientIdentity, EpochRecord, Member, Parameters, start_hash
from dwcp_replica.store import Outcome, Store, StoreLimits

ALICE = Ed25519Signer(b"a" * 32)
BOB = Ed25519Signer(b"b" * 32)
ROOT, SESSION, REPLY, EVENT = b"\x00", b"\x01", b"\x02", b"\x13"
"""Kinds of records."""
NOW_MS = 1_700_000_000_000


def make_genesis() -> EpochRecord:
    cluster_id = bytes(16)
    return EpochRecord(
        cluster_id=cluster_id,
        cluster="demo",
        namespace="default",
        epoch=0,
        protocol="pbft",
        trust="Byzantine",
        members=tuple(
            Member(f"demo-{i}", bytes([i]) * 32, bytes([i]) * 32, f"127.0.0.1:{i}", "http://x")
            for i in range(4)
        ),
        clients=(
            ClientIdentity("alice", ALICE.public_key),
            ClientIdentity("bob", BOB.public_key),
        ),
        admin=bytes(32),
        parameters=Parameters(),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
    )


GENESIS = make_genesis()


def seal(body: EnvelopeBody | bytes, signer: Ed25519Signer = ALICE) -> Envelope:
    data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    message = envelope_signing_bytes(GENESIS.hash(), data)
    return Envelope(client=signer.public_key, body=data, sig=signer.sign(message))


def open_envelope(nonce: int, time_ms: int = NOW_MS, signer: Ed25519Signer = ALICE) -> Envelope:
    operation = OpenSession(nonce.to_bytes(16, "big"), time_ms)
    return seal(EnvelopeBody(0, 0, 0, (operation,)), signer)


def envelope(
    session: int,
    sequence: int,
    *operations: Operation,
    acked: int = 0,
    signer: Ed25519Signer = ALICE,
) -> Envelope:
    return seal(EnvelopeBody(session, sequence, acked, operations), signer)


class Driver:
    def __init__(self, limits: StoreLimits | None = None) -> None:
        self.store = Store(GENESIS, limits)
        self.stamp_ms = NOW_MS
        self._nonce = 0

    def apply(self, *envelopes: Envelope) -> tuple[Outcome, ...]:
        return self.store.apply(self.store.applied_index + 1, Batch(self.stamp_ms, envelopes))

    def one(self, item: Envelope) -> Outcome:
        (outcome,) = self.apply(item)
        return outcome

    def open(self, signer: Ed25519Signer = ALICE) -> int:
        self._nonce += 1
        outcome = self.one(open_envelope(self._nonce, self.stamp_ms, signer))
        (result,) = decode_results(outcome.results)
        assert isinstance(result, SessionOpened)
        return result.session

    def lookup(self, item: Envelope) -> object:
        return self.store.lookup(item, msgspec.msgpack.decode(item.body, type=EnvelopeBody))


def results_of(outcome: Outcome) -> tuple[Result, ...]:
    return decode_results(outcome.results)
