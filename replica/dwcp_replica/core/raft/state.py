"""What the Raft driver knows besides the core: its role, its campaign, its followers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dwcp.wire.peer import Certificate, Transfer, VoteRequest
from dwcp_replica.core.chain import Point, Slot
from dwcp_replica.core.effects import PanicReason, TermRecord, ViewChangeReason
from dwcp_replica.core.raft.progress import Progress

Draw = Callable[[int], int]
"""A random number from 0 up to, not including, its argument; given by the shell."""


@dataclass(slots=True)
class Campaign:
    """My standing for `term`, with the log that ends at `last`.

    While `pre`, `grants` holds who would vote for me; then the signatures of who did.
    """

    term: int
    last: Point
    reason: ViewChangeReason
    transfer: Transfer | None
    pre: bool = True
    grants: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Staged:
    """The chain that the leader of `term` started from, as far as it is here: above `above`."""

    term: int
    above: int
    slots: list[Slot] = field(default_factory=list)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read that waits until a quorum has answered heartbeat `beat`."""

    token: bytes
    index: int
    beat: int


class RaftState:
    """The driver's memory. Of it only `term_record` is durable; the rest begins anew."""

    def __init__(self, draw: Draw | None) -> None:
        self._draw = draw
        self.term_record: TermRecord | None = None
        self.campaign: Campaign | None = None
        self.staged: Staged | None = None
        self.waiting: dict[int, VoteRequest] = {}
        self.heard_ms: int | None = None
        """When the leader of the present term was last heard."""
        self.waiting_ms = 0
        self.patience_ms = 0
        """How long from `waiting_ms` on a leader may stay silent before this replica stands."""
        self.overdue_ms: int | None = None
        """When to stand against a leader that is heard, but does not do its work."""
        self.terms: dict[int, int] = {}
        """The terms that others say they are in."""
        self.panicked: set[tuple[int, PanicReason]] = set()
        self.begun_ms = 0
        """Since when this replica takes part in the epoch, in this life."""
        # of a leader
        self.leading = 0
        self.progress: dict[int, Progress] = {}
        self.answered_ms: dict[int, int] = {}
        self.beat = 0
        self.beat_ms = 0
        self.news: list[Certificate] = []
        self.transfer_to: int | None = None
        self.transfer_until_ms = 0
        self.transfer_told = False
        self.reads: list[PendingRead] = []
        # for membership changes: receive entries, are not counted
        self.learners: frozenset[int] = frozenset()

    def draw(self, bound: int) -> int:
        """A random number in [0, bound)."""
        assert self._draw is not None, "Raft needs a source of random numbers: give `draw`"
        drawn = self._draw(bound)
        assert 0 <= drawn < bound, f"drew {drawn}, outside [0, {bound})"
        return drawn
