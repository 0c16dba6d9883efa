"""etcd's Watch service: several watches on one stream, in order, each event once.

What a watch delivers, f+1 replicas have said alike (dwcp/watching.py). A progress request is
answered when every watch of the stream has been told all up to one revision, with that revision.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any, Final, Literal

from dwcp import errors
from dwcp.gateway.desk import Desk
from dwcp.gateway.messages import event_messages, named
from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.watch import News, Watch

RESPONSES_WAITING_MAX: Final = 64
"""Of one stream; its watches wait until they are taken."""
WATCHES_MAX: Final = 1000
"""Of one stream."""
FRAGMENT_BYTES: Final = 1024 * 1024
"""A response that is larger is sent in fragments to those that want it so."""
PROGRESS_TRIES: Final = 50
PROGRESS_WAIT_S: Final = 0.2
EVERY_WATCH: Final = -1
"""The watch id of progress that holds for all of a stream."""
NO_WATCH: Final = -1
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
TOO_MANY: Final = f"etcdserver: a stream has at most {WATCHES_MAX} watches"
_FILTERS: Final[tuple[Literal["NOPUT", "NODELETE"], ...]] = ("NOPUT", "NODELETE")


async def watch(
    desk: Desk, requests: AsyncIterator[pb.WatchRequest]
) -> AsyncGenerator[pb.WatchResponse, None]:
    """Watch.Watch: until its caller leaves; the end of its requests does not end it."""
    stream = _Stream(desk)
    stream.start(stream.read(requests))
    try:
        while True:
            yield await stream.next()
    finally:
        await stream.close()


class _Told:
    """One watch of a stream, and how far what was queued for it goes."""

    def __init__(self, number: int, watch: Watch, request: pb.WatchCreateRequest) -> None:
        self.number = number
        self.watch = watch
        self.request = request
        self.revision = watch.revision
        self.heard = 0
        self.task: asyncio.Task[None] | None = None


class _Stream:
    """The watches of one stream, and the responses that wait to be sent."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._responses: asyncio.Queue[pb.WatchResponse | Exception] = asyncio.Queue(
            RESPONSES_WAITING_MAX
        )
        self._watches: dict[int, _Told] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_number = 0
        self._sent_revision = 0
        self._moved = asyncio.Event()
        self._progress: asyncio.Task[None] | None = None

    async def next(self) -> pb.WatchResponse:
        """The next response. Raises what ended the stream."""
        found = await self._responses.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """End all watches."""
        await asyncio.sleep(0)  # a task that was cancelled before it began would leave its watch
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as long as the stream lives; its error ends the stream."""
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def read(self, requests: AsyncIterator[pb.WatchRequest]) -> None:
        """Take the caller's requests, one after the other."""
        async for request in requests:
            match request.WhichOneof("request_union"):
                case "create_request":
                    await self._create(request.create_request)
                case "cancel_request":
                    await self._cancel(request.cancel_request.watch_id)
                case "progress_request":
                    if self._progress is None or self._progress.done():
                        self._progress = self.start(self._tell_progress())

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 handed on to whoever reads the stream
            await self._responses.put(error)

    # --- watches -----------------------------------------------------------------------------

    async def _create(self, request: pb.WatchCreateRequest) -> None:
        filters = [named(_FILTERS, one, "filters") for one in request.filters]
        if request.watch_id in self._watches and request.watch_id:
            return await self._refuse(DUPLICATE_ID)
        if len(self._watches) >= WATCHES_MAX:
            return await self._refuse(TOO_MANY)
        try:
            watch = self._desk.client.watch(
                request.key, request.range_end, start_revision=max(request.start_revision, 0),
                filters=filters, prev_kv=request.prev_kv, progress=True,
            )  # fmt: skip
            await watch.__aenter__()
        except errors.Refused as refused:
            empty = refused.code == errors.INVALID_ARGUMENT
            return await self._refuse(EMPTY_RANGE if empty else str(refused))
        self._desk.newest = max(self._desk.newest, watch.revision)
        number = request.watch_id or self._free_number()
        told = _Told(number, watch, request)
        self._watches[number] = told
        header = self._desk.header(self._desk.newest)
        await self._responses.put(pb.WatchResponse(header=header, watch_id=number, created=True))
        told.task = self.start(self._deliver(told))
        return None

    def _free_number(self) -> int:
        while self._next_number in self._watches:
            self._next_number += 1
        self._next_number += 1
        return self._next_number - 1

    async def _refuse(self, reason: str) -> None:
        """Say that a watch was not made."""
        await self._responses.put(
            pb.WatchResponse(
                header=self._desk.header(self._desk.newest), watch_id=NO_WATCH, created=True,
                canceled=True, cancel_reason=reason,
            )
        )  # fmt: skip

    async def _cancel(self, number: int) -> None:
        told = self._watches.get(number)
        if told is None or told.task is None:
            return
        await asyncio.sleep(0)  # as in close
        told.task.cancel()
        await asyncio.wait([told.task])
        header = self._desk.header(self._desk.newest)
        await self._responses.put(pb.WatchResponse(header=header, watch_id=number, canceled=True))

    async def _deliver(self, told: _Told) -> None:
        """Queue what a watch sees until it ends."""
        try:
            async for news in told.watch:
                for response in self._responses_of(told, news):
                    self._sent_revision = max(self._sent_revision, news.revision)
                    await self._responses.put(response)
                told.revision = news.revision
                told.heard += 1
                self._desk.newest = max(self._desk.newest, news.revision)
                self._moved.set()
        except errors.Refused as refused:
            await self._responses.put(self._ended(told.number, refused))
        finally:
            self._watches.pop(told.number, None)
            self._moved.set()
            await told.watch.__aexit__(None, None, None)

    def _responses_of(self, told: _Told, news: News) -> Sequence[pb.WatchResponse]:
        header = self._desk.header(news.revision)
        if not news.events:
            quiet = pb.WatchResponse(header=header, watch_id=told.number)
            return [quiet] if told.request.progress_notify else []
        events = event_messages(news.events)
        whole = pb.WatchResponse(header=header, watch_id=told.number, events=events)
        if not told.request.fragment or whole.ByteSize() <= FRAGMENT_BYTES:
            return [whole]
        each = math.ceil(len(events) / math.ceil(whole.ByteSize() / FRAGMENT_BYTES))
        parts = [events[at : at + each] for at in range(0, len(events), each)]
        return [
            pb.WatchResponse(
                header=header, watch_id=told.number, events=part, fragment=part is not parts[-1]
            )
            for part in parts
        ]

    def _ended(self, number: int, refused: errors.Refused) -> pb.WatchResponse:
        compacted = refused.compact_revision if isinstance(refused, errors.Compacted) else 0
        reason = "mvcc: required revision has been compacted" if compacted else str(refused)
        return pb.WatchResponse(
            header=self._desk.header(self._desk.newest), watch_id=number, canceled=True,
            compact_revision=compacted, cancel_reason=reason,
        )  # fmt: skip

    # --- progress ----------------------------------------------------------------------------

    async def _tell_progress(self) -> None:
        """Say up to where all watches have been told everything; not below what was sent."""
        for _ in range(PROGRESS_TRIES):
            before = {told: told.heard for told in self._watches.values()}
            for told in before:
                told.watch.hurry()
            try:
                async with asyncio.timeout(PROGRESS_WAIT_S):
                    while any(t.heard == n for t, n in before.items() if self._lives(t)):
                        self._moved.clear()
                        await self._moved.wait()
            except TimeoutError:
                continue
            revision = self._reached()
            if revision is not None:
                header = self._desk.header(revision)
                await self._responses.put(pb.WatchResponse(header=header, watch_id=EVERY_WATCH))
                return

    def _lives(self, told: _Told) -> bool:
        return self._watches.get(told.number) is told

    def _reached(self) -> int | None:
        """The revision that all watches have reached, unless more than that was sent already."""
        revisions = (told.revision for told in self._watches.values())
        reached = min(revisions, default=self._desk.newest)
        # a watch that begins in the future has reached more than there is
        reached = min(reached, self._desk.newest)
        return reached if reached >= self._sent_revision else None
