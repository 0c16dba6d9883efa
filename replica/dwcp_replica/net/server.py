"""The accepting side of the peer port: checks who dials, then passes on what it says."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.http_websocket import WebSocketError

from dwcp.wire.gossip import PeerFrame, decode_frame
from dwcp.wire.peer import MAX_FRAME_BYTES
from dwcp.wire.signing import Verifier
from dwcp_replica.net.counters import PeerCounters
from dwcp_replica.net.hello import (
    HELLO_TIMEOUT_S,
    NONCE_BYTES,
    PEER_PATH,
    HelloError,
    check,
)
from dwcp_replica.net.roster import Roster

STRANGERS_MAX: Final = 32
"""Connections that have not said yet who they are; more are turned away."""
HEARTBEAT_S: Final = 5.0
REPORT_EVERY_S: Final = 60.0
_CLOSE_TIMEOUT_S: Final = 0.5

Deliver = Callable[[int, PeerFrame, int], Awaitable[None]]

_log = logging.getLogger(__name__)


class PeerServer:
    """Accepts the connections of everybody in the roster; delivers their messages in order.

    `deliver` may wait: the connection is then not read, and the sender's queue fills.
    `met` is told of a peer that has connected: it is there, and may have a new address; `left`
    of one that has gone.
    """

    def __init__(
        self, roster: Roster, verifier: Verifier, deliver: Deliver, counters: PeerCounters,
        met: Callable[[int], None], left: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._roster = roster
        self._verifier = verifier
        self._deliver = deliver
        self._counters = counters
        self._met = met
        self._left = left
        self._strangers: list[web.WebSocketResponse] = []
        self._sockets: dict[int, web.WebSocketResponse] = {}
        self._contact_s: dict[int, float] = {}
        self._reported_s: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen. Raises OSError when the address can not be bound."""
        app = web.Application()
        app.router.add_get(PEER_PATH, self._accept)
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=_CLOSE_TIMEOUT_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        sockets = list(self._sockets.values())
        await asyncio.gather(*(ws.close(code=WSCloseCode.GOING_AWAY) for ws in sockets))
        if self._runner is not None:
            await self._runner.cleanup()

    def connected(self, member: int) -> bool:
        """True while this peer's connection to us stands."""
        return member in self._sockets

    @property
    def here(self) -> frozenset[int]:
        """The peers that are connected to us."""
        return frozenset(self._sockets)

    async def dismiss(self) -> None:
        """Close the connections of those that are no members any more.

        One that did not know it may connect again, to be told.
        """
        over = [ws for n, ws in self._sockets.items() if self._roster.is_over(n)]
        await asyncio.gather(*(ws.close(code=WSCloseCode.GOING_AWAY) for ws in over))

    def silence_ms(self, member: int) -> int | None:
        """Milliseconds since the last frame from this member; None when there was none."""
        at = self._contact_s.get(member)
        return None if at is None else int((time.monotonic() - at) * 1000)

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            timeout=_CLOSE_TIMEOUT_S,
            compress=False,
            max_msg_size=MAX_FRAME_BYTES + 1,  # aiohttp refuses at the limit, not above it
        )
        await ws.prepare(request)
        await self._make_room()
        self._strangers.append(ws)
        try:
            member, version = await self._greet(ws)
        except HelloError as refused:
            self._counters.frame_refused(refused.reason)
            self._report(refused.reason, request.remote)
            await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=refused.reason.encode())
            return ws
        finally:
            if ws in self._strangers:
                self._strangers.remove(ws)
        await self._serve(member, ws, version)
        return ws

    async def _make_room(self) -> None:
        """Let the oldest stranger go: a member introduces itself at once, others may not."""
        while len(self._strangers) >= STRANGERS_MAX:
            oldest = self._strangers.pop(0)
            self._counters.frame_refused("too-many-strangers")
            await oldest.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too many")

    def _report(self, reason: str, remote: str | None) -> None:
        """Log a refusal, unless the same reason was logged a moment ago: strangers may be many."""
        now_s = time.monotonic()
        if now_s - self._reported_s.get(reason, -REPORT_EVERY_S) >= REPORT_EVERY_S:
            self._reported_s[reason] = now_s
            _log.warning("peer-refused", extra={"reason": reason, "from": remote})

    async def _greet(self, ws: web.WebSocketResponse) -> tuple[int, int]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        try:
            await ws.send_bytes(self._roster.local.challenge(nonce))
            message = await ws.receive(timeout=HELLO_TIMEOUT_S)
        except TimeoutError:
            raise HelloError("hello-timeout") from None
        except ConnectionError:
            raise HelloError("hello-missing") from None
        if message.type is not WSMsgType.BINARY:
            raise HelloError(_oversize(message) or "hello-missing")
        roster = self._roster
        return check(roster.local, roster.number_of, self._verifier, nonce, message.data)

    async def _serve(self, member: int, ws: web.WebSocketResponse, version: int) -> None:
        older = self._sockets.get(member)
        self._sockets[member] = ws
        name = self._roster.name(member)
        _log.info("peer-accepted", extra={"peer": name, "wire": version})
        self._met(member)
        if older is not None:
            await older.close(code=WSCloseCode.GOING_AWAY, message=b"replaced")
        try:
            await self._read(member, ws)
        finally:
            if self._sockets.get(member) is ws:
                del self._sockets[member]
                self._left(member)
            _log.info("peer-gone", extra={"peer": name})

    async def _read(self, member: int, ws: web.WebSocketResponse) -> None:
        while True:
            frame = await ws.receive()
            if frame.type is not WSMsgType.BINARY:
                if reason := _oversize(frame):
                    self._counters.frame_refused(reason)
                elif frame.type is WSMsgType.TEXT:
                    self._counters.frame_refused("text-frame")
                    await ws.close(code=WSCloseCode.UNSUPPORTED_DATA)
                return
            self._contact_s[member] = time.monotonic()
            try:
                message = decode_frame(frame.data)
            except (msgspec.DecodeError, RecursionError):
                self._counters.frame_refused("malformed")
                continue
            await self._deliver(member, message, len(frame.data))


def _oversize(frame: WSMessage) -> str | None:
    error = frame.data if frame.type is WSMsgType.ERROR else None
    too_big = isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG
    return "oversize" if too_big else None
