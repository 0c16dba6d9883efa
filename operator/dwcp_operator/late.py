"""For how long members have been failing: written down in the status, so that it outlives us.

A member fails when it does not vote in the agreed view, or is far behind. Its time counts only
while the others have a quorum: after an outage of all, each begins anew, though not after a change
of the view. And whoever has only just begun to look gives everybody a while to come back before
anything is made of what it has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from dwcp_operator.conditions import Situation
from dwcp_operator.plan.leaving import is_sound
from dwcp_operator.plan.observed import Observed
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.resources import ClusterStatus

GRACE_S: Final = 60.0
"""So long a quorum must have been seen before a member is replaced for what is remembered of it,
and so long it may be gone before all of that is forgotten."""


def failing_since(seen: Situation, before: ClusterStatus | None, now: str) -> Mapping[str, str]:
    """Since when each failing member fails, RFC 3339, for the status that is being written."""
    if not seen.begun or seen.desired.paused or seen.desired.hibernate:
        return {}
    good = set(seen.good)
    members = before.members if before is not None else ()
    known = {m.name: m.failing_since for m in members if m.failing_since is not None}
    if len(good) < quorum(seen.n) and not seen.observed.joining:
        return known if _lost_for_s(before, now) < GRACE_S else {}
    return {
        name: known.get(name) or now
        for name in seen.desired.members
        if not is_sound(seen.observed.member(name), seen.agreed, good)
    }


def _lost_for_s(before: ClusterStatus | None, now: str) -> float:
    """For how long the status has said that no quorum votes; 0 while it says that one does."""
    found = [c for c in (before.conditions if before is not None else ()) if c.type == "Available"]
    since = next((c.last_transition_time for c in found if c.status == "False"), now)
    return _seconds_between(since, now)


def with_failing(
    observed: Observed, status: ClusterStatus | None, now: str, watched_s: float
) -> Observed:
    """What is seen, with the time for which members fail by a status that was written before.

    `watched_s`: so long a quorum has been seen without a break. A change that has begun goes on.
    """
    after_s = GRACE_S if not observed.joining else 0.0
    known = {m.name: m.failing_since for m in status.members} if status is not None else {}
    members = tuple(
        replace(m, failing_for_ms=_ms_between(since, now, watched_s, after_s))
        if (since := known.get(m.name)) is not None
        else m
        for m in observed.members
    )
    return replace(observed, members=members)


def _ms_between(since: str, now: str, watched_s: float, after_s: float) -> int:
    """Milliseconds that a member has been failing; what is remembered counts after the grace."""
    span_s = _seconds_between(since, now)
    believed_s = span_s if watched_s >= after_s else min(span_s, watched_s)
    return max(0, int(believed_s * 1000))


def _seconds_between(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
