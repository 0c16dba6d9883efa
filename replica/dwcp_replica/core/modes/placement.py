"""Which member a leader should hand over to, since it reaches a quorum much sooner. Pure.

A Raft entry costs its leader two round trips to a quorum, so that what counts of a member is the
round trip with which it reaches one. Members report that (store.modes), and may lie. A leader
does not believe more than its own links allow: whoever is `a` away from me, and I `b` from a third,
is at least |b - a| from that one, so that a claim below what completes a quorum of those is cut.

Moving is worth its pause only for a lot: SHARE and LEAST_US. How often, the caller says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dwcp_replica.core.quorum import quorum

SHARE: Final = 0.3
"""Another leader must be nearer to a quorum by this share of my round trip ..."""
LEAST_US: Final = 2000
"""... and by this many microseconds, since a near one is good enough."""


def better_leader(
    mine_us: int | None,
    links_us: Mapping[int, int | None],
    claims_us: Mapping[int, int | None],
    trust: str = "Byzantine",
) -> int | None:
    """The member that would lead best, when it is much better than I; None otherwise.

    Round trips in microseconds: mine to a quorum, mine to every other member, and what the others
    say of theirs to a quorum.
    """
    if mine_us is None:
        return None
    n = len(links_us) + 1
    believed = {
        member: max(claim, _least_us(member, links_us, quorum(n, trust) - 1))
        for member, claim in claims_us.items()
        if claim is not None and links_us.get(member) is not None
    }
    if not believed:
        return None
    best = min(believed, key=lambda member: (believed[member], member))
    gain_us = mine_us - believed[best]
    return best if gain_us > max(LEAST_US, SHARE * mine_us) else None


def _least_us(member: int, links_us: Mapping[int, int | None], others: int) -> int:
    """The round trip below which this member can not reach a quorum, as I see the links.

    I am one of the others whom it may count; whose link I do not know may be next to it.
    """
    away = links_us[member]
    assert away is not None, "who is not measured is not considered"
    bounds = [away] + [
        0 if link is None else abs(link - away)
        for other, link in links_us.items()
        if other != member
    ]
    return sorted(bounds)[others - 1]
