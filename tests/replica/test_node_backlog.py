"""What waits for a replica's engine is bounded in bytes, and one member's flood is its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from dwcp.wire.peer import (
    Bodies,
    Certificate,
    Entries,
    Entry,
    Header,
    PeerMessage,
    Status,
    encode_message,
)
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import Received
from dwcp_replica.durable import DataDirectory
from dwcp_replica.node.recovered import recover
from dwcp_replica.node.running import RunningReplica
from replica.test_node_signatures import GENESIS
from replica.waiting import in_loop

FLOOD_BYTES_MAX = 256 * 1024 * 1024


def running(path: Path) -> RunningReplica:
    """Member 0, recovered from an empty directory; none of its tasks runs."""
    path.mkdir()
    directory = DataDirectory.open(path, name="m-0", cluster="test")
    me = msgspec.structs.replace(GENESIS.members[0], identity=directory.signer.public_key)
    genesis = msgspec.structs.replace(GENESIS, members=(me, *GENESIS.members[1:]))
    found = recover(directory, genesis)
    return RunningReplica(directory, genesis, found, ReplicaMetrics(), None)


async def taken_in(replica: RunningReplica, sender: int, message: PeerMessage, most: int) -> int:
    """How many copies are taken before the sender must wait."""
    for count in range(most):
        try:
            async with asyncio.timeout(0.2):
                await replica._receive(sender, message, len(encode_message(message)))
        except TimeoutError:
            return count
    return most


@in_loop
async def _flood(path: Path) -> None:
    replica = running(path)
    try:
        count = await taken_in(replica, 1, Bodies((bytes(1024 * 1024),)), 1000)
        assert count * 1024 * 1024 <= FLOOD_BYTES_MAX, f"{count} MiB of one member wait at least"
        assert (
            await taken_in(
                replica, 2, Status(0, 1, active=True, last=0, prepared=0, final=0, stable=0), 1
            )
            == 1
        )
    finally:
        await replica.close()


def test_what_waits_is_bounded_in_bytes(tmp_path: Path) -> None:
    """The backlog counts messages (8192), not bytes: while the engine waits for its disk, or the
    gate for its threads, one member's frames of 16 MiB pile up to 128 GiB.
    """
    _flood(tmp_path / "m-0")


@in_loop
async def _starve(path: Path) -> None:
    replica = running(path)
    gate = asyncio.create_task(replica._gate.run())
    header = Header(0, 1, 1, bytes(32), bytes(32), bytes(64))
    junk = Entries(
        (Entry(header, b""),),
        tuple(msgspec.structs.replace(header, index=i + 1) for i in range(4000)),
        Certificate("commit", header, b"", ()),
        (),
    )
    try:
        await taken_in(replica, 1, junk, 12)  # nobody asked for these
        await taken_in(
            replica, 2, Status(0, 1, active=True, last=0, prepared=0, final=0, stable=0), 1
        )
        for _ in range(2000):
            events = list(replica.engine.inbox._events)
            if any(isinstance(e, Received) and e.sender == 2 for e in events):
                break
            await asyncio.sleep(0.01)
        before = sum(isinstance(e, Received) and e.sender == 1 for e in events)
        assert before <= 3, f"an honest message waited for {before} of a liar's"
    finally:
        gate.cancel()
        await asyncio.wait((gate,))
        await replica.close()


def test_a_flood_of_false_signatures_is_paid_for_by_its_sender(tmp_path: Path) -> None:
    """The gate is one queue for all: answers that nobody asked for, with 4096 false signatures each
    (a tenth of a second of two threads for 0.8 MB), stand before every honest vote and every
    client's envelope. A liar with 100 Mbit/s keeps the gate full for ever.
    """
    _starve(tmp_path / "m-0")
