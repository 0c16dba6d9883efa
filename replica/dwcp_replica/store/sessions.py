"""Client sessions as replicated state: every envelope is executed at most once, for ever.

Theory of operation.

*Numbers.* A session's number comes from a counter that only grows, so a number names one
session for ever, and "lower than the counter and not open" means gone for good.

*Opening.* An OpenSession names the client's clock and a nonce. It is accepted only while the
agreed time is within `open_tolerance_ms` of that clock, and while it could be accepted the pair
(client, nonce) is remembered: the session itself remembers it, and a closed session leaves a
record until the agreed time has passed the tolerance. A session that expires has been idle for
longer than twice the tolerance, so its nonce is already too old. Hence a replayed OpenSession
finds the session that it opened, or is too old; it never opens a second one.

*Executing.* `low` is the highest sequence number whose answers, and all answers below, the
client has acknowledged. Envelopes in (low, low + window] may be executed in any order, each
once; their replies are kept until acknowledged, so at most `window` of them. An acknowledgement
never passes a sequence number that was not executed. A repetition gets the stored reply; other
content under the same number is refused; at or below `low` everything is refused.

*Bytes.* The results kept per session are bounded. Above the bound results are dropped, and what
stays is a marker that the envelope was executed. Reads go first, oldest first, then the others:

- An envelope of reads only (or of nothing) is executed again when its results are gone. It
  changed nothing the first time, and the client still waits for it, so a later answer is as
  correct as the first: the read takes effect between call and return either way. Until they
  are dropped, its results are kept like others, because then every replica repeats the *same*
  answer and a client that lost a few replies can still match f+1. Running it again does not
  prolong the session, so that replaying an old read keeps nothing alive.
- Any other envelope is never executed again. The answer says that it was executed, at which
  index and revision, and that the results are no longer kept.

*Expiry.* A session idle for `idle_ms` of agreed time is collected when an entry is applied.
Nothing that is refused or repeated counts as activity, changes state, or advances `low`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.envelope import EnvelopeBody
from dwcp.wire.operations import Failure, OpenSession
from dwcp_replica.store.records import Reading

ANSWER_DROPPED: Final = 15
"""Failure code of a repeated envelope that *was* executed, but whose answer is not kept."""


_SESSION: Final = b"\x01"
_REPLY: Final = b"\x02"
"""Kinds of records (store.py has them all)."""


class RefusalReason(StrEnum):
    """Why an envelope is refused as a whole; a metric label."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    UNKNOWN_CLIENT = "unknown-client"
    SESSION_GONE = "session-gone"
    SEQUENCE_REUSED = "sequence-reused"
    SEQUENCE_COLLECTED = "sequence-collected"
    SEQUENCE_AHEAD = "sequence-ahead"
    CLOCK = "clock"
    TOO_MANY_SESSIONS = "too-many-sessions"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of sessions; all replicas must hold the same.

    open_tolerance_ms: how far a client's clock may be from agreed time. Ten minutes: clocks of
    machines without time service drift by seconds a day, and an envelope may wait minutes for
    a quorum; a longer tolerance keeps records of closed sessions longer.
    closed_per_client: closed sessions are remembered for at most twice the tolerance, so this
    allows 13 short sessions a second; it bounds their memory to some 32 MiB per client key.
    """

    open_tolerance_ms: int = 10 * 60 * 1000
    idle_ms: int = 60 * 60 * 1000
    per_client: int = 256
    closed_per_client: int = 16384
    window: int = 64
    reply_bytes: int = 1024 * 1024
    closing_reply_bytes: int = 1024

    def __post_init__(self) -> None:
        assert self.idle_ms > 2 * self.open_tolerance_ms, "an expired nonce could be accepted"


class StoredReply(Struct, frozen=True, array_like=True):
    """The first answer to an envelope; `results` is None once dropped."""

    request: bytes
    index: int
    revision: int
    read_only: bool
    results: bytes | None


@dataclass(slots=True)
class Session:
    """One session. `replies` holds every executed sequence number above `low`."""

    number: int
    client: bytes
    nonce: bytes
    time_ms: int
    opened: StoredReply
    active_ms: int
    low: int = 0
    replies: dict[int, StoredReply] = field(default_factory=dict)
    kept_bytes: int = 0
    closing: tuple[int, StoredReply] | None = None

    def low_after(self, acked: int) -> int:
        """The low mark after an acknowledgement; it stops below what was not executed."""
        low = self.low
        while low < acked and low + 1 in self.replies:
            low += 1
        return low


@dataclass(frozen=True, slots=True)
class Fresh:
    """Execute it. `again`: a read whose results were dropped."""

    session: Session
    again: bool


@dataclass(frozen=True, slots=True)
class FreshOpen:
    """Open a session."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """The nonce is known from another envelope: answer with the session that it opened."""

    session: Session


@dataclass(frozen=True, slots=True)
class Answered:
    """It was executed before, and this is the answer."""

    reply: StoredReply


@dataclass(frozen=True, slots=True)
class Refused:
    """Not executed now; `final` when it never will be."""

    reason: RefusalReason
    failure: Failure
    final: bool


Verdict = Fresh | FreshOpen | Reopened | Answered | Refused


class Sessions:
    """All sessions. `judge` and `judge_open` decide and change nothing; the rest changes."""

    def __init__(self, limits: SessionLimits) -> None:
        self.next_number = 1
        self._limits = limits
        self._open: OrderedDict[int, Session] = OrderedDict()
        """By number, the longest idle first."""
        self._closed: dict[int, Session] = {}
        self._closed_until: list[tuple[int, int]] = []
        """Heap of (last agreed time at which the nonce is accepted, number)."""
        self._by_nonce: dict[tuple[bytes, bytes], Session] = {}
        self._open_count: dict[bytes, int] = {}
        self._closed_count: dict[bytes, int] = {}
        self._changed: dict[bytes, None] = {}

    # --- decisions -------------------------------------------------------------------------

    def judge_open(
        self, client: bytes, operation: OpenSession, request: bytes, stamp_ms: int
    ) -> FreshOpen | Reopened | Answered | Refused:
        """What to do with an envelope that opens a session, at agreed time `stamp_ms`."""
        if (known := self._by_nonce.get((client, operation.nonce))) is not None:
            same = known.opened.request == request
            return Answered(known.opened) if same else Reopened(known)
        tolerance_ms = self._limits.open_tolerance_ms
        if abs(stamp_ms - operation.time_ms) > tolerance_ms:
            return Refused(
                RefusalReason.CLOCK,
                Failure(
                    9,
                    f"the client's clock says {operation.time_ms} ms, the cluster's agreed time "
                    f"is {stamp_ms} ms; more than {tolerance_ms} ms apart no session opens: "
                    "set the client's clock, then open a session with a new nonce",
                ),
                final=operation.time_ms < stamp_ms,
            )
        return self._check_counts(client) or FreshOpen()

    def judge(
        self, client: bytes, body: EnvelopeBody, request: bytes
    ) -> Fresh | Answered | Refused:
        """What to do with an envelope of a session."""
        session = self._open.get(body.session)
        if session is None or session.client != client:
            return self._judge_gone(client, body, request)
        if (reply := session.replies.get(body.sequence)) is not None:
            if reply.request != request:
                return _reused(body)
            again = reply.results is None and reply.read_only
            return Fresh(session, again=True) if again else Answered(reply)
        if body.sequence <= session.low:
            return _collected(body)
        if body.sequence > session.low_after(body.acked) + self._limits.window:
            return _ahead(body, self._limits.window)
        return Fresh(session, again=False)

    def _check_counts(self, client: bytes) -> Refused | None:
        limits = self._limits
        if self._open_count.get(client, 0) >= limits.per_client:
            advice = (
                f"this client has {limits.per_client} open sessions, the most allowed: close "
                "some, share one among tasks, or wait until idle ones expire "
                f"({limits.idle_ms // 60_000} min)"
            )
        elif self._closed_count.get(client, 0) >= limits.closed_per_client:
            advice = (
                f"this client closed {limits.closed_per_client} sessions within minutes, the "
                "most remembered: keep a session open and send many envelopes in it"
            )
        else:
            return None
        return Refused(RefusalReason.TOO_MANY_SESSIONS, Failure(8, advice), final=False)

    def _judge_gone(self, client: bytes, body: EnvelopeBody, request: bytes) -> Answered | Refused:
        closed = self._closed.get(body.session)
        if closed is not None and closed.client == client and closed.closing is not None:
            sequence, reply = closed.closing
            if sequence == body.sequence and reply.request == request:
                return Answered(reply)
        return Refused(
            RefusalReason.SESSION_GONE,
            Failure(
                5,
                f"session {body.session} is not open for this client (closed, expired or never "
                "opened) and nothing was executed: open a new session",
            ),
            final=body.session < self.next_number,
        )

    # --- changes ---------------------------------------------------------------------------

    def collect(self, stamp_ms: int) -> None:
        """Forget what is over at agreed time `stamp_ms`: idle sessions, old closed ones."""
        while self._open:
            session = next(iter(self._open.values()))
            if stamp_ms - session.active_ms <= self._limits.idle_ms:
                break
            assert stamp_ms - session.time_ms > self._limits.open_tolerance_ms, "nonce still valid"
            self._remove_open(session)
            self._forget(session)
        while self._closed_until and self._closed_until[0][0] < stamp_ms:
            _, number = heapq.heappop(self._closed_until)
            session = self._closed.pop(number)
            _add(self._closed_count, session.client, -1)
            self._forget(session)

    def open(
        self, client: bytes, operation: OpenSession, reply: StoredReply, stamp_ms: int
    ) -> None:
        """Open session `next_number`, whose reply is `reply`."""
        session = Session(
            number=self.next_number,
            client=client,
            nonce=operation.nonce,
            time_ms=operation.time_ms,
            opened=reply,
            active_ms=stamp_ms,
        )
        assert (client, operation.nonce) not in self._by_nonce, "a nonce opens one session"
        self.next_number += 1
        self._open[session.number] = session
        self._by_nonce[(client, operation.nonce)] = session
        _add(self._open_count, client, 1)
        self._touch(session)

    def record(self, fresh: Fresh, body: EnvelopeBody, reply: StoredReply, stamp_ms: int) -> None:
        """Keep the reply to an executed envelope and forget what the client acknowledged."""
        session = fresh.session
        assert reply.results is not None, "a new reply has results"
        assert fresh.again == (body.sequence in session.replies), "an envelope executes once"
        for sequence in range(session.low + 1, session.low_after(body.acked) + 1):
            self._drop_reply(session, sequence)
            session.low = sequence
        if len(reply.results) > self._limits.reply_bytes:
            reply = msgspec.structs.replace(reply, results=None)
        session.replies[body.sequence] = reply
        session.kept_bytes += len(reply.results or b"")
        self._changed[_reply_key(session.number, body.sequence)] = None
        self._bound_bytes(session)
        if not fresh.again:
            session.active_ms = stamp_ms
            self._open.move_to_end(session.number)
        self._touch(session)
        assert len(session.replies) <= self._limits.window, "more replies than the window"

    def close(self, fresh: Fresh, body: EnvelopeBody, reply: StoredReply) -> None:
        """Close the session by the envelope answered with `reply`."""
        session = fresh.session
        self._remove_open(session)
        assert reply.results is not None, "a new reply has results"
        if len(reply.results) <= self._limits.closing_reply_bytes:
            session.closing = (body.sequence, reply)
        self._remember_closed(session)
        self._touch(session)

    def _remember_closed(self, session: Session) -> None:
        self._closed[session.number] = session
        until_ms = session.time_ms + self._limits.open_tolerance_ms
        heapq.heappush(self._closed_until, (until_ms, session.number))
        _add(self._closed_count, session.client, 1)

    def _remove_open(self, session: Session) -> None:
        del self._open[session.number]
        _add(self._open_count, session.client, -1)
        for sequence in list(session.replies):
            self._drop_reply(session, sequence)

    def _forget(self, session: Session) -> None:
        del self._by_nonce[(session.client, session.nonce)]
        self._touch(session)

    def _drop_reply(self, session: Session, sequence: int) -> None:
        reply = session.replies.pop(sequence)
        session.kept_bytes -= len(reply.results or b"")
        self._changed[_reply_key(session.number, sequence)] = None

    def _bound_bytes(self, session: Session) -> None:
        """Drop results until the session's fit: reads first, then the oldest."""
        if session.kept_bytes <= self._limits.reply_bytes:
            return
        kept = [item for item in session.replies.items() if item[1].results]
        kept.sort(key=lambda item: (not item[1].read_only, item[1].index, item[0]))
        for sequence, reply in kept:
            if session.kept_bytes <= self._limits.reply_bytes:
                return
            session.kept_bytes -= len(reply.results or b"")
            session.replies[sequence] = msgspec.structs.replace(reply, results=None)
            self._changed[_reply_key(session.number, sequence)] = None

    # --- records -----------------------------------------------------------------------------

    def drain_changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The records that changed since the last call; None for those that are gone."""
        changed, self._changed = self._changed, {}
        return ((key, self._record_bytes(key)) for key in changed)

    def load(self, records: Reading) -> None:
        """Be what these records say; nothing else is remembered."""
        found: list[tuple[Session, bool]] = []
        for key, value in records.scan(_SESSION, _REPLY):
            assert len(key) == 9, f"a session's key is {key.hex()}"
            found.append(_session_of(value))
        by_number = {session.number: session for session, _ in found}
        for key, value in records.scan(_REPLY, bytes((_REPLY[0] + 1,))):
            session = by_number[int.from_bytes(key[1:9], "big")]
            reply = msgspec.msgpack.decode(value, type=StoredReply)
            session.replies[int.from_bytes(key[9:], "big")] = reply
            session.kept_bytes += len(reply.results or b"")
        # among equally idle ones the order decides nothing: they expire together
        for session, is_closed in sorted(found, key=lambda pair: pair[0].active_ms):
            self._by_nonce[(session.client, session.nonce)] = session
            if is_closed:
                self._remember_closed(session)
            else:
                self._open[session.number] = session
                _add(self._open_count, session.client, 1)

    def _touch(self, session: Session) -> None:
        self._changed[_session_key(session.number)] = None

    def _record_bytes(self, key: bytes) -> bytes | None:
        number = int.from_bytes(key[1:9], "big")
        session = self._open.get(number) or self._closed.get(number)
        if session is None:
            return None
        if key.startswith(_SESSION):
            return _session_bytes(session, is_closed=number in self._closed)
        reply = session.replies.get(int.from_bytes(key[9:], "big"))
        return None if reply is None else msgspec.msgpack.encode(reply)


def _session_key(number: int) -> bytes:
    return _SESSION + number.to_bytes(8, "big")


def _reply_key(number: int, sequence: int) -> bytes:
    return b"".join((_REPLY, number.to_bytes(8, "big"), sequence.to_bytes(8, "big")))


class _SessionRecord(Struct, frozen=True, array_like=True):
    """A session without its replies, which are records of their own."""

    number: int
    client: bytes
    nonce: bytes
    time_ms: int
    opened: StoredReply
    active_ms: int
    low: int
    closing: tuple[int, StoredReply] | None
    is_closed: bool


def _session_bytes(session: Session, *, is_closed: bool) -> bytes:
    return msgspec.msgpack.encode(
        _SessionRecord(
            session.number,
            session.client,
            session.nonce,
            session.time_ms,
            session.opened,
            session.active_ms,
            session.low,
            session.closing,
            is_closed,
        )
    )


def _session_of(value: bytes) -> tuple[Session, bool]:
    """A session from its record, and whether it is closed."""
    kept = msgspec.msgpack.decode(value, type=_SessionRecord)
    session = Session(
        number=kept.number,
        client=kept.client,
        nonce=kept.nonce,
        time_ms=kept.time_ms,
        opened=kept.opened,
        active_ms=kept.active_ms,
        low=kept.low,
        closing=kept.closing,
    )
    return session, kept.is_closed


def _add(counts: dict[bytes, int], client: bytes, change: int) -> None:
    count = counts.get(client, 0) + change
    assert count >= 0, "a count of sessions fell below 0"
    if count:
        counts[client] = count
    else:
        del counts[client]


def _reused(body: EnvelopeBody) -> Refused:
    return Refused(
        RefusalReason.SEQUENCE_REUSED,
        Failure(
            9,
            f"sequence {body.sequence} of session {body.session} was used for another request; "
            "nothing was executed now: give every request a sequence number of its own",
        ),
        final=True,
    )


def _collected(body: EnvelopeBody) -> Refused:
    return Refused(
        RefusalReason.SEQUENCE_COLLECTED,
        Failure(
            9,
            f"sequence {body.sequence} of session {body.session} is already answered and "
            "collected; nothing was executed now: go on with the next sequence number",
        ),
        final=True,
    )


def _ahead(body: EnvelopeBody, window: int) -> Refused:
    return Refused(
        RefusalReason.SEQUENCE_AHEAD,
        Failure(
            9,
            f"sequence {body.sequence} of session {body.session} is more than {window} above the "
            "acknowledged ones and was not executed; it will be if it is sent again after that: "
            "wait for the answers to earlier requests and acknowledge them",
        ),
        final=False,
    )
