"""One WebSocket to one replica: greeted, kept alive, made again when it breaks.

The replica speaks first (a nonce); the client signs the nonce and the replica's public key with
its own. After that, envelopes go out and replies come in, as binary MessagePack frames.
What a replica sends is never trusted here: it is decoded and handed on, or the connection
is closed and the reason counted. Where the address says https, `trust` is the certificate that the
replica must show: by its fingerprint, or by an authority of the user's.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import aiohttp
import msgspec
from msgspec import Meta, Struct

from dwcp.matching import ReplicaMessage
from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import envelope_scope
from dwcp.wire.peer import MAX_FRAME_BYTES
from dwcp.wire.signing import PublicKey, Signature, Signer
from dwcp.wire.watch import Page

RECONNECT_MS_MIN: Final = 50
RECONNECT_MS_MAX: Final = 5000
GREETING_MS_MAX: Final = 10_000
HEARTBEAT_S: Final = 15.0
CLOSE_S_MAX: Final = 1.0
SEND_QUEUE_FRAMES_MAX: Final = 8192
"""A client with that many watches asks for each of them when it is connected again."""

_draw: Final = random.SystemRandom()


class ServerHello(Struct, frozen=True):
    """A replica's first frame: a fresh nonce, and which key it says it holds."""

    nonce: Annotated[bytes, Meta(min_length=32, max_length=32)]
    identity: PublicKey


class ClientHello(Struct, frozen=True):
    """The client's first frame: its key, and a signature over nonce and replica."""

    client: PublicKey
    sig: Signature


_decode_hello: Callable[[bytes], ServerHello] = decoder_of(ServerHello)
Incoming = ReplicaMessage | Page
"""What a replica sends over a connection."""
_decode_message: Callable[[bytes], Any] = decoder_of(Incoming)
Said = TypeVar("Said")
"""What replicas send over a kind of connection."""


class ProtocolFault(Exception):  # noqa: N818 - whose fault it is matters: the replica's
    """The replica did not speak the protocol; `reason` is an enumerated word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the replica did not speak the protocol ({reason})")
        self.reason = reason


class Disconnected(Exception):  # noqa: N818 - an event, not a fault
    """The replica closed the connection."""


def client_hello(genesis: bytes, signer: Signer, hello: ServerHello) -> ClientHello:
    """Answer a replica's greeting."""
    payload = hello.nonce + hello.identity
    message = envelope_scope(genesis).signing_bytes("client-hello", payload)
    return ClientHello(signer.public_key, signer.sign(message))


class Connection(Generic[Said]):
    """Keeps one replica reachable while `run` runs; `problem` says why it is not."""

    def __init__(
        self,
        *,
        member: int,
        identity: bytes,
        url: str,
        trust: aiohttp.Fingerprint | ssl.SSLContext,
        answer: Callable[[ServerHello], ClientHello],
        on_change: Callable[[int, bool], None],
        on_message: Callable[[int, Said], None],
        path: str = "/dwcp/v1/connect",
        decode: Callable[[bytes], Said] | None = None,
    ) -> None:
        self.member = member
        self.up = False
        self.problem = "not tried yet"
        self.faults: Counter[str] = Counter()
        self._identity = identity
        self._url = f"{url.rstrip('/')}{path}"
        self._trust = trust
        self._answer = answer
        self._on_change = on_change
        self._on_message = on_message
        self._decode: Callable[[bytes], Said] = decode or _decode_message
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(SEND_QUEUE_FRAMES_MAX)

    def send(self, frame: bytes) -> None:
        """Queue a frame; a full queue drops it, counted: the session sends it again."""
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.faults["queue-full"] += 1

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Connect, talk, and connect again, until cancelled."""
        wait_ms = RECONNECT_MS_MIN
        while True:
            try:
                await self._talk(http)
            except* aiohttp.ServerFingerprintMismatch:
                self.problem = "it shows another TLS certificate than its genesis names"
                self.faults["certificate"] += 1
                wait_ms = RECONNECT_MS_MAX
            except* (aiohttp.ClientError, OSError, TimeoutError, Disconnected) as group:
                self.problem = _words(group)
                wait_ms = RECONNECT_MS_MIN if self.up else min(wait_ms * 2, RECONNECT_MS_MAX)
            except* ProtocolFault as group:
                self.problem = _words(group)
                self.faults.update(e.reason for e in _leaves(group) if isinstance(e, ProtocolFault))
                wait_ms = RECONNECT_MS_MAX
            if self.up:
                self._change(up=False)
            await asyncio.sleep(wait_ms * _draw.uniform(0.5, 1.0) / 1000)

    def gone(self) -> None:
        """The replica is no member any more: nobody runs this connection."""
        self.problem = "no member any more"
        if self.up:
            self._change(up=False)

    async def drain(self) -> None:
        """Wait until what was queued has been handed to the socket."""
        if self.up:
            await self._queue.join()

    async def _talk(self, http: aiohttp.ClientSession) -> None:
        async with http.ws_connect(
            self._url,
            ssl=self._trust,
            max_msg_size=MAX_FRAME_BYTES,
            heartbeat=HEARTBEAT_S,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S_MAX),
        ) as socket:
            async with asyncio.timeout(GREETING_MS_MAX / 1000):
                await self._greet(socket)
            while not self._queue.empty():
                self._queue.get_nowait()
                self._queue.task_done()
            self._change(up=True)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(socket))
                tasks.create_task(self._read(socket))

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            hello = _decode_hello(await _frame(socket))
        except msgspec.DecodeError:
            raise ProtocolFault("bad-hello") from None
        if hello.identity != self._identity:
            raise ProtocolFault("another-member")
        await socket.send_bytes(msgspec.msgpack.encode(self._answer(hello)))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = await _frame(socket)
            try:
                message = self._decode(frame)
            except msgspec.DecodeError:
                raise ProtocolFault("undecodable") from None
            self._on_message(self.member, message)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            frame = await self._queue.get()
            try:
                await socket.send_bytes(frame)
            finally:
                self._queue.task_done()

    def _change(self, *, up: bool) -> None:
        self.up = up
        if up:
            self.problem = ""
        self._on_change(self.member, up)


async def _frame(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    """The next binary frame. Raises Disconnected, ProtocolFault."""
    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        data = message.data
        assert isinstance(data, bytes), "aiohttp gives binary frames as bytes"
        return data
    if message.type is aiohttp.WSMsgType.TEXT:
        raise ProtocolFault("text-frame")
    if message.type is aiohttp.WSMsgType.ERROR:
        raise ProtocolFault("bad-frame")
    raise Disconnected(f"the replica closed the connection (code {socket.close_code})")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _words(group: BaseExceptionGroup[BaseException]) -> str:
    return "; ".join(sorted({str(e) or type(e).__name__ for e in _leaves(group)}))
