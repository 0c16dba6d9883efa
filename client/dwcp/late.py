"""What to say, and what to check, when a deadline has passed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from dwcp.outcomes import Progress
from dwcp.wire.records import Member


class Reach(Protocol):
    """A connection to a member, as far as it is told of here."""

    member: int
    up: bool
    problem: str


def what_is_missing(
    names: Sequence[Member], progress: Progress, connections: Iterable[Reach], deadline_ms: int
) -> str:
    """How far a request has come, in words; members are told by name."""
    parts = [f"no answer within {deadline_ms / 1000:g} s"]
    if progress.sent:
        parts.append(f"{progress.matching} of the {progress.needed} matching replies needed")
    for word, members in (
        ("answered", progress.heard),
        ("busy", progress.busy),
        ("rejected by", progress.rejected),
    ):
        if members:
            parts.append(f"{word}: {', '.join(names[m].name for m in sorted(members))}")
    down = [f"{names[c.member].name} ({c.problem})" for c in connections if not c.up]
    if down:
        parts.append(f"not connected: {', '.join(down)}")
    return "; ".join(parts)
