"""Answers reads beside the log: from what is executed, in turn by client, in slices of time.

Only a replica that has executed at least as far as ever before may answer (`ready`): the clients
count on it that whoever has confirmed a write shows it from then on (client/dwcp/reads.py). After
a restart the log is executed again from the start, and what its end is final for is learned anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp.wire.query import (
    MAX_QUERY_BYTES,
    MAX_QUERY_OPERATIONS,
    Query,
    QueryBody,
    decode_query_body,
)
from dwcp_replica.store import RefusalReason, Store

QUERIES_MAX: Final = 512
QUERIES_PER_CLIENT_MAX: Final = 64
BYTES_MAX: Final = 32 * 1024 * 1024
"""Of the bodies of all queries that wait here."""
SLICE_S_MAX: Final = 0.01
"""Reading gives way to the event loop after this long."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    query: Query
    body: QueryBody
    then: Callable[[int, int, bytes], None]


class ReadingRoom:
    """The queries that wait for their turn at the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: OrderedDict[bytes, deque[_Waiting]] = OrderedDict()
        self._held: Counter[bytes] = Counter()
        self._held_bytes = 0
        self._filled = asyncio.Event()

    def admits(self, query: Query) -> bool:
        """True while there is room for one more of this client."""
        return (
            self._held[query.client] < QUERIES_PER_CLIENT_MAX
            and self._held.total() < QUERIES_MAX
            and self._held_bytes + len(query.body) <= BYTES_MAX
        )

    def hold(self, query: Query) -> None:
        """Count a query that is under way to here, until `leave`."""
        self._held[query.client] += 1
        self._held_bytes += len(query.body)

    def leave(self, query: Query) -> None:
        """A query is answered, or was not worth one."""
        self._held[query.client] -= 1
        if not self._held[query.client]:
            del self._held[query.client]
        self._held_bytes -= len(query.body)

    def enter(self, query: Query, body: QueryBody, then: Callable[[int, int, bytes], None]) -> None:
        """Have a held query answered: `then` gets index, revision and encoded results."""
        self._queues.setdefault(query.client, deque()).append(_Waiting(query, body, then))
        self._filled.set()

    async def run(self) -> None:
        """Answer what waits, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            since_s = time.monotonic()
            while self._queues:
                self._serve(self._next())
                if time.monotonic() - since_s > SLICE_S_MAX:
                    await asyncio.sleep(0)
                    since_s = time.monotonic()

    def _next(self) -> _Waiting:
        """One of each client in turn."""
        client, queue = self._queues.popitem(last=False)
        waiting = queue.popleft()
        if queue:
            self._queues[client] = queue
        return waiting

    def _serve(self, waiting: _Waiting) -> None:
        self.leave(waiting.query)
        if self._store.target is not None:
            return  # the state is being fetched since the query came: the client asks elsewhere
        revision, results = self._store.read(waiting.query.client, waiting.body.operations)
        waiting.then(self._store.applied_index, revision, results)


def read_query(query: Query) -> QueryBody | tuple[RefusalReason, str]:
    """The body of a query, or reason and message of what is wrong with it."""
    if len(query.body) > MAX_QUERY_BYTES:
        return RefusalReason.TOO_LARGE, f"a query has at most {MAX_QUERY_BYTES} bytes: split it"
    try:
        body = decode_query_body(query.body)
    except msgspec.DecodeError as error:
        message = f"the body is not the MessagePack of a QueryBody: {error}"
        return RefusalReason.MALFORMED, message
    if not 1 <= len(body.operations) <= MAX_QUERY_OPERATIONS:
        message = f"a query has 1 to {MAX_QUERY_OPERATIONS} reads, this one {len(body.operations)}"
        return RefusalReason.TOO_LARGE, message
    return body
