"""Reads beside the log wait in a bounded room and are served in turn."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dwcp.wire.operations import RangeRequest
from dwcp.wire.query import Query, QueryBody
from dwcp_replica.node import reading
from dwcp_replica.node.reading import QUERIES_MAX, QUERIES_PER_CLIENT_MAX, ReadingRoom
from dwcp_replica.store import Store
from replica.store.driver import GENESIS
from replica.waiting import in_loop, until

BODY = QueryBody(bytes(16), (RangeRequest(b"\0", b"\0"),))


def _query(client: bytes, number: int = 0, size: int = 0) -> Query:
    body = msgspec.msgpack.encode(BODY) if not size else bytes(size)
    return Query(client * 32, body, number.to_bytes(64, "big"))


@in_loop
async def test_clients_take_turns_and_the_loop_gets_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "SLICE_S_MAX", 0.0)
    room = ReadingRoom(Store(GENESIS))
    served: list[bytes] = []
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for number in range(20):
        query = _query(b"a", number)
        room.hold(query)
        room.enter(query, BODY, lambda *_: served.append(b"a"))
    late = _query(b"b")
    room.hold(late)
    room.enter(late, BODY, lambda *_: served.append(b"b"))
    tasks = [asyncio.create_task(others()), asyncio.create_task(room.run())]
    await until(lambda: len(served) == 21, what="all served")
    assert served[:3] == [b"a", b"b", b"a"], "one client's flood is its own"
    assert turns >= 20
    assert room.admits(_query(b"a"))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@in_loop
async def test_the_room_is_bounded_for_each_client_and_in_all() -> None:
    room = ReadingRoom(Store(GENESIS))
    first = [_query(b"a", n) for n in range(QUERIES_PER_CLIENT_MAX)]
    for query in first:
        assert room.admits(query)
        room.hold(query)
    assert not room.admits(_query(b"a"))
    assert room.admits(_query(b"b"))
    room.leave(first[0])
    assert room.admits(_query(b"a"))
    others = [_query(bytes([n % 100 + 100]), n) for n in range(QUERIES_MAX)]
    admitted = 0
    for query in others:
        if room.admits(query):
            room.hold(query)
            admitted += 1
    assert admitted == QUERIES_MAX - QUERIES_PER_CLIENT_MAX + 1
    large = ReadingRoom(Store(GENESIS))
    for n in range(32):
        large.hold(_query(bytes([n]), size=1024 * 1024))
    assert not large.admits(_query(b"z"))
