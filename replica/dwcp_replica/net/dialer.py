"""The sending side: one connection to every other member, dialed again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Coroutine
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType

from dwcp.wire.peer import MAX_FRAME_BYTES, PeerMessage, encode_message
from dwcp_replica.core.modes.meter import TcpSample
from dwcp_replica.net.counters import PeerCounters
from dwcp_replica.net.hello import HELLO_BYTES_MAX, HELLO_TIMEOUT_S, PEER_PATH, LocalMember, answer
from dwcp_replica.net.queue import FrameQueue
from dwcp_replica.net.tcp_info import HasOptions, sample
from dwcp_replica.net.tls import client_context

QUEUE_FRAMES_MAX: Final = 4096
QUEUE_BYTES_MAX: Final = 2 * MAX_FRAME_BYTES
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_LAST_S: Final = 2.0
HEARTBEAT_S: Final = 5.0
FRESH_S: Final = 5.0
"""A connection older than this may lead to where the member no longer is."""
_CLOSE_TIMEOUT_S: Final = 0.5

_log = logging.getLogger(__name__)


class PeerLink:
    """The connection to one member: dials, greets, sends what is queued, and dials again."""

    def __init__(self, local: LocalMember, member: int, counters: PeerCounters) -> None:
        self._local = local
        self._member = member
        self._peer = local.record.members[member]
        self._counters = counters
        self._context: ssl.SSLContext = client_context()
        self._queue = FrameQueue(QUEUE_FRAMES_MAX, QUEUE_BYTES_MAX)
        self._last_reason = ""
        self._hurry = asyncio.Event()
        self._connected_s = 0.0
        self._socket: HasOptions | None = None
        self.connected = False

    def send(self, frame: bytes) -> None:
        """Queue a frame; the oldest are dropped and counted when the queue is full."""
        if dropped := self._queue.put(frame):
            self._counters.frames_dropped(dropped)

    def sample(self) -> TcpSample | None:
        """What the kernel says of the connection; None while there is none."""
        if not self.connected or self._socket is None:
            return None
        try:
            return sample(self._socket)
        except OSError:
            return None  # closed a moment ago

    def try_now(self) -> None:
        """The member is there, perhaps anew and elsewhere: dial at once.

        A connection that is younger than the member's own is left alone, or two members would
        make each other dial for ever.
        """
        if not self.connected or time.monotonic() - self._connected_s > FRESH_S:
            self._hurry.set()

    async def run(self) -> None:
        """Keep the connection up, until cancelled. Waits 50 ms to 2 s, jittered, between tries."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            began_s = time.monotonic()
            reason = await self._until_hurried(self._connect_once()) or "dialed-anew"
            self._counters.dial_failed(reason)
            self._report(reason)
            self.connected = False
            if time.monotonic() - began_s > BACKOFF_LAST_S or self._hurry.is_set():
                backoff_s = BACKOFF_FIRST_S
            self._hurry.clear()
            pause_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 jitter, no secret
            await self._until_hurried(asyncio.sleep(pause_s, "paused"))
            backoff_s = min(backoff_s * 2, BACKOFF_LAST_S)

    async def _until_hurried(self, doing: Coroutine[Any, Any, str]) -> str | None:
        """What `doing` returns; None when it was given up because the member is there now."""
        task = asyncio.create_task(doing)
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((task, hurry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            task.cancel()
            await asyncio.wait((task, hurry))
        return None if task.cancelled() else task.result()

    def _report(self, reason: str) -> None:
        fields = {"peer": self._peer.name, "reason": reason}
        if self.connected:
            _log.info("peer-lost", extra=fields)
        elif reason != self._last_reason:
            _log.warning("peer-not-reached", extra=fields)
        self._last_reason = reason

    async def _connect_once(self) -> str:
        """Dial and serve one connection; return why it ended, as an enumerated word."""
        connector = aiohttp.TCPConnector(
            ssl=aiohttp.Fingerprint(self._peer.certificate), force_close=True
        )
        try:
            async with aiohttp.ClientSession(connector=connector) as session:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    ws = await session.ws_connect(
                        f"wss://{self._peer.peer}{PEER_PATH}",
                        ssl=self._context,
                        heartbeat=HEARTBEAT_S,
                        timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
                        max_msg_size=HELLO_BYTES_MAX,
                    )
                    if reason := await self._greet(ws):
                        return reason
                return await self._serve(ws)
        except aiohttp.ServerFingerprintMismatch:
            return "fingerprint"
        except aiohttp.WSServerHandshakeError:
            return "handshake"
        except (aiohttp.ClientError, OSError):
            return "unreachable"

    async def _greet(self, ws: ClientWebSocketResponse) -> str | None:
        challenge = await ws.receive()
        if challenge.type is not WSMsgType.BINARY:
            return "hello-missing"
        try:
            await ws.send_bytes(answer(self._local, self._member, challenge.data))
        except (msgspec.DecodeError, RecursionError):
            return "hello-malformed"
        return None

    async def _serve(self, ws: ClientWebSocketResponse) -> str:
        self.connected = True
        self._connected_s = time.monotonic()
        self._socket = ws.get_extra_info("socket")
        _log.info("peer-connected", extra={"peer": self._peer.name})
        tasks = (asyncio.create_task(self._write(ws)), asyncio.create_task(self._watch(ws)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await ws.close()
        return next(iter(done)).result()

    async def _write(self, ws: ClientWebSocketResponse) -> str:
        try:
            while True:
                await ws.send_bytes(await self._queue.get())
        except (aiohttp.ClientError, OSError):
            return "closed"

    async def _watch(self, ws: ClientWebSocketResponse) -> str:
        """Answer pings until the server closes; it has nothing to say on this connection."""
        await ws.receive()
        return "refused" if ws.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION else "closed"


class PeerDialer:
    """The links to all other members of the record."""

    def __init__(self, local: LocalMember, counters: PeerCounters) -> None:
        self._counters = counters
        self._links = {
            member: PeerLink(local, member, counters)
            for member in range(len(local.record.members))
            if member != local.me
        }

    def send(self, to: int | None, message: PeerMessage) -> None:
        """Queue a message for one member, or for every other with None."""
        frame = encode_message(message)
        if len(frame) > MAX_FRAME_BYTES:
            self._counters.frames_dropped(1)
            _log.error("frame-too-large", extra={"bytes": len(frame)})
            return
        for link in self._links.values() if to is None else (self._links[to],):
            link.send(frame)

    def send_frame(self, to: int, frame: bytes) -> None:
        """Queue a frame for one member."""
        self._links[to].send(frame)

    def sample(self, member: int) -> TcpSample | None:
        """What the kernel says of our connection to this member."""
        return self._links[member].sample()

    def try_now(self, member: int) -> None:
        """The member is there: dial anew at once instead of waiting for an old address."""
        self._links[member].try_now()

    def connected(self, member: int) -> bool:
        """True while our connection to this member stands."""
        return self._links[member].connected

    @property
    def reached(self) -> int:
        """How many members our connections reach now."""
        return sum(link.connected for link in self._links.values())

    async def run(self) -> None:
        """Keep all connections up, until cancelled."""
        async with asyncio.TaskGroup() as links:
            for link in self._links.values():
                links.create_task(link.run())
