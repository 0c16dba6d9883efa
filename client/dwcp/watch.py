"""Watching keys: events as an asynchronous iterator, verified like every answer.

async with client.watch("config/", prefix_end("config/")) as watch:
    async for news in watch:
        for event in news.events:
            print(event.type, event.kv.key, event.kv.value)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from dwcp import errors
from dwcp.matching import ReplyChecker
from dwcp.watching import Cancelled, Delivery, Denied, WatchCore, WatchOutput
from dwcp.wire.envelope import Busy, Rejected
from dwcp.wire.watch import Filter, Page, Pull, WatchEvent

EVENTS_WAITING_MAX: Final = 1000
"""A watch pulls no further while this many events wait for their consumer."""


@dataclass(frozen=True, slots=True)
class News:
    """All events of one revision; or none, to say that nothing happened up to `revision`."""

    revision: int
    events: tuple[WatchEvent, ...]


class Watch:
    """One watch. Every event comes once, in order, however replicas come and go.

    `revision` is that of the last news taken: a watch that begins at `revision + 1` goes on
    where this one ended.
    """

    def __init__(
        self,
        watches: Watches,
        interval: tuple[bytes, bytes],
        start_revision: int,
        filters: tuple[Filter, ...],
        *,
        prev_kv: bool,
        progress: bool,
    ) -> None:
        self.revision = start_revision - 1
        self._watches = watches
        self._interval = interval
        self._filters = filters
        self._prev_kv = prev_kv
        self._progress = progress
        self._number: int | None = None
        self._news: deque[News] = deque()
        self._events = 0
        self._failure: errors.DWCPError | None = None
        self._filled = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin. Without a start revision: from the next revision on."""
        if self.revision < 0:
            self.revision = await self._watches.newest()
        self._number = self._watches.add(
            self, self._interval, self.revision + 1, self._filters, prev_kv=self._prev_kv
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._number is not None:
            self._watches.remove(self._number)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> News:
        """Wait for the next news. Raises Compacted, Refused, ClientClosed, ClientFailed."""
        assert self._number is not None, "use it in `async with`"
        while not self._news:
            if self._failure is not None:
                raise self._failure
            self._filled.clear()
            await self._filled.wait()
        news = self._news.popleft()
        self.revision = news.revision
        self._events -= len(news.events)
        if self._events <= EVENTS_WAITING_MAX // 2:
            self._watches.pause(self._number, paused=False)
        return news

    def hurry(self) -> None:
        """Have the replicas say at once how far they are, even if nothing has happened."""
        if self._number is not None:
            self._watches.hurry(self._number)

    def take(self, delivery: Delivery) -> bool:
        """Queue news; True when no more should be pulled for now."""
        if delivery.events or self._progress:
            if self._news and not self._news[-1].events:
                self._news.pop()
            self._news.append(News(delivery.revision, delivery.events))
            self._events += len(delivery.events)
            self._filled.set()
        elif not self._news:
            self.revision = delivery.revision
        return self._events >= EVENTS_WAITING_MAX

    def fail(self, failure: errors.DWCPError) -> None:
        """End the watch, after what is queued."""
        self._failure = self._failure or failure
        self._filled.set()


class Watches:
    """The watches of a client: joins the sans-IO part with the connections."""

    def __init__(
        self,
        checker: ReplyChecker,
        send: Callable[[int, Pull], None],
        newest: Callable[[], Awaitable[int]],
        on_lie: Callable[[int, str], None],
    ) -> None:
        self.core = WatchCore(checker)
        self.newest = newest
        self._send = send
        self._on_lie = on_lie
        self._watches: dict[int, Watch] = {}

    def add(
        self,
        watch: Watch,
        interval: tuple[bytes, bytes],
        start_revision: int,
        filters: tuple[Filter, ...],
        *,
        prev_kv: bool,
    ) -> int:
        """Begin a watch; its number."""
        number = self.core.add(*interval, start_revision, filters, prev_kv=prev_kv)
        self._watches[number] = watch
        self._obey(self.core.poll())
        return number

    def remove(self, number: int) -> None:
        """End a watch."""
        self._watches.pop(number, None)
        self.core.remove(number)

    def pause(self, number: int, *, paused: bool) -> None:
        """Pull no further, or go on."""
        self.core.pause(number, paused=paused)
        self._obey(self.core.poll())

    def hurry(self, number: int) -> None:
        """Ask how far the history has come."""
        self.core.hurry(number)
        self._obey(self.core.poll())

    def changed(self, member: int, *, up: bool) -> None:
        """A connection was made or lost."""
        if up:
            self.core.connected(member)
        else:
            self.core.disconnected(member)
        self._obey(self.core.poll())

    def entered(self) -> None:
        """The client has verified another epoch record."""
        self.core.entered()
        self._obey(self.core.poll())

    def received(self, member: int, message: Page | Busy | Rejected) -> None:
        """A member answered a pull."""
        self.core.received(member, message)
        if isinstance(message, Busy):
            later_s = max(100, min(message.retry_after_ms, 5000)) / 1000
            asyncio.get_running_loop().call_later(later_s, self._retry)
        self._obey(self.core.poll())

    def fail(self, failure: errors.DWCPError) -> None:
        """End all watches."""
        for number, watch in list(self._watches.items()):
            watch.fail(failure)
            self.remove(number)

    def _retry(self) -> None:
        self.core.retry()
        self._obey(self.core.poll())

    def _obey(self, out: WatchOutput) -> None:
        for member, pull in out.send:
            self._send(member, pull)
        for news in out.news:
            watch = self._watches.get(news.watch)
            if watch is None:
                continue
            if isinstance(news, Cancelled):
                watch.fail(errors.Compacted(news.compact_revision))
                del self._watches[news.watch]
            elif isinstance(news, Denied):
                watch.fail(errors.Refused(errors.PERMISSION_DENIED, f"{news.message:.500}"))
                del self._watches[news.watch]
            elif watch.take(news):
                self.core.pause(news.watch, paused=True)
        for member, what in out.liars:
            self._on_lie(member, what)
