"""Where clients wait for replies: by request over HTTP, by client key over WebSockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from dwcp.wire.committed import Committed
from dwcp.wire.envelope import Busy, Rejected, Reply
from dwcp.wire.query import QueryReply
from dwcp.wire.watch import Page

Answer = Reply | Committed | QueryReply | Page | Busy | Rejected
"""What goes to a client, as one tagged MessagePack frame."""

OUTLET_FRAMES_MAX: Final = 4096
OUTLET_BYTES_MAX: Final = 16 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()


def encode_answer(answer: Answer) -> bytes:
    """The frame of an answer."""
    return _encoder.encode(answer)


class Outlet:
    """The frames that wait for one connection to take them, bounded by number and bytes.

    A client that does not read loses its connection, not others' time: once the bound is
    passed the outlet takes nothing more and calls `on_overflow`, once.
    """

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        self.overflowed = False
        self._on_overflow = on_overflow
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, frame: bytes) -> None:
        """Queue a frame."""
        if self.overflowed:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        if len(self._frames) > OUTLET_FRAMES_MAX or self._bytes > OUTLET_BYTES_MAX:
            self.overflowed = True
            self._on_overflow()

    def answer(self, answer: Answer) -> None:
        """Queue an answer."""
        self.put(encode_answer(answer))

    def wake(self) -> None:
        """Let `get` look anew at what there is when nothing waits."""
        self._filled.set()

    async def get(self, otherwise: Callable[[], bytes | None] = lambda: None) -> bytes:
        """Wait for the next frame; while none waits, what `otherwise` gives."""
        while not self._frames:
            if (other := otherwise()) is not None:
                return other
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame


class ClientDesk:
    """Who waits for what. Every reply of a client goes to all its connections, and to whoever
    waits for that very request."""

    def __init__(self) -> None:
        self._outlets: dict[bytes, set[Outlet]] = {}
        self._waiting: dict[bytes, list[asyncio.Future[Answer]]] = {}
        self.connections = 0

    @contextmanager
    def connected(self, client: bytes, outlet: Outlet) -> Iterator[None]:
        """The outlet gets every reply of this client key while the block runs."""
        self._outlets.setdefault(client, set()).add(outlet)
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1
            outlets = self._outlets[client]
            outlets.remove(outlet)
            if not outlets:
                del self._outlets[client]

    @contextmanager
    def waiting(self, request: bytes) -> Iterator[asyncio.Future[Answer]]:
        """A future that gets the reply to this request."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request, []).append(future)
        try:
            yield future
        finally:
            futures = self._waiting[request]
            futures.remove(future)
            if not futures:
                del self._waiting[request]

    def wants(self, client: bytes, request: bytes) -> bool:
        """True when somebody here waits for this client's reply: only then is it worth signing."""
        return client in self._outlets or request in self._waiting

    def deliver(self, client: bytes, reply: Reply | Committed) -> None:
        """Hand a reply to everyone who waits for it."""
        for future in self._waiting.get(reply.request, ()):
            if not future.done():
                future.set_result(reply)
        outlets = self._outlets.get(client)
        if outlets:
            frame = encode_answer(reply)
            for outlet in outlets:
                outlet.put(frame)
