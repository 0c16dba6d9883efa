"""What a replica knows about the end of its epoch: triggers, SEALs, and the slot's state."""

from __future__ import annotations

from dataclasses import dataclass, field

from dwcp.wire.epochs import (
    Panic,
    Seal,
    SlotCertificate,
    SlotChange,
    SlotPhase,
    SlotProposal,
    SlotValue,
    SlotVote,
)
from dwcp.wire.switch import AdminSwitch, SwitchRequest
from dwcp_replica.core.chain import Slot
from dwcp_replica.core.recover import Statement

VIEWS_KEPT = 8
"""Views of the slot whose votes are kept for each member: the highest ones."""


class SlotVotes:
    """Verified votes of one phase, by member and view; the newest few of each member."""

    def __init__(self) -> None:
        self._votes: dict[int, dict[int, SlotVote]] = {}

    def add(self, vote: SlotVote) -> bool:
        """Keep a vote; False when this member has voted in this view before."""
        own = self._votes.setdefault(vote.member, {})
        if vote.view in own:
            return False
        own[vote.view] = vote
        while len(own) > VIEWS_KEPT:
            del own[min(own)]
        return True

    def of(self, member: int, view: int) -> SlotVote | None:
        """A member's vote in a view."""
        return self._votes.get(member, {}).get(view)

    def matching(self, view: int, value: bytes) -> list[SlotVote]:
        """The votes for a value in a view, by member."""
        found = (own.get(view) for _, own in sorted(self._votes.items()))
        return [vote for vote in found if vote is not None and vote.value == value]


@dataclass(slots=True)
class SlotState:
    """The slot of one epoch, as one member sees it.

    `view` is the one I am in or ask for; `change` my VIEW-CHANGE for it, None when I came there
    otherwise. `voted` is what I accepted last: view and digest. `starts` are the entries of each
    value's start history that my log does not hold.
    """

    view: int = 0
    change: SlotChange | None = None
    voted: tuple[int, bytes] | None = None
    prepared: SlotCertificate | None = None
    proposal: SlotProposal | None = None
    values: dict[bytes, SlotValue] = field(default_factory=dict)
    starts: dict[bytes, list[Slot]] = field(default_factory=dict)
    wanted: set[bytes] = field(default_factory=set)
    votes: dict[SlotPhase, SlotVotes] = field(
        default_factory=lambda: {"slot-prepare": SlotVotes(), "slot-commit": SlotVotes()}
    )
    changes: dict[int, SlotChange] = field(default_factory=dict)
    waiting: dict[int, tuple[SlotProposal, int]] = field(default_factory=dict)
    committed: tuple[int, bytes] | None = None
    outcome: tuple[int, bytes] | None = None
    timer_ms: int | None = None
    gathering_ms: int | None = None


@dataclass(slots=True)
class Ending:
    """How the epoch ends: reasons that gather, SEALs that arrive, the slot.

    `statements` are what the valid SEALs state, by member; `worthless` the members whose SEAL
    shows an entry that nobody can produce.
    """

    panics: dict[int, Panic] = field(default_factory=dict)
    requests: dict[int, SwitchRequest] = field(default_factory=dict)
    orders: list[AdminSwitch] = field(default_factory=list)
    seal: Seal | None = None
    seals: dict[int, Seal] = field(default_factory=dict)
    statements: dict[int, Statement] = field(default_factory=dict)
    stuck: dict[int, Seal] = field(default_factory=dict)
    worthless: set[int] = field(default_factory=set)
    slot: SlotState = field(default_factory=SlotState)
