from __future__ import annotations

import asyncio

import pytest

from dwcp.wire.envelope import Busy, Reply
from dwcp_replica.api import desk as module
from dwcp_replica.api.desk import ClientDesk, Outlet, encode_answer
from replica.harness import decode_answer
from replica.waiting import in_loop

REPLY = Reply(bytes(32), 1, 2, b"\x90", 0, 1, 3, bytes(64))
BUSY = Busy(bytes(32), 5, 0, 3, bytes(64))


@in_loop
async def test_a_reply_goes_to_all_who_wait_and_nobody_else() -> None:
    desk = ClientDesk()
    assert not desk.wants(b"a", REPLY.request)
    first, second, other = (Outlet(pytest.fail) for _ in range(3))
    with desk.connected(b"a", first), desk.connected(b"a", second), desk.connected(b"b", other):
        assert desk.connections == 3
        with desk.waiting(REPLY.request) as waiting:
            assert desk.wants(b"a", bytes(32))
            assert desk.wants(b"c", REPLY.request)
            assert not desk.wants(b"c", b"x" * 32)
            desk.deliver(b"a", REPLY)
            assert waiting.result() == REPLY
        frames = [await first.get(), await second.get()]
        assert frames == [encode_answer(REPLY)] * 2
        other.answer(BUSY)
        frame = await other.get()
        assert decode_answer(frame) == BUSY
    assert desk.connections == 0
    assert not desk.wants(b"a", REPLY.request)


@in_loop
async def test_an_outlet_that_nobody_empties_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTLET_FRAMES_MAX", 3)
    overflows: list[bool] = []
    outlet = Outlet(lambda: overflows.append(True))
    waiting = asyncio.create_task(outlet.get())
    await asyncio.sleep(0)
    for number in range(3):
        outlet.put(b"%d" % number)
    assert await waiting == b"0"
    outlet.put(b"3")
    assert not overflows
    outlet.put(b"4")
    outlet.put(b"5")
    assert overflows == [True]
    assert [await outlet.get() for _ in range(4)] == [b"1", b"2", b"3", b"4"]


@in_loop
async def test_an_outlet_counts_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTLET_BYTES_MAX", 10)
    overflows: list[bool] = []
    outlet = Outlet(lambda: overflows.append(True))
    outlet.put(bytes(6))
    assert await outlet.get() == bytes(6)
    outlet.put(bytes(10))
    assert not overflows
    outlet.put(b"x")
    assert overflows == [True]
