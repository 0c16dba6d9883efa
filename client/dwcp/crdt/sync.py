"""Anti-entropy: two functions and a state. Equal replicas say nothing.

Theory. A summary says what a replica has: its heads, and a Bloom filter over everything beyond a
version that both are known to share (Kleppmann and Howard 2020, "Byzantine Eventual Consistency",
algorithm 2). The other side sends what the summary does not cover, in an order in which it applies,
so that about one round trip makes both equal. What the filter hid by a false "probably" is missed
by whatever builds on it, or is a head that the other knows of: it is then asked for by hash.

Few new operations are pushed at once; many are announced by a summary and sent when the answer
shows that they are lacking, because after a partition everyone relays everything.

A summary is sent when our version has changed since the last one, and the last message of every
stream of operations carries one. It names the last summary that its sender saw (`seen`), which
tells what is still in flight and must not be sent twice. Two replicas that can not become equal
(one holds operations of a future epoch) fall silent. `again` makes the next `generate` speak: after
a loss, or for the periodic round. Nothing that a peer says is kept but its last summary and what is
left to send it, so that a reconnection starts from a new state and loses only what was in flight.

A liar can make us send operations that it has, and ask us for what nobody has. It can not make us
apply anything: operations are judged by `Document.receive` alone, and a false filter only delays
what any honest peer delivers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp.crdt.bloom import ENTRIES_MAX, filter_of, may_hold
from dwcp.crdt.document import Document, Received
from dwcp.crdt.frontier import follows
from dwcp.wire.documents import (
    MAX_HEADS,
    MAX_NEEDED,
    Operation,
    Summary,
    SyncMessage,
    decode_sync_message,
)
from dwcp.wire.signing import ZERO_HASH

MESSAGE_BYTES: Final = 262_144
"""Operations in one message stop here; a single longer operation travels alone."""
MESSAGE_OPERATIONS: Final = 1024
OPERATION_OVERHEAD_BYTES: Final = 128
SHARED_MAX: Final = 64
FLIGHTS_MAX: Final = 256
PUSH_MAX: Final = 64
"""News up to so many operations is pushed unasked; more is announced by a summary, because others
may have brought it already."""


@dataclass(slots=True)
class Flight:
    """Operations sent before our summary of this version, as far as we know not yet arrived."""

    said: bytes
    numbers: list[int]


@dataclass(slots=True)
class SyncState:
    """What we know of one peer, for one document, since the connection began."""

    shared: list[bytes] = field(default_factory=list)
    their_state: bytes = ZERO_HASH
    their_unknown: list[bytes] = field(default_factory=list)
    their_seen: bytes = ZERO_HASH
    said: bytes | None = None
    asked: tuple[bytes, bytes] | None = None
    expecting: bool = False
    queue: deque[int] = field(default_factory=deque)
    sending: list[int] = field(default_factory=list)
    flights: deque[Flight] = field(default_factory=lambda: deque(maxlen=FLIGHTS_MAX))
    looked_at: int = 0
    from_them: set[int] = field(default_factory=set)
    retry: bool = False
    lacks_image: bool = False
    """True when the peer shows nothing above our collected frontier: what it lacks below can not
    be sent as operations, and it needs an image first (or is ahead of us)."""
    generation: int = 0

    def again(self) -> None:
        """Make the next `generate` send a summary even though nothing has changed."""
        self.said = None
        self.retry = True


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a message brought: hashes applied, and refusals by reason."""

    applied: tuple[bytes, ...]
    refused: tuple[str, ...]


def is_equal(document: Document, state: SyncState) -> bool:
    """True when the peer's last summary showed the version that we have."""
    return state.their_state == document.graph.state()


def generate(document: Document, state: SyncState) -> SyncMessage | None:
    """The next message for this peer, or None when there is nothing to say."""
    _queue_news(document, state)
    operations = _take_batch(document, state)
    if operations:
        summary = None if state.queue else _summary(document, state)
        return SyncMessage(document.name, summary, operations)
    if not _must_speak(document, state):
        return None
    return SyncMessage(document.name, _summary(document, state))


def receive(document: Document, state: SyncState, message: SyncMessage) -> SyncResult:
    """Take a peer's message: judge its operations, and queue what its summary lacks."""
    applied: list[bytes] = []
    refused: list[str] = []
    if message.document != document.name:
        document.refused["document"] += 1
        return SyncResult((), ("document",))
    for operation in message.operations:
        received: Received = document.receive(operation)
        applied += received.applied
        if received.outcome == "refused":
            refused.append(received.reason)
    state.from_them.update(document.graph.numbers[name] for name in applied)
    state.expecting = message.summary is None
    if message.summary is not None:
        _take_summary(document, state, message.summary)
    return SyncResult(tuple(applied), tuple(refused))


def encode(message: SyncMessage) -> bytes:
    """A message as bytes."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes) -> SyncMessage:
    """A message from a stranger's bytes. Raises msgspec.DecodeError, naming the field."""
    return decode_sync_message(data)


def _queue_news(document: Document, state: SyncState) -> None:
    """After a first summary: queue what was applied since, unless it came from this peer."""
    if state.generation != document.generation:  # operations were numbered anew
        _forget_numbers(document, state)
    count = len(document.graph)
    if state.their_state != ZERO_HASH:
        news = [n for n in range(state.looked_at, count) if n not in state.from_them]
        if len(news) <= PUSH_MAX:
            state.queue.extend(news)
    state.looked_at = count
    state.from_them.clear()


def _forget_numbers(document: Document, state: SyncState) -> None:
    state.generation = document.generation
    state.queue.clear()
    state.sending.clear()
    state.flights.clear()
    state.from_them.clear()
    state.looked_at = len(document.graph)
    state.said = None


def _take_batch(document: Document, state: SyncState) -> tuple[Operation, ...]:
    batch: list[Operation] = []
    size = 0
    while state.queue and len(batch) < MESSAGE_OPERATIONS:
        (operation,) = document.operations((state.queue[0],))
        size += len(operation.body) + OPERATION_OVERHEAD_BYTES
        if batch and size > MESSAGE_BYTES:
            break
        state.sending.append(state.queue.popleft())
        batch.append(operation)
    return tuple(batch)


def _must_speak(document: Document, state: SyncState) -> bool:
    """Our version is news to them, or they answered it and we still lack what they have."""
    if state.said is None:
        return True
    if state.expecting:
        return False
    ours = document.graph.state()
    if state.said != ours:
        return True
    unknown = any(name not in document.graph for name in state.their_unknown)
    return unknown and state.their_seen == ours and state.asked != (ours, state.their_state)


def _summary(document: Document, state: SyncState) -> Summary:
    """What we have; notes that it was said."""
    graph = document.graph
    ours = graph.state()
    state.their_unknown = [name for name in state.their_unknown if name not in graph]
    since = state.shared
    # To one that has only less than we have, or the same, no filter is of use.
    level = state.their_state != ZERO_HASH and not state.their_unknown
    beyond: list[int] = []
    if not level:
        beyond = graph.beyond([graph.numbers[name] for name in since if name in graph])
    if len(beyond) > ENTRIES_MAX:
        beyond = beyond[-ENTRIES_MAX:]
        since = [*since, *graph.prefix_heads(beyond[0])]
    need = dict.fromkeys((*state.their_unknown, *document.held.missing()))
    wanted = [name for name in need if name not in document.held]
    retry, state.retry = state.retry, False
    state.said, state.asked = ours, (ours, state.their_state)
    state.flights.append(Flight(ours, state.sending))
    state.sending = []
    return Summary(
        ours,
        tuple(document.heads[:MAX_HEADS]),
        tuple(since[:MAX_HEADS]),
        filter_of((graph.hashes[number] for number in beyond), int.from_bytes(ours[:7], "big")),
        tuple(wanted[:MAX_NEEDED]),
        state.their_state,
        retry,
    )


def _take_summary(document: Document, state: SyncState, summary: Summary) -> None:
    graph = document.graph
    if state.generation != document.generation:
        _forget_numbers(document, state)
    state.their_state, state.their_seen = summary.state, summary.seen
    _land(state, summary)
    state.their_unknown = [name for name in summary.heads if name not in graph]
    known = [name for name in summary.heads if name in graph]
    if summary.state == graph.state():
        state.queue.clear()
    else:
        flying = {number for flight in state.flights for number in flight.numbers}
        lacking = _lacking(document, state, summary, known)
        state.queue = deque(number for number in lacking if number not in flying)
    # What they named and we know, they have, with its past: the newest say the most.
    shared = {graph.numbers[name] for name in (*known, *state.shared) if name in graph}
    newest = sorted(shared, reverse=True)[:SHARED_MAX]
    state.shared = [graph.hashes[number] for number in newest]
    state.looked_at = len(graph)
    state.from_them.clear()


def _land(state: SyncState, summary: Summary) -> None:
    """What was sent before a summary that they saw has arrived, or is lost."""
    if summary.retry:
        state.flights.clear()
        state.sending.clear()
        return
    if any(flight.said == summary.seen for flight in state.flights):
        while state.flights.popleft().said != summary.seen:
            pass


def _lacking(
    document: Document, state: SyncState, summary: Summary, known: list[bytes]
) -> list[int]:
    """Numbers of what the peer lacks, ascending: by its heads, else by its filter."""
    graph = document.graph
    shared = [*known, *(name for name in summary.since if name in graph)]
    base = {graph.numbers[name] for name in shared}
    state.lacks_image = not follows(graph, base)
    candidates = graph.beyond(base)
    if not state.their_unknown and len(summary.heads) < MAX_HEADS:
        return candidates
    needed = {graph.numbers[name] for name in summary.need if name in graph}
    missing = {number for number in needed if number >= graph.floor}
    for number in candidates:
        # Whoever lacks an operation lacks what builds on it: the filter's errors end there.
        builds_on = any(parent in missing for parent in graph.parents[number])
        if builds_on or not may_hold(summary.filter, graph.hashes[number]):
            missing.add(number)
    return sorted(missing)
