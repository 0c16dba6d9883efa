"""Client requests that wait for their place in the log.

Bounded in all and per client, and served in turn by client, so that one client's flood neither
fills memory nor starves the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dwcp.wire.envelope import Envelope

PENDING_MAX: Final = 4096
PENDING_PER_CLIENT_MAX: Final = 1024
PENDING_BYTES_MAX: Final = 256 * 1024 * 1024
PENDING_BYTES_PER_CLIENT_MAX: Final = 64 * 1024 * 1024
EXECUTED_REMEMBERED_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request and when it came (core time)."""

    envelope: Envelope
    digest: bytes
    since_ms: int
    size: int


class RequestPool:
    """Requests by digest, in order of arrival for each client."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiting] = {}
        self._queues: OrderedDict[bytes, OrderedDict[bytes, Waiting]] = OrderedDict()
        self._count: dict[bytes, int] = {}
        self._bytes: dict[bytes, int] = {}
        self.bytes = 0
        self._in_log: set[bytes] = set()
        self._executed: OrderedDict[bytes, int] = OrderedDict()
        self._executed_count = 0
        self._head_since_ms = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, envelope: Envelope, now_ms: int) -> bool:
        """Take a request; False when it is known already or the pool is full."""
        digest = envelope.digest()
        if digest in self._waiting or digest in self._executed or digest in self._in_log:
            return False
        count = self._count.get(envelope.client, 0)
        if len(self._waiting) >= PENDING_MAX or count >= PENDING_PER_CLIENT_MAX:
            return False
        waiting = Waiting(envelope, digest, now_ms, len(envelope.body) + 128)
        size = self._bytes.get(envelope.client, 0) + waiting.size
        if self.bytes + waiting.size > PENDING_BYTES_MAX or size > PENDING_BYTES_PER_CLIENT_MAX:
            return False
        if not self._waiting:
            self._head_since_ms = now_ms
        self._waiting[digest] = waiting
        self._bytes[envelope.client] = size
        self.bytes += waiting.size
        self._count[envelope.client] = count + 1
        self._enqueue(waiting)
        return True

    def take(self, bytes_max: int, count_max: int) -> list[Envelope]:
        """The next requests to propose, one client after the other; at least one if any waits."""
        batch: list[Envelope] = []
        size = 0
        while self._queues and len(batch) < count_max:
            client, queue = next(iter(self._queues.items()))
            digest, waiting = next(iter(queue.items()))
            if batch and size + waiting.size > bytes_max:
                break
            del queue[digest]
            self._queues.move_to_end(client)
            if not queue:
                del self._queues[client]
            batch.append(waiting.envelope)
            size += waiting.size
        return batch

    def proposed(self, digests: Iterable[bytes]) -> None:
        """These stand in the log now: they wait to become final and are not proposed again."""
        for digest in digests:
            self._in_log.add(digest)
            waiting = self._waiting.get(digest)
            if waiting is not None:
                self._unqueue(waiting)

    def dropped(self, digests: Iterable[bytes]) -> None:
        """These left the log with a replaced tail: propose them again if they still wait."""
        for digest in digests:
            self._in_log.discard(digest)
            waiting = self._waiting.get(digest)
            if waiting is not None:
                self._enqueue(waiting)

    def executed(self, digests: Iterable[bytes], now_ms: int) -> None:
        """These are done."""
        head = next(iter(self._waiting), None)
        for digest in digests:
            self._in_log.discard(digest)
            waiting = self._waiting.pop(digest, None)
            if waiting is not None:
                self._unqueue(waiting)
                self._uncount(waiting)
            self._executed_count += 1
            self._executed[digest] = self._executed_count
        if head not in self._waiting:
            self._head_since_ms = now_ms
        while len(self._executed) > EXECUTED_REMEMBERED_MAX:
            self._executed.popitem(last=False)

    def clear(self) -> None:
        """Forget what waits: it may have been executed where nobody looked. Clients ask again."""
        for waiting in list(self._waiting.values()):
            self._unqueue(waiting)
            self._uncount(waiting)
        self._waiting.clear()
        self._in_log.clear()

    @property
    def has_unproposed(self) -> bool:
        """True when a request waits that is not in the log."""
        return bool(self._queues)

    def stale(self, digest: bytes) -> bool:
        """True for a request that a primary must not propose: in the log, or lately executed.

        Of what is remembered only the newer half counts, so that a primary that has just
        forgotten a request is not refused by a backup that remembers it still.
        """
        executed = self._executed.get(digest, 0)
        recent = executed > self._executed_count - EXECUTED_REMEMBERED_MAX // 2
        return digest in self._in_log or (executed > 0 and recent)

    def oldest_ms(self) -> int | None:
        """Since when the oldest request has been the oldest, or None.

        The clock runs for one request at a time (Castro and Liskov 1999, section 4.4): a queue
        that moves is no reason to give a primary up, and one that is passed over stays oldest.
        """
        return self._head_since_ms if self._waiting else None

    def waiting(self, limit: int) -> list[Envelope]:
        """The oldest waiting requests that are not in the log."""
        found: list[Envelope] = []
        for waiting in self._waiting.values():
            if waiting.digest not in self._in_log:
                found.append(waiting.envelope)
                if len(found) == limit:
                    break
        return found

    def _enqueue(self, waiting: Waiting) -> None:
        queue = self._queues.setdefault(waiting.envelope.client, OrderedDict())
        queue[waiting.digest] = waiting

    def _unqueue(self, waiting: Waiting) -> None:
        queue = self._queues.get(waiting.envelope.client)
        if queue is None:
            return
        queue.pop(waiting.digest, None)
        if not queue:
            del self._queues[waiting.envelope.client]

    def _uncount(self, waiting: Waiting) -> None:
        client = waiting.envelope.client
        self.bytes -= waiting.size
        self._bytes[client] -= waiting.size
        left = self._count[client] - 1
        if left:
            self._count[client] = left
        else:
            del self._count[client]
            del self._bytes[client]
