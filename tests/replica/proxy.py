"""Links of any length and width between processes: the kernel here can not delay packets itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

from replica.harness import Place
from replica.ports import free_port

CHUNK_BYTES = 65_536


class Distance:
    """How far everything is apart, as of now: one-way seconds, and bytes per second."""

    def __init__(self, one_way_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        self.one_way_s = one_way_s
        self.bytes_per_s = bytes_per_s


class Proxies:
    """One proxy before the peer port of each place; all share one distance, but for `own` ones.

    Who has its own is so far away that it hears everybody later; a round trip to it is one way.
    """

    def __init__(
        self, places: Sequence[Place], distance: Distance, own: Mapping[str, Distance] | None = None
    ) -> None:
        self.distance = distance
        self._own = own or {}
        self._places = places
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        for place in places:
            place.reach_port = free_port()

    async def __aenter__(self) -> Self:
        for place in self._places:

            async def accept(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place = place
            ) -> None:
                await self._join(reader, writer, place)

            server = await asyncio.start_server(accept, "127.0.0.1", place.reach_port)
            self._servers.append(server)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place
    ) -> None:
        distance = self._own.get(place.name, self.distance)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", place.peer_port)
        except OSError:
            writer.close()
            return
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, target, distance))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, distance: Distance
    ) -> None:
        """Bring bytes over in order, each as late as the distance says."""
        loop = asyncio.get_running_loop()
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)

        async def deliver() -> None:
            while True:
                at_s, data = await due.get()
                if (left_s := at_s - loop.time()) > 0:
                    await asyncio.sleep(left_s)
                target.write(data)
                await target.drain()

        delivering = asyncio.create_task(deliver())
        free_s = 0.0
        try:
            with suppress(OSError):
                while data := await source.read(CHUNK_BYTES):
                    now_s = loop.time()
                    wide = distance.bytes_per_s
                    free_s = max(free_s, now_s) + (len(data) / wide if wide else 0.0)
                    await due.put((free_s + distance.one_way_s, data))
        finally:
            delivering.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await delivering
            target.close()
