"""What one replica knows of its links, and the network with which it reaches a quorum.

A link has two ends, so that f liars would colour f * n links if single links were believed.
Each replica therefore reports one figure per quantity: that of the link which completes a
quorum around it. The cluster takes the median of the reports. With q of n reports in, q > 2f,
the lower median of each quantity lies between two honest reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from dwcp_replica.core.quorum import quorum


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a link as its owner measured it; None is unknown, and never a guess.

    rtt_us and jitter_us are microseconds, loss is the share of segments sent again (0 to 1),
    rate_bps is bits per second that were delivered.
    """

    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """The network with which a quorum is reached; the fields and units of Link."""

    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None


HIGHER_IS_BETTER = frozenset({"rate_bps"})


def reach(links: Sequence[Link], n: int, trust: str = "Byzantine") -> Reach:
    """What completes a quorum around the replica that owns `links` (to the n-1 others).

    A quantity that is known for fewer links than a quorum needs is unknown.
    """
    others = quorum(n, trust) - 1
    found: dict[str, int | float | None] = {}
    for field in fields(Link):
        known = [value for link in links if (value := getattr(link, field.name)) is not None]
        known.sort(reverse=field.name in HIGHER_IS_BETTER)
        enough = 0 < others <= len(known)
        found[field.name] = known[others - 1] if enough else None
    return Reach(**found)  # type: ignore[arg-type]  # names and types are those of Link


def median(reports: Sequence[Reach], n: int, trust: str = "Byzantine") -> Reach:
    """The cluster's network: the lower median of each quantity over the replicas' reports.

    Replicas that do not know a quantity abstain from it; fewer than a quorum of opinions make
    it unknown, since f of them may be lies.
    """
    needed = quorum(n, trust)
    found: dict[str, int | float | None] = {}
    for field in fields(Reach):
        known = sorted(v for report in reports if (v := getattr(report, field.name)) is not None)
        found[field.name] = known[(len(known) - 1) // 2] if len(known) >= needed else None
    return Reach(**found)  # type: ignore[arg-type]  # names and types are those of Reach
