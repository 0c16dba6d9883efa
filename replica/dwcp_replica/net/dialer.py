"""The sending side: a connection to everybody who is to be dialed, made again when it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType

from dwcp.wire.peer import MAX_FRAME_BYTES, PeerMessage, encode_message
from dwcp.wire.records import Member
from dwcp_replica.core.modes.meter import TcpSample
from dwcp_replica.net.counters import PeerCounters
from dwcp_replica.net.hello import (
    HELLO_BYTES_MAX,
    HELLO_TIMEOUT_S,
    PEER_PATH,
    HelloError,
    answer,
)
from dwcp_replica.net.queue import FrameQueue
from dwcp_replica.net.roster import Roster
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


class SecondLane(Protocol):
    """What is said to peers when the engine has nothing to say: it never waits for this."""

    def connected(self, number: int) -> None:
        """A new connection to this peer stands."""
        ...

    def lost(self, number: int) -> None:
        """It does not stand any more."""
        ...

    def say(self, number: int) -> bytes | None:
        """The next frame for this peer; None until `PeerDialer.wake`."""
        ...


class _Nothing:
    """No second lane."""

    def connected(self, number: int) -> None:
        """See SecondLane."""

    def lost(self, number: int) -> None:
        """See SecondLane."""

    def say(self, number: int) -> bytes | None:  # noqa: ARG002
        """See SecondLane."""
        return None


class PeerLink:
    """The connection to one peer: dials, greets, sends what is queued, and dials again."""

    def __init__(
        self, roster: Roster, peer: Member, counters: PeerCounters, lane: SecondLane, number: int
    ) -> None:
        self._lane = lane
        self._number = number
        self._roster = roster
        self._peer = peer
        self._counters = counters
        self._context: ssl.SSLContext = client_context()
        self._queue = FrameQueue(QUEUE_FRAMES_MAX, QUEUE_BYTES_MAX)
        self._last_reason = ""
        self._hurry = asyncio.Event()
        self._connected_s = 0.0
        self._socket: HasOptions | None = None
        self.connected = False
        self.cut = False

    def send(self, frame: bytes) -> None:
        """Queue a frame; the oldest are dropped and counted when the queue is full."""
        if dropped := self._queue.put(frame):
            self._counters.frames_dropped(dropped)

    @property
    def name(self) -> str:
        """What the peer is called."""
        return self._peer.name

    def renumber(self, number: int) -> None:
        """The peer has another key now, and so another number."""
        if number != self._number:
            if self.connected:
                self._lane.lost(self._number)
                self._lane.connected(number)
            self._number = number

    def wake(self) -> None:
        """The second lane has something to say."""
        self._queue.wake()

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
            self.dial_anew()

    def dial_anew(self) -> None:
        """Give the connection up, if there is one, and dial at once."""
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
        if self.cut:
            return "cut"
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
                        await ws.close()
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
            hello = answer(self._roster.local, self._peer.certificate, challenge.data)
            await ws.send_bytes(hello)
        except (msgspec.DecodeError, RecursionError):
            return "hello-malformed"
        except HelloError as unlike:
            return unlike.reason
        return None

    async def _serve(self, ws: ClientWebSocketResponse) -> str:
        self.connected = True
        self._connected_s = time.monotonic()
        self._socket = ws.get_extra_info("socket")
        self._lane.connected(self._number)
        _log.info("peer-connected", extra={"peer": self._peer.name})
        tasks = (asyncio.create_task(self._write(ws)), asyncio.create_task(self._watch(ws)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._lane.lost(self._number)
            await ws.close()
        return next(iter(done)).result()

    async def _write(self, ws: ClientWebSocketResponse) -> str:
        try:
            while True:
                await ws.send_bytes(await self._queue.get(self._idle_frame))
        except (aiohttp.ClientError, OSError):
            return "closed"

    def _idle_frame(self) -> bytes | None:
        return self._lane.say(self._number)

    async def _watch(self, ws: ClientWebSocketResponse) -> str:
        """Answer pings until the server closes; it has nothing to say on this connection."""
        await ws.receive()
        return "refused" if ws.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION else "closed"


class PeerDialer:
    """The links to everybody whom the roster says to dial.

    A link belongs to a place, an address with its certificate: a peer that changes its key keeps
    both, and so its link, under two numbers for a while.
    """

    def __init__(
        self, roster: Roster, counters: PeerCounters, lane: SecondLane | None = None
    ) -> None:
        self._roster = roster
        self._counters = counters
        self._lane = lane or _Nothing()
        self._links: dict[tuple[str, bytes], PeerLink] = {}
        self._numbers: dict[int, PeerLink] = {}
        self._tasks: dict[tuple[str, bytes], asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.follow(())

    def follow(self, here: Iterable[int]) -> None:
        """Dial whom the roster names now, and nobody else; `here` are connected to us."""
        members = self._roster.members
        own = self._roster.local.certificate
        dialed = {n: members[n] for n in self._roster.dialed(frozenset(here))}
        places = {n: (m.peer, m.certificate) for n, m in dialed.items() if m.certificate != own}
        for number, place in places.items():
            if place not in self._links:
                self._links[place] = PeerLink(
                    self._roster, members[number], self._counters, self._lane, number
                )
            self._links[place].renumber(number)
        for place in self._links.keys() - places.values():
            del self._links[place]
            if (task := self._tasks.pop(place, None)) is not None:
                task.cancel()
        self._numbers = {number: self._links[place] for number, place in places.items()}
        self._start()

    def _start(self) -> None:
        if self._group is None:
            return
        for place, link in self._links.items():
            if place not in self._tasks:
                self._tasks[place] = self._group.create_task(link.run())

    def dial_anew(self) -> None:
        """Make every connection again: we are known by another key now."""
        for link in self._links.values():
            link.dial_anew()

    def cut(self, names: Collection[str]) -> None:
        """Reach none of these, as if the network were cut: for tests."""
        for link in self._links.values():
            was, link.cut = link.cut, link.name in names
            if link.cut != was:
                link.dial_anew()

    def send(self, to: int | None, message: PeerMessage) -> None:
        """Queue a message for one peer, or for everybody who is dialed with None."""
        frame = encode_message(message)
        if len(frame) > MAX_FRAME_BYTES:
            self._counters.frames_dropped(1)
            _log.error("frame-too-large", extra={"bytes": len(frame)})
            return
        if to is None:
            for link in self._links.values():
                link.send(frame)
        elif (one := self._numbers.get(to)) is not None:
            one.send(frame)
        else:
            self._counters.frames_dropped(1)  # not dialed any more

    def send_frame(self, to: int, frame: bytes) -> None:
        """Queue a frame for one peer."""
        if (link := self._numbers.get(to)) is not None:
            link.send(frame)

    def sample(self, number: int) -> TcpSample | None:
        """What the kernel says of our connection to this peer."""
        link = self._numbers.get(number)
        return None if link is None else link.sample()

    def wake(self, number: int) -> None:
        """The second lane has something to say to this peer."""
        if (link := self._numbers.get(number)) is not None:
            link.wake()

    def try_now(self, number: int) -> None:
        """The peer is there: dial anew at once instead of waiting for an old address."""
        if (link := self._numbers.get(number)) is not None:
            link.try_now()

    def connected(self, number: int) -> bool:
        """True while our connection to this peer stands."""
        link = self._numbers.get(number)
        return link is not None and link.connected

    async def run(self) -> None:
        """Keep all connections up, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start()
                group.create_task(asyncio.Event().wait())  # also while nobody is to be dialed
        finally:
            self._group = None
