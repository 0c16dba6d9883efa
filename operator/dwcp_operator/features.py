"""Which parts of mode detection are switched on, and on what share of the members.

A part is local to a member, so that a share of them can have it first: a feature at 25 % of four
members runs on one. What the members decide together, they decide alike whatever runs where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from dwcp_operator.fields import Model

Percent = Annotated[int, Field(ge=0, le=100)]


class Features(Model):
    """Parts of mode detection, each on a share of the members, in percent; a change restarts
    members one at a time."""

    measuring: Percent = 100
    """Members that measure their links."""
    reporting: Percent = 100
    """Members that report what they measured through the log. Fewer than a quorum of reports
    decide nothing."""
    switching: Percent = 100
    """Members that ask for the protocol of the decided mode. f of them change nothing, so that one
    can see in status.lastSwitch what would happen first."""
    placing: Percent = 100
    """Members that, as leaders under Raft, hand over to one that reaches a quorum much sooner."""
    first_protocol: bool = False
    """Go back to the protocol that the cluster was made with, and stay there, whatever is decided;
    what an administrator forces still stands above it."""

    def words(self, place: int, n: int) -> tuple[str, ...]:
        """What the member in this place, from 0, of n has, in the words of the replica."""
        return tuple(self._words(place, n))

    def _words(self, place: int, n: int) -> Iterator[str]:
        shares = {
            "measure": self.measuring, "report": self.reporting, "switch": self.switching,
            "place": self.placing,
        }  # fmt: skip
        for word, percent in shares.items():
            if place * 100 < percent * n:
                yield word
        if self.first_protocol:
            yield "first-protocol"

    def arguments(self, place: int, n: int) -> list[str]:
        """What the command line of that member says more; nothing where all is as usual."""
        words = self.words(place, n)
        return [] if words == USUAL else ["--features", ",".join(words) or "none"]


USUAL = Features().words(0, 1)
"""What a member has without any word about it."""
