"""The bounds of what waits in a client."""

from __future__ import annotations

import pytest

from client.world import World
from dwcp import errors
from dwcp.waiting import GROUP_BYTES_MAX, Limits
from dwcp.wire.operations import CloseSession, OpenSession, Operation, PutRequest

PUT = PutRequest(b"key", b"value")


def test_a_full_queue_is_refused_and_frees_again() -> None:
    world = World(limits=Limits(waiting_operations_max=3))
    world.connect()
    tickets = [world.submit(PUT) for _ in range(3)]
    with pytest.raises(errors.Busy, match="3 operations"):
        world.submit(PUT)
    assert world.core.cancel(tickets[1])
    world.submit(PUT)
    full = World(limits=Limits(waiting_bytes_max=100))
    with pytest.raises(errors.Busy):
        full.submit(PutRequest(b"k", bytes(200)))


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [PUT] * 4097,
        [PutRequest(b"k", bytes(GROUP_BYTES_MAX))],
        [OpenSession(bytes(16), 1)],
        [CloseSession()],
    ],
    ids=["none", "too-many", "too-large", "open", "close"],
)
def test_what_no_replica_would_take_is_refused_at_once(operations: list[Operation]) -> None:
    world = World()
    with pytest.raises(errors.Refused) as refused:
        world.submit(*operations)
    assert refused.value.code == 3
    assert world.core.idle
