"""Signatures are looked at before the core asks, in order, and the core then need not compute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.envelope import Batch, Envelope, batch_digest, envelope_signing_bytes
from dwcp.wire.peer import Commit, Entry, Forward, Header, Prepare, PrePrepare, Status
from dwcp.wire.records import ClientIdentity, EpochRecord, Member, Parameters, start_hash
from dwcp_replica.core.effects import Received, Tick
from dwcp_replica.core.replica import Replica
from dwcp_replica.node.signatures import (
    INLINE_CHECKS_MAX,
    Check,
    Questions,
    SignatureGate,
)
from replica.waiting import in_loop

SIGNERS = [Ed25519Signer(bytes([n + 1]) * 32) for n in range(4)]
CLIENT = Ed25519Signer(b"c" * 32)


def _genesis() -> EpochRecord:
    cluster_id = bytes(16)
    return EpochRecord(
        cluster_id=cluster_id,
        cluster="test",
        namespace="default",
        epoch=0,
        protocol="pbft",
        trust="Byzantine",
        members=tuple(
            Member(f"m-{n}", signer.public_key, bytes(32), "", "")
            for n, signer in enumerate(SIGNERS)
        ),
        clients=(ClientIdentity("c", CLIENT.public_key),),
        admin=bytes(32),
        parameters=Parameters(),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
    )


GENESIS = _genesis()
QUESTIONS = Questions(GENESIS, GENESIS)


def _envelope(number: int) -> Envelope:
    body = b"body %d" % number
    signed = envelope_signing_bytes(GENESIS.hash(), body)
    return Envelope(CLIENT.public_key, body, CLIENT.sign(signed))


def _pre_prepare(count: int) -> PrePrepare:
    body = msgspec.msgpack.encode(Batch(0, tuple(_envelope(n) for n in range(count))))
    header = Header(0, 1, 1, batch_digest(body), GENESIS.start_hash, bytes(64))
    signed = header.signing_bytes(QUESTIONS.scope)
    return PrePrepare(Entry(msgspec.structs.replace(header, sig=SIGNERS[0].sign(signed)), body))


class CountingVerifier(Ed25519Verifier):
    """Counts what the memory could not answer."""

    computed = 0

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        self.computed += not self.knows(public_key, message, signature)
        return super().verify(public_key, message, signature)


@asynccontextmanager
async def _gate(verifier: Ed25519Verifier) -> AsyncIterator[SignatureGate]:
    with ThreadPoolExecutor(2) as threads:
        gate = SignatureGate(verifier, threads)
        running = asyncio.create_task(gate.run())
        try:
            yield gate
        finally:
            running.cancel()
            await asyncio.wait((running,))


@in_loop
async def test_a_batch_is_checked_before_the_core_sees_it() -> None:
    verifier = CountingVerifier()
    core = Replica(genesis=GENESIS, me=1, signer=SIGNERS[1], verifier=verifier)
    core.step(Tick(1000, 0))
    message = _pre_prepare(100)
    async with _gate(verifier) as gate:
        passed = asyncio.Event()
        gate.push_message(QUESTIONS.message(message), passed.set)
        assert not passed.is_set()
        assert len(gate) == 1
        await asyncio.wait_for(passed.wait(), 5)
        assert len(gate) == 0
    ready = core.step(Received(0, message))
    (vote,) = [out.message for out in ready.send if isinstance(out.message, Prepare)]
    assert vote.member == 1
    assert verifier.computed == 0


@in_loop
async def test_a_message_with_a_bad_signature_still_reaches_the_core_which_refuses_it() -> None:
    verifier = CountingVerifier()
    core = Replica(genesis=GENESIS, me=1, signer=SIGNERS[1], verifier=verifier)
    core.step(Tick(1000, 0))
    good = _pre_prepare(100)
    header = msgspec.structs.replace(good.entry.header, sig=bytes(64))
    message = PrePrepare(Entry(header, good.entry.body))
    async with _gate(verifier) as gate:
        passed = asyncio.Event()
        gate.push_message(QUESTIONS.message(message), passed.set)
        await asyncio.wait_for(passed.wait(), 5)
    ready = core.step(Received(0, message))
    assert not ready.send
    (event,) = ready.events
    assert getattr(event, "reason", None) == "signature"


@in_loop
async def test_little_work_passes_at_once_and_a_sender_waits_for_itself() -> None:
    verifier = Ed25519Verifier()
    order: list[str] = []
    async with _gate(verifier) as gate:
        few = [QUESTIONS.envelope(_envelope(n)) for n in range(INLINE_CHECKS_MAX)]
        gate.push_message(few, lambda: order.append("few"))
        assert order == ["few"]
        many = [QUESTIONS.envelope(_envelope(n)) for n in range(100, 140)]
        done = asyncio.Event()
        gate.push_message(many, lambda: order.append("many"), 1)
        gate.push_message([], lambda: order.append("after") or done.set(), 1)  # type: ignore[func-returns-value]
        gate.push_message([], lambda: order.append("another"), 2)
        gate.push_envelope(
            QUESTIONS.envelope(_envelope(200)), lambda holds: order.append(f"envelope {holds}")
        )
        assert order == ["few", "another", "envelope True"]
        await asyncio.wait_for(done.wait(), 5)
        assert order[3:] == ["many", "after"], "nothing overtakes within one sender"


@pytest.mark.parametrize("busy", [False, True])
@in_loop
async def test_a_forged_envelope_is_told_from_a_good_one(busy: bool) -> None:
    verifier = Ed25519Verifier()
    good = QUESTIONS.envelope(_envelope(1))
    forged: Check = (good[0], good[1], bytes(64))
    verdicts: list[bool] = []
    async with _gate(verifier) as gate:
        if busy:
            load = [QUESTIONS.envelope(_envelope(n)) for n in range(100, 140)]
            gate.push_message(load, lambda: None)
        gate.push_envelope(forged, verdicts.append)
        gate.push_envelope(good, verdicts.append)
        done = asyncio.Event()
        gate.push_message([], done.set)
        await asyncio.wait_for(done.wait(), 5)
    assert verdicts == [False, True]
    assert not verifier.knows(*forged)
    assert verifier.knows(*good)


def test_questions_are_those_that_signers_answered() -> None:
    pre_prepare = _pre_prepare(3)
    checks = QUESTIONS.message(pre_prepare)
    assert len(checks) == 4
    assert all(Ed25519Verifier.check(*check) for check in checks)
    header = pre_prepare.entry.header
    votes = [
        out.message
        for member in (1, 2)
        for out in _voter(member).step(Received(0, pre_prepare)).send
        if isinstance(out.message, Prepare | Commit)
    ]
    assert len(votes) == 2
    for vote in votes:
        (check,) = QUESTIONS.message(vote)
        assert vote.header == header
        assert Ed25519Verifier.check(*check)


def _voter(member: int) -> Replica:
    core = Replica(genesis=GENESIS, me=member, signer=SIGNERS[member], verifier=Ed25519Verifier())
    core.step(Tick(1000, 0))
    return core


def test_strangers_are_not_worth_a_question() -> None:
    envelope = msgspec.structs.replace(_envelope(1), client=bytes(32))
    assert QUESTIONS.message(Forward((envelope,))) == []
    status = Status(epoch=0, view=1, active=True, last=0, prepared=0, final=0, stable=0)
    assert QUESTIONS.message(status) == []
    header = _pre_prepare(1).entry.header
    assert QUESTIONS.message(Prepare(header, 9, bytes(64))) == []
