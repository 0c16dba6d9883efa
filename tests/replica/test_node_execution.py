"""Execution gives way: an entry may be as many expensive reads as fit a batch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from dwcp.wire.envelope import Batch, Envelope, EnvelopeBody
from dwcp.wire.operations import OpenSession, Operation, RangeRequest
from dwcp.wire.peer import Entry, Header
from dwcp_replica.core.effects import Applied
from dwcp_replica.node import engine
from dwcp_replica.node.running import RunningReplica
from replica.test_node_backlog import running
from replica.waiting import in_loop

READS = 50
STAMP_MS = 1_700_000_000_000


def _envelope(replica: RunningReplica, session: int, sequence: int, one: Operation) -> Envelope:
    body = msgspec.msgpack.encode(EnvelopeBody(session, sequence, 0, (one,)))
    return Envelope(replica.genesis.clients[0].key, body, bytes(64))


def _entry(index: int, *envelopes: Envelope) -> Entry:
    header = Header(0, 1, index, bytes(32), bytes(32), bytes(64))
    return Entry(header, msgspec.msgpack.encode(Batch(STAMP_MS, envelopes)))


@in_loop
async def test_the_loop_gets_its_turn_between_the_envelopes_of_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXECUTE_S_MAX", 0.0)  # every envelope takes too long
    replica = running(tmp_path / "m-0")
    opening = _envelope(replica, 0, 0, OpenSession(bytes(16), STAMP_MS))
    reads = [_envelope(replica, 1, n + 1, RangeRequest(b"\0", b"\0")) for n in range(READS)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    try:
        await replica.engine._execute([_entry(1, opening), _entry(2, *reads)])
        assert turns >= READS, "the others' turns while one entry of 50 reads was executed"
        assert replica.engine.inbox.take(2) == [Applied(2, None)]
    finally:
        other.cancel()
        await asyncio.wait((other,))
        await replica.close()
