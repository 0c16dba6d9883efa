"""A client session: operations in, signed envelopes out; replies in, true answers out.

    submit ──> waiting ──fold──> in flight ──f+1 matching──> Answered
                  │                  ├──f+1 rejected, never executed──> Declined
                  │                  └──f+1 rejected otherwise──> Unknown, session given up
                  └──cancel──> gone, never sent

An envelope is (session, sequence, acked, operations), signed once. It is repeated byte for byte
until its fate is known, so that replicas execute it at most once; what was sent is never put
into another envelope. `acked` is the highest sequence number below which every fate is known.
Nothing waits while fewer than `in_flight_max` envelopes are out; beyond that, operations
gather and share the next envelope and its signature. Envelopes of one session may be executed
in any order: who needs one operation after another waits for the first.

An envelope goes to the believed primary first; every replica answers all connections of the
client. After a time-out it goes to all, which makes backups watch the primary. The believed
primary is that of the (f+1)-th highest view seen: at least one honest replica is there.

A session is opened through the log when there is something to send; after a long idle time, or
when replicas reject it, the next one is opened. Opening is harmless to repeat: a nonce
opens at most one session.

Sans-IO: time, clock and randomness come in as arguments, so that a simulator may drive it.
After any input the shell calls `open` if `wants_session` says so, and then `poll`.

Reads may skip the log: `Reads` (reads.py) has them then, and gives back what must be ordered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from dwcp.errors import (
    RESOURCE_EXHAUSTED,
)
from dwcp.errors import Busy as BusyError
from dwcp.flight import INDETERMINATE, NEVER_EXECUTED, InFlight, Output, declined
from dwcp.matching import (
    ANSWER_DROPPED,
    Answer,
    Collector,
    History,
    Lie,
    Rejection,
    ReplicaMessage,
    ReplyChecker,
    results_of,
)
from dwcp.outcomes import Answered, Broken, Declined, Progress, TicketOutcome, Unknown, writes
from dwcp.reads import Reads
from dwcp.waiting import Group, Limits, WaitingQueue
from dwcp.wire.committed import Committed
from dwcp.wire.envelope import (
    Busy,
    Envelope,
    EnvelopeBody,
    Reply,
    envelope_signing_bytes,
)
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.operations import (
    CloseSession,
    EnvelopeFailure,
    OpenSession,
    Operation,
    Result,
    SessionOpened,
    reads_only,
)
from dwcp.wire.query import QueryReply
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier

OPEN_ATTEMPTS_MAX: Final = 3
BUSY_PATIENCE: Final = 3
"""How often a lone busy primary is asked again before the envelope goes to all."""
BUSY_MS_MIN: Final = 20
BUSY_MS_MAX: Final = 2000


class SessionCore:
    """The state of one client; one session at a time, opened again as often as it takes.

    `seed` is 16 random bytes, for reads beside the log; without it all reads go through the log.
    """

    def __init__(
        self, genesis: EpochRecord, signer: Signer, verifier: Verifier,
        limits: Limits | None = None, seed: bytes | None = None,
    ) -> None:  # fmt: skip
        self.limits = limits or Limits()
        self.lies: dict[int, Lie] = {}
        self.refused: Counter[str] = Counter()
        self._genesis = genesis
        self._genesis_hash = genesis.hash()
        self._signer = signer
        self.checker = ReplyChecker(genesis, verifier)
        self._waiting = WaitingQueue(self.limits)
        self.reads: Reads | None = None
        if seed is not None:
            self.reads = Reads(genesis, signer, self.checker, self.limits, seed)
        self._out = Output()
        self._next_ticket = 1
        self._session: int | None = None
        self._sequence = self.envelopes = 0
        self._acked = 0
        self._settled: set[int] = set()
        self._last_used_ms = 0
        self._open_attempts = 0
        self._reopen_at_ms: int | None = None
        self._wanted_ms: int | None = None
        self._in_flight: dict[bytes, InFlight] = {}
        self._history = History()
        self._connected: set[int] = set()
        self._views: dict[int, tuple[int, int]] = {}

    # --- what the shell asks ---------------------------------------------------------------

    @property
    def primary(self) -> int:
        """The member that is believed to lead."""
        checker = self.checker
        seen = [self._views.get(member, (0, 1)) for member in checker.current]
        epoch, view = sorted(seen, reverse=True)[checker.f]
        record = checker.records.current
        return checker.current[record.primary(view if epoch == record.epoch else 1)]

    def learn(self, certified: Sequence[CertifiedRecord], now_ms: int) -> str | None:
        """Follow epochs; why a record does not hold. What is under way goes to all again."""
        before = self.checker.epoch
        fault = self.checker.learn(certified)
        if self.checker.epoch > before:
            for item in self._in_flight.values():
                self._resend(item, now_ms)
        return fault

    @property
    def needed(self) -> int:
        """How many equal replies are an answer to what goes through the log."""
        return self.checker.needed

    @property
    def session(self) -> int | None:
        """The number of the open session, if there is one."""
        return self._session

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        reading = self.reads is not None and not self.reads.idle
        return not self._waiting and not self._in_flight and not reading

    def wants_session(self, now_ms: int) -> bool:
        """True when `open` must be called before anything waiting can be sent."""
        return (
            bool(self._waiting)
            and not self._usable(now_ms)
            and not any(item.session == 0 for item in self._in_flight.values())
            and (self._reopen_at_ms is None or now_ms >= self._reopen_at_ms)
        )

    def deadline_ms(self) -> int | None:
        """The time at which the next `tick` matters."""
        times = [item.resend_at_ms for item in self._in_flight.values()]
        if self._waiting and self._reopen_at_ms is not None:
            times.append(self._reopen_at_ms)
        if self._wanted_ms is not None:
            times.append(self._wanted_ms)
        if self.reads is not None and (read_ms := self.reads.deadline_ms()) is not None:
            times.append(read_ms)
        return min(times, default=None)

    def progress(self, ticket: int) -> Progress:
        """How far a ticket without an outcome has come."""
        if self.reads is not None and (progress := self.reads.progress(ticket)) is not None:
            return progress
        needed = self.checker.needed
        if ticket in self._waiting:
            return Progress(sent=False, needed=needed)
        for item in self._in_flight.values():
            if any(group.ticket == ticket for group in item.groups):
                return item.progress(needed)
        return Progress(sent=True, needed=needed)

    # --- inputs ----------------------------------------------------------------------------

    def submit(self, operations: Sequence[Operation]) -> int:
        """Queue operations for one envelope; their ticket. Raises errors.Busy, errors.Refused."""
        ticket = self._next_ticket
        fast = None if self.reads is None else self.reads.is_fast(operations)
        if self.reads is not None and fast is not None:
            self.reads.add(ticket, operations, fast=fast)
        else:
            self._waiting.add(ticket, operations)
        self._next_ticket += 1
        return ticket

    def cancel(self, ticket: int) -> bool:
        """True when the operations had not been put into an envelope, and now never will be."""
        withdrawn = self.reads is not None and self.reads.withdraw(ticket)
        return withdrawn or self._waiting.withdraw(ticket)

    def open(self, nonce: bytes, wall_ms: int, now_ms: int) -> None:
        """Ask for a new session; `nonce` is 16 fresh random bytes, `wall_ms` Unix time."""
        assert self.wants_session(now_ms), "a session is open, or being opened, or not needed"
        self._session = None
        self._reopen_at_ms = None
        self._send_new(0, 0, 0, (OpenSession(nonce, wall_ms),), (), now_ms)

    def close(self) -> None:
        """Close the session at the replicas, if nothing is in flight; the answer is not awaited."""
        if self._session is None or not self.idle:
            return
        session, self._session = self._session, None
        envelope = self._sign(session, self._sequence + 1, self._acked, (CloseSession(),))
        self._out.send.extend((member, envelope) for member in sorted(self._connected))

    def connected(self, member: int) -> None:
        """A member can be sent to: it gets what went to all, and what went to nobody."""
        self._connected.add(member)
        for item in self._in_flight.values():
            if item.broadcast or not item.sent_to:
                self._send_to(item, (member,))

    def disconnected(self, member: int, now_ms: int) -> None:
        """A member can not be sent to: what went only to it goes to all others."""
        self._connected.discard(member)
        if self.reads is not None:
            self.reads.disconnected(member)
        for item in self._in_flight.values():
            if member in item.sent_to:
                item.sent_to.remove(member)
                if not item.sent_to:
                    self._resend(item, now_ms)

    def tick(self, now_ms: int) -> None:
        """Send again what has waited too long."""
        if self.reads is not None:
            self.reads.tick(now_ms)
        for item in list(self._in_flight.values()):
            if now_ms < item.resend_at_ms:
                continue
            if item.session == 0 and now_ms - item.started_ms > self.limits.open_ms_max:
                del self._in_flight[item.envelope.digest()]
                continue
            item.collector.forget_busy()
            if item.ask_primary and self.primary in self._connected:
                item.ask_primary = False
                item.resend_at_ms = now_ms + item.wait_ms
                self._send_to(item, (self.primary,))
            else:
                self._resend(item, now_ms)

    def received(self, member: int, message: ReplicaMessage, now_ms: int) -> None:
        """Take a message that arrived over the connection to `member`."""
        if isinstance(message, Reply | Committed | QueryReply) and 0 <= member < self.checker.n:
            seen = (message.epoch, min(message.view, 2**62))
            self._views[member] = max(self._views.get(member, (0, 1)), seen)
        item = self._in_flight.get(message.request)
        collector = item.collector if item else self._history.get(message.request)
        finding = None
        if collector is not None:
            finding = collector.add(member, message)
        elif self.reads is not None:
            finding = self.reads.received(member, message)
        if finding is None:
            self.refused["unknown-request"] += 1
            return
        if finding.refused is not None:
            self.refused[finding.refused] += 1
            return
        for lie in finding.lies:
            self.lies.setdefault(lie.member, lie)
            self._out.lies.append(lie)
        if item is not None and isinstance(message, Busy):
            self._back_off(item, message, now_ms)
        elif item is not None:
            self._judge(item, now_ms)

    def poll(self, now_ms: int) -> Output:
        """Fold what waits into envelopes where there is room, and hand over all output."""
        self._poll_reads(now_ms)
        while self._waiting and self._has_room() and self._usable(now_ms):
            assert self._session is not None, "only an open session is usable"
            groups = self._waiting.fold()
            operations = tuple(op for group in groups for op in group.operations)
            self._sequence += 1
            self.envelopes += 1
            self._send_new(self._session, self._sequence, self._acked, operations, groups, now_ms)
        # a read that is to be ordered after all may be the first thing that needs a session
        self._wanted_ms = now_ms if self.wants_session(now_ms) else None
        out, self._out = self._out, Output()
        return out

    def _poll_reads(self, now_ms: int) -> None:
        if self.reads is None:
            return
        out = self.reads.poll(now_ms, self._connected)
        self._out.send += out.send
        self._out.outcomes += out.answers
        for group in out.ordered:
            try:
                self._waiting.add(group.ticket, group.operations)
            except BusyError as busy:
                self._out.outcomes.append((group.ticket, Declined(RESOURCE_EXHAUSTED, str(busy))))

    # --- sending ---------------------------------------------------------------------------

    def _has_room(self) -> bool:
        return (
            len(self._in_flight) < self.limits.in_flight_max
            and self._sequence - self._acked < self.limits.window
        )

    def _usable(self, now_ms: int) -> bool:
        """A session is open and was used lately enough that the replicas still know it."""
        if self._session is None:
            return False
        busy = any(item.session == self._session for item in self._in_flight.values())
        return busy or now_ms - self._last_used_ms <= self.limits.session_idle_ms_max

    def _sign(
        self, session: int, sequence: int, acked: int, operations: tuple[Operation, ...]
    ) -> Envelope:
        assert session == 0 or acked < sequence, f"sequence {sequence} is acknowledged already"
        body = msgspec.msgpack.encode(EnvelopeBody(session, sequence, acked, operations))
        sig = self._signer.sign(envelope_signing_bytes(self._genesis_hash, body))
        return Envelope(self._signer.public_key, body, sig)

    def _send_new(
        self,
        session: int,
        sequence: int,
        acked: int,
        operations: tuple[Operation, ...],
        groups: tuple[Group, ...],
        now_ms: int,
    ) -> None:
        envelope = self._sign(session, sequence, acked, operations)
        request = envelope.digest()
        assert request not in self._in_flight, "two envelopes are the same: was a nonce repeated?"
        wait_ms = self.limits.retry_ms
        read_only = all(map(reads_only, operations))
        item = InFlight(
            session=session,
            sequence=sequence,
            envelope=envelope,
            groups=groups,
            collector=Collector(self.checker, request, envelope.sig, read_only=read_only),
            started_ms=now_ms,
            resend_at_ms=now_ms + wait_ms,
            wait_ms=wait_ms,
        )
        self._in_flight[request] = item
        self._last_used_ms = now_ms
        if self.primary in self._connected:
            self._send_to(item, (self.primary,))
        else:
            self._broadcast(item)

    def _resend(self, item: InFlight, now_ms: int) -> None:
        item.wait_ms = min(item.wait_ms * 2, self.limits.retry_ms_max)
        item.resend_at_ms = now_ms + item.wait_ms
        self._broadcast(item)

    def _broadcast(self, item: InFlight) -> None:
        item.broadcast = True
        self._send_to(item, sorted(self._connected))

    def _send_to(self, item: InFlight, members: Sequence[int]) -> None:
        item.sent_to.update(members)
        self._out.send.extend((member, item.envelope) for member in members)

    # --- judging ---------------------------------------------------------------------------

    def _judge(self, item: InFlight, now_ms: int) -> None:
        if (answer := item.collector.answer) is not None:
            self._settle(item, now_ms)
            if item.session == 0:
                self._opened(answer, now_ms)
            else:
                self._answered(item, answer, now_ms)
        elif (rejection := item.collector.rejection) is not None:
            self._settle(item, now_ms)
            if item.session == 0:
                self._open_failed(declined(rejection), now_ms)
            else:
                self._rejected(item, rejection, now_ms)

    def _settle(self, item: InFlight, now_ms: int) -> None:
        """The fate is known: free its place, acknowledge, and keep its collector for a while."""
        del self._in_flight[item.collector.request]
        self._last_used_ms = now_ms
        if item.session == self._session:
            self._settled.add(item.sequence)
            while self._acked + 1 in self._settled:
                self._acked += 1
                self._settled.remove(self._acked)
        self._history.add(item.collector)

    def _opened(self, answer: Answer, now_ms: int) -> None:
        results = results_of(answer.results)
        match results:
            case (SessionOpened(session),) if session > 0:
                self._session, self._sequence, self._acked = session, 0, 0
                self._settled.clear()
                self._open_attempts = 0
            case (EnvelopeFailure(code, message),):
                self._open_failed(Declined(code, f"no session could be opened: {message}"), now_ms)
            case _:
                self._fail_waiting(Broken(f"opening a session was answered by {results!r:.200}"))

    def _open_failed(self, outcome: Declined, now_ms: int) -> None:
        """Try again a few times: a request that was long under way carries an old time."""
        self._open_attempts += 1
        if self._open_attempts < OPEN_ATTEMPTS_MAX:
            self._reopen_at_ms = now_ms + self.limits.retry_ms // 5 * 2**self._open_attempts
        else:
            self._open_attempts = 0
            self._fail_waiting(outcome)

    def _fail_waiting(self, outcome: TicketOutcome) -> None:
        self._out.outcomes.extend((ticket, outcome) for ticket in self._waiting.drain())

    def _answered(self, item: InFlight, answer: Answer, now_ms: int) -> None:
        results = results_of(answer.results)
        count = sum(len(group.operations) for group in item.groups)
        match results:
            case (EnvelopeFailure(code, message),):
                self._refused_whole(item, code, message, now_ms)
            case tuple() if len(results) == count:
                self._share_out(item, answer, results)
            case _:
                got = "bytes that are no results" if results is None else f"{len(results)} results"
                self._finish(item, Broken(f"{count} operations were answered by {got}"))

    def _share_out(self, item: InFlight, answer: Answer, results: tuple[Result, ...]) -> None:
        """Give every group its results, and the revision after its own last operation."""
        revision, end = answer.revision, len(results)
        outcomes: list[tuple[int, TicketOutcome]] = []
        for group in reversed(item.groups):
            start = end - len(group.operations)
            own = results[start:end]
            outcomes.append((group.ticket, Answered(answer.index, revision, own)))
            revision -= sum(map(writes, own))
            end = start
        self._out.outcomes.extend(reversed(outcomes))

    def _refused_whole(self, item: InFlight, code: int, message: str, now_ms: int) -> None:
        """The state machine did not execute the envelope at this index: perhaps at another."""
        known = code not in INDETERMINATE
        self._finish(item, Declined(code, message) if known else Unknown(message))
        if code != ANSWER_DROPPED:
            self._give_up_session(item, now_ms)

    def _rejected(self, item: InFlight, rejection: Rejection, now_ms: int) -> None:
        known = rejection.reason in NEVER_EXECUTED
        unknown = Unknown(f"{rejection.message:.500} ({rejection.reason})")
        self._finish(item, declined(rejection) if known else unknown)
        self._give_up_session(item, now_ms)

    def _give_up_session(self, item: InFlight, now_ms: int) -> None:
        """Go on in a new session; ask at once what became of the other envelopes of this one.

        Also when an envelope was refused for itself: acknowledgements never pass a sequence
        number that was not executed, so the old session would fill its window.
        """
        if item.session != self._session:
            return
        self._session = None
        for other in self._in_flight.values():
            self._resend(other, now_ms)

    def _finish(self, item: InFlight, outcome: TicketOutcome) -> None:
        self._out.outcomes.extend((group.ticket, outcome) for group in item.groups)

    def _back_off(self, item: InFlight, message: Busy, now_ms: int) -> None:
        """Wait when f+1 are busy, or the only one that was asked is; f liars delay nothing."""
        collector = item.collector
        item.was_busy |= collector.busy
        if (busy_ms := collector.busy_ms) is not None:
            item.resend_at_ms = now_ms + _clamp(max(busy_ms, item.wait_ms))
            collector.forget_busy()
        elif not item.broadcast and item.sent_to <= collector.busy:
            item.busy_count += 1
            if item.busy_count > BUSY_PATIENCE:
                collector.forget_busy()
                self._resend(item, now_ms)
            else:
                item.ask_primary = True
                item.resend_at_ms = now_ms + _clamp(message.retry_after_ms)


def _clamp(busy_ms: int) -> int:
    return max(BUSY_MS_MIN, min(busy_ms, BUSY_MS_MAX))
