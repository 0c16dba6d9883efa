"""A connection to a replica that does not behave: counted, closed, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import msgspec
import pytest
from aiohttp import web

from client.members import Members
from dwcp.connection import SEND_QUEUE_FRAMES_MAX, Connection, client_hello
from dwcp.matching import ReplicaMessage
from dwcp.wire.envelope import Busy
from dwcp.wire.peer import MAX_FRAME_BYTES
from dwcp_replica.api.connect import ServerHello, check_hello
from replica.waiting import until

MEMBERS = Members()
IDENTITY = MEMBERS.genesis.members[2].identity
HELLO = msgspec.msgpack.encode(ServerHello(bytes(range(32)), IDENTITY))
PINNED = aiohttp.Fingerprint(bytes(32))
BUSY = Busy(bytes(32), 5, 0, 0, bytes(64))

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


@dataclass
class Service:
    """What check_hello needs of a replica."""

    genesis = MEMBERS.genesis
    verifier = MEMBERS.verifier


@dataclass
class Seen:
    """What one connection reported."""

    connection: Connection
    changes: list[bool] = field(default_factory=list)
    messages: list[ReplicaMessage] = field(default_factory=list)
    visits: int = 0


def converse(script: Script, check: Callable[[Seen], Awaitable[None]]) -> None:
    """Serve `script` to every visit of a connection to member 2, and run `check` beside it."""

    async def run() -> None:
        async def serve(request: web.Request) -> web.StreamResponse:
            seen.visits += 1
            socket = web.WebSocketResponse(max_msg_size=2 * MAX_FRAME_BYTES)
            await socket.prepare(request)
            await script(socket)
            return socket

        app = web.Application()
        app.router.add_get("/dwcp/v1/connect", serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        connection = Connection(
            member=2,
            identity=IDENTITY,
            url=f"http://127.0.0.1:{runner.addresses[0][1]}",
            trust=PINNED,
            answer=lambda hello: client_hello(MEMBERS.genesis.hash(), MEMBERS.client, hello),
            on_change=lambda _, up: seen.changes.append(up),
            on_message=lambda _, message: seen.messages.append(message),
        )
        seen = Seen(connection)
        async with aiohttp.ClientSession() as http:
            task = asyncio.create_task(connection.run(http))
            try:
                await check(seen)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await runner.cleanup()

    asyncio.run(run())


async def greet(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(HELLO)
    frame = await socket.receive_bytes()
    hello = ServerHello(bytes(range(32)), IDENTITY)
    assert check_hello(Service(), hello, frame) == MEMBERS.client.public_key  # type: ignore[arg-type]


def test_messages_arrive_and_a_closed_connection_is_made_again() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await socket.send_bytes(msgspec.msgpack.encode(BUSY))

    async def check(seen: Seen) -> None:
        await until(lambda: len(seen.messages) == 3, what="three visits")
        assert seen.messages == [BUSY] * 3
        assert seen.changes[:4] == [True, False, True, False]
        assert not seen.connection.faults

    converse(script, check)


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (b"rubbish", "bad-hello"),
        (msgspec.msgpack.encode(ServerHello(bytes(32), bytes(32))), "another-member"),
        ("text", "text-frame"),
        (bytes(MAX_FRAME_BYTES + 1), "bad-frame"),
    ],
    ids=["rubbish", "another-member", "text", "too-large"],
)
def test_a_wrong_greeting_is_a_fault(frame: str | bytes, fault: str) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        if isinstance(frame, str):
            await socket.send_str(frame)
        else:
            await socket.send_bytes(frame)
        await socket.receive()

    async def check(seen: Seen) -> None:
        await until(lambda: seen.connection.faults, what="the fault is counted")
        assert seen.connection.faults == {fault: 1}
        assert fault in seen.connection.problem
        assert not seen.changes

    converse(script, check)


@pytest.mark.parametrize("frame", [b"", b"rubbish", msgspec.msgpack.encode(["put", 1])])
def test_an_undecodable_message_ends_the_connection(frame: bytes) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await socket.send_bytes(frame)
        await socket.receive()

    async def check(seen: Seen) -> None:
        await until(lambda: seen.changes == [True, False], what="up, then down")
        assert seen.connection.faults == {"undecodable": 1}
        assert not seen.messages

    converse(script, check)


def test_the_queue_is_bounded_and_old_frames_do_not_outlive_a_connection() -> None:
    got: list[bytes] = []

    async def script(socket: web.WebSocketResponse) -> None:
        await greet(socket)
        while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            got.append(message.data)

    async def check(seen: Seen) -> None:
        for number in range(SEND_QUEUE_FRAMES_MAX + 3):
            seen.connection.send(b"old-%d" % number)
        assert seen.connection.faults == {"queue-full": 3}
        await until(lambda: seen.connection.up, what="connected")
        seen.connection.send(b"new")
        await seen.connection.drain()
        await until(lambda: got, what="a frame arrives")
        assert got == [b"new"]

    converse(script, check)


def test_a_fault_of_ours_is_not_taken_for_the_replicas() -> None:
    async def run() -> None:
        def broken(hello: object) -> object:
            raise AssertionError("planted")

        async def serve(request: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_bytes(HELLO)
            await socket.receive()
            return socket

        app = web.Application()
        app.router.add_get("/dwcp/v1/connect", serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        connection = Connection(
            member=2,
            identity=IDENTITY,
            url=f"http://127.0.0.1:{runner.addresses[0][1]}",
            trust=PINNED,
            answer=broken,  # type: ignore[arg-type]
            on_change=lambda *_: None,
            on_message=lambda *_: None,
        )
        async with aiohttp.ClientSession() as http:
            with pytest.raises(AssertionError, match="planted"):
                async with asyncio.timeout(5):
                    await connection.run(http)
        await runner.cleanup()

    asyncio.run(run())
