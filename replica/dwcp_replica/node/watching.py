"""Where the pulls of watching clients wait until something matches.

A pull is answered at once if what it asks for has happened, or when it does, or with nothing new
after `PROGRESS_S`, so that the client knows how far the history has come. What happens is held
against all waiting pulls once: by key for those that watch one, one after the other for the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dwcp.wire.envelope import Rejected
from dwcp.wire.watch import LAST, Page, Place, Pull, encode_events
from dwcp_replica.api.desk import Answer
from dwcp_replica.store import Store
from dwcp_replica.store.watching import Seen, covers, look

PROGRESS_S: Final = 5.0
SLICE_S_MAX: Final = 0.01
"""Looking gives way to the event loop after this long."""
PULLS_MAX: Final = 16_384
PULLS_PER_CLIENT_MAX: Final = 4096
PAGE_BYTES_MAX: Final = 1024 * 1024
PAGE_EVENTS_MAX: Final = 10_000
"""Events that one page is looked for in; one that ends within them is pulled on by its client."""

Answering = Callable[[Answer], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A pull; up to `quiet` nothing is there for it."""

    client: bytes
    pull: Pull
    request: bytes
    answer: Answering
    since_s: float
    quiet: Place


class WatchRoom:
    """The pulls that wait. `sign` makes a page of what was seen, `deny` a refusal."""

    def __init__(
        self,
        store: Store,
        sign: Callable[[bytes, Seen, bytes], Page],
        deny: Callable[[bytes], Rejected],
    ) -> None:
        self._store = store
        self._sign = sign
        self._deny = deny
        self._waiting: dict[tuple[Answering, int], _Waiting] = {}
        self._held: Counter[bytes] = Counter()
        self._seen_revision = self._told_revision = store.revision
        self._arrived: list[_Waiting] = []
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, client: bytes, pull: Pull, answer: Answering) -> bool:
        """Take a pull in; False when there are too many. A watch's newer one replaces its older."""
        request = pull.digest()
        place = (answer, pull.watch)
        if place not in self._waiting and (
            len(self._waiting) >= PULLS_MAX or self._held[client] >= PULLS_PER_CLIENT_MAX
        ):
            return False
        self._drop(place)
        waiting = _Waiting(client, pull, request, answer, time.monotonic(), pull.after)
        self._waiting[place] = waiting
        self._held[client] += 1
        self._arrived.append(waiting)
        self._filled.set()
        return True

    def leave(self, answer: Answering) -> None:
        """Forget the pulls of a connection."""
        for place in [place for place in self._waiting if place[0] == answer]:
            self._drop(place)

    def is_behind(self) -> bool:
        """True when revisions were made that waiting pulls were not held against."""
        return self._store.revision != self._told_revision

    def catch_up(self) -> None:
        """Hold them against the pulls, soon."""
        self._told_revision = self._store.revision
        self._filled.set()

    async def run(self) -> None:
        """Answer what can be answered, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._filled.wait()
            except TimeoutError:
                pass
            self._filled.clear()
            if self._store.target is None:
                await self._serve()

    def _patience_s(self) -> float:
        oldest = next(iter(self._waiting.values()), None)
        waited_s = 0.0 if oldest is None else time.monotonic() - oldest.since_s
        return max(0.05, PROGRESS_S - waited_s)

    async def _serve(self) -> None:
        began_s = time.monotonic()
        for waiting in self._due():
            self._answer(waiting)
            if time.monotonic() - began_s > SLICE_S_MAX:
                await asyncio.sleep(0)
                if self._store.target is not None:
                    return  # its pulls are answered when there is a state again
                began_s = time.monotonic()

    def _due(self) -> list[_Waiting]:
        """The pulls that arrived, that something matches, or that have waited long."""
        before = (self._seen_revision, LAST)
        due = dict.fromkeys(self._matched())
        for waiting in due:
            waiting.quiet = max(waiting.quiet, before)
        arrived, self._arrived = self._arrived, []
        due.update(dict.fromkeys(arrived))
        limit_s = time.monotonic() - PROGRESS_S
        for waiting in self._waiting.values():
            if waiting.since_s > limit_s:
                break
            if waiting not in due:
                waiting.quiet = max(waiting.quiet, (self._seen_revision, LAST))
                due[waiting] = None
        return [waiting for waiting in due if self._is_here(waiting)]

    def _matched(self) -> Iterator[_Waiting]:
        """The pulls that something new may be for."""
        revision = self._store.revision
        if not self._waiting or revision <= self._seen_revision:
            self._seen_revision = revision
            return
        new = set(self._arrived)
        exact: dict[bytes, list[_Waiting]] = {}
        spans: list[_Waiting] = []
        for waiting in self._waiting.values():
            if waiting in new:
                continue  # looked for in all that there is
            if waiting.pull.range_end:
                spans.append(waiting)
            else:
                exact.setdefault(waiting.pull.key, []).append(waiting)
        keys = self._store.key_store.keys
        start = max(self._seen_revision, keys.head.compacted - 1) + 1
        self._seen_revision = revision
        for _, event in keys.events((start, 0), revision + 1):
            yield from exact.pop(event.key, ())
            hit = [waiting for waiting in spans if covers(waiting.pull, event.key)]
            if hit:
                yield from hit
                spans = [waiting for waiting in spans if not covers(waiting.pull, event.key)]
            if not (spans or exact):
                return

    def _is_here(self, waiting: _Waiting) -> bool:
        return self._waiting.get((waiting.answer, waiting.pull.watch)) is waiting

    def _answer(self, waiting: _Waiting) -> None:
        """Answer a pull, unless nothing is there for it and it has only begun to wait."""
        if not self._is_here(waiting):
            return
        pull = waiting.pull
        access = self._store.key_store.access
        if not access.may_read(waiting.client, pull.key, pull.range_end):
            self._drop((waiting.answer, waiting.pull.watch))
            waiting.answer(self._deny(waiting.request))
            return
        seen = look(
            self._store.key_store.keys,
            pull,
            bytes_max=PAGE_BYTES_MAX,
            events_max=PAGE_EVENTS_MAX,
            quiet=waiting.quiet,
        )
        is_whole = seen.upto[1] == LAST
        is_young = not pull.prompt and time.monotonic() - waiting.since_s < PROGRESS_S
        if not seen.events and is_whole and is_young and not seen.compact_revision:
            waiting.quiet = seen.upto
            return
        self._drop((waiting.answer, waiting.pull.watch))
        waiting.answer(self._sign(waiting.request, seen, encode_events(seen.events)))

    def _drop(self, place: tuple[Answering, int]) -> None:
        waiting = self._waiting.pop(place, None)
        if waiting is not None:
            self._held[waiting.client] -= 1
            if not self._held[waiting.client]:
                del self._held[waiting.client]
