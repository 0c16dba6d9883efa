"""What a session has under way, and what it asks of its shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dwcp.errors import FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED
from dwcp.matching import ANSWER_DROPPED, Collector, Lie, Rejection
from dwcp.outcomes import Declined, Progress, TicketOutcome
from dwcp.waiting import Group
from dwcp.wire.envelope import Envelope
from dwcp.wire.query import Query

NEVER_EXECUTED: Final = {
    "malformed": INVALID_ARGUMENT,
    "too-large": INVALID_ARGUMENT,
    "oversize": INVALID_ARGUMENT,
    "signature": PERMISSION_DENIED,
    "unknown-client": PERMISSION_DENIED,
}
"""Reasons of Rejected that rest on the envelope's bytes alone, with the gRPC code for each."""

INDETERMINATE: Final = {5, 9, ANSWER_DROPPED}
"""Codes of an EnvelopeFailure after which the envelope may have been executed all the same: the
session is gone, the sequence number is used or too far ahead, the answer is dropped."""


@dataclass(slots=True)
class Output:
    """What the shell must do, in field order."""

    send: list[tuple[int, Envelope | Query]] = field(default_factory=list)
    outcomes: list[tuple[int, TicketOutcome]] = field(default_factory=list)
    lies: list[Lie] = field(default_factory=list)


@dataclass(slots=True)
class InFlight:
    """An envelope whose fate is not known yet; `session` 0 is the one that opens a session."""

    session: int
    sequence: int
    envelope: Envelope
    groups: tuple[Group, ...]
    collector: Collector
    started_ms: int
    resend_at_ms: int
    wait_ms: int
    sent_to: set[int] = field(default_factory=set)
    broadcast: bool = False
    ask_primary: bool = False
    busy_count: int = 0
    was_busy: set[int] = field(default_factory=set)

    def progress(self, needed: int) -> Progress:
        """How far it has come; `needed` equal replies answer it."""
        collector = self.collector
        return Progress(
            sent=True,
            matching=collector.matching,
            needed=needed,
            heard=frozenset(collector.heard),
            busy=frozenset(self.was_busy),
            rejected=collector.rejected,
        )


def declined(rejection: Rejection) -> Declined:
    """The outcome of what was rejected and never executed."""
    code = NEVER_EXECUTED.get(rejection.reason, FAILED_PRECONDITION)
    return Declined(code, f"{rejection.message:.500} ({rejection.reason})")
