"""Clients that write one after the other, and afterwards know what was lost or repeated.

Each client puts to a key of its own and waits for the answer, so that the key's version at the end
is the number of puts that were executed: fewer than were answered is a loss, more than were sent a
repetition. The moments of the answers show for how long there were none.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from itertools import pairwise

from dwcp.client import Client
from dwcp.errors import DWCPError

PUT_MS_MAX = 20_000


class Steady:
    """`clients` tasks over one `Client`; `answers` are moments of `time.monotonic`.

    `name` is part of the keys: nobody else may have written them.
    """

    def __init__(self, client: Client, clients: int, name: str) -> None:
        self._client = client
        self._name = name.encode()
        self._answered = [0] * clients
        self._unknown = [0] * clients
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self.answers: list[float] = []
        self.errors: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin to write."""
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(len(self._answered))]

    async def end(self) -> None:
        """Let every client have its last answer."""
        self._ended = True
        await asyncio.gather(*self._tasks)

    async def _write(self, number: int) -> None:
        while not self._ended:
            try:
                await self._client.put(self._key(number), b"x" * 256, timeout_ms=PUT_MS_MAX)
            except DWCPError as error:
                self.errors[type(error).__name__] += 1
                self._unknown[number] += 1
                await asyncio.sleep(0.01)
            else:
                self.answers.append(time.monotonic())
                self._answered[number] += 1

    def _key(self, number: int) -> bytes:
        return b"steady/%s/%04d" % (self._name, number)

    @property
    def operations(self) -> int:
        """How many puts were answered."""
        return sum(self._answered)

    async def amiss(self) -> tuple[int, int]:
        """How many puts were lost, and how many executed twice; to be asked after the end."""
        lost = repeated = 0
        for number, answered in enumerate(self._answered):
            found = await self._client.get(self._key(number))
            executed = 0 if found is None else found.version
            lost += max(0, answered - executed)
            repeated += max(0, executed - answered - self._unknown[number])
        return lost, repeated

    def pause_s(self, since_s: float, until_s: float) -> float:
        """The longest time without any answer between two moments."""
        first = bisect_left(self.answers, since_s)
        moments = [since_s]
        moments += [at for at in self.answers[first:] if at < until_s]
        moments.append(until_s)
        return max(b - a for a, b in pairwise(moments))
