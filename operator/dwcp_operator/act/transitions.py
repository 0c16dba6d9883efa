"""What Events tell of the way from one status to the next; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dwcp_operator.act.events import EventReason
from dwcp_operator.resources import ClusterStatus, Condition


@dataclass(frozen=True, slots=True)
class Told:
    """One Event."""

    reason: EventReason
    note: str
    kind: Literal["Normal", "Warning"] = "Normal"


_CONDITIONS: dict[tuple[str, str], tuple[EventReason, Literal["Normal", "Warning"]]] = {
    ("Available", "True"): (EventReason.AVAILABLE, "Normal"),
    ("Available", "False"): (EventReason.UNAVAILABLE, "Warning"),
    ("Degraded", "True"): (EventReason.DEGRADED, "Warning"),
    ("Degraded", "False"): (EventReason.RECOVERED, "Normal"),
    ("QuorumAtRisk", "True"): (EventReason.QUORUM_AT_RISK, "Warning"),
    ("QuorumAtRisk", "False"): (EventReason.QUORUM_SAFE, "Normal"),
    ("ByzantineFault", "True"): (EventReason.BYZANTINE_FAULT, "Warning"),
    ("ByzantineFault", "Unknown"): (EventReason.BYZANTINE_FAULT, "Warning"),
}


def transitions(before: ClusterStatus | None, after: ClusterStatus) -> Iterator[Told]:
    """An Event for each thing that users care about, in the order in which to tell them."""
    yield from _members(before, after)
    if after.view is not None and (before is None or before.view != after.view):
        yield Told(EventReason.VIEW_CHANGED, f"view {after.view}, primary {after.primary}")
    yield from _modes(before, after)
    yield from _upgrade(before, after)
    old = {c.type: c for c in before.conditions} if before is not None else {}
    for condition in after.conditions:
        told = _condition(old.get(condition.type), condition)
        if told is not None:
            yield told


def _modes(before: ClusterStatus | None, after: ClusterStatus) -> Iterator[Told]:
    decided, known = after.last_switch, None if before is None else before.last_switch
    if decided is not None and (known is None or known.index < decided.index):
        yield Told(EventReason.MODE_DECIDED, decided.sentence())
    was = None if before is None else before.mode
    if was is not None and after.mode is not None and was != after.mode:
        yield Told(EventReason.MODE_SWITCHED, f"{after.mode} runs now, in epoch {after.epoch}")


def _upgrade(before: ClusterStatus | None, after: ClusterStatus) -> Iterator[Told]:
    known = before.upgrade if before is not None else None
    failed = after.upgrade.failed if after.upgrade is not None else None
    if failed is not None and (known is None or known.failed != failed):
        note = f"revision {failed} is given up: the members go back to what they last ran together"
        yield Told(EventReason.ROLLED_BACK, note, "Warning")


def _members(before: ClusterStatus | None, after: ClusterStatus) -> Iterator[Told]:
    was = {m.name: m.ready for m in before.members} if before is not None else {}
    suspected = {m.name: m.suspicion for m in before.members} if before is not None else {}
    for member in after.members:
        if member.suspicion is not None and suspected.get(member.name) != member.suspicion:
            note = f"{member.name} is suspected by f+1 members: {member.suspicion}"
            yield Told(EventReason.MEMBER_SUSPECTED, note, "Warning")
    for member in after.members:
        if member.ready == was.get(member.name, False):
            continue
        if member.ready:
            yield Told(EventReason.MEMBER_READY, f"{member.name} votes")
        else:
            note = f"{member.name} does not vote ({member.role})"
            yield Told(EventReason.MEMBER_NOT_READY, note, "Warning")


_REASONS: dict[str, EventReason] = {
    "Paused": EventReason.PAUSED,
    "Hibernated": EventReason.HIBERNATED,
}
"""Reasons of the condition Progressing that are told, whatever its status was."""


def _condition(old: Condition | None, new: Condition) -> Told | None:
    if new.type == "Progressing" and new.reason in _REASONS:
        known = old is not None and old.reason == new.reason
        return None if known else Told(_REASONS[new.reason], new.message)
    if new.reason == "Hibernated":
        return None  # told by Progressing: it was asked for
    if (new.type, new.status) not in _CONDITIONS or (old is not None and old.status == new.status):
        return None
    reason, kind = _CONDITIONS[new.type, new.status]
    if old is None and kind == "Normal":
        return None  # a new cluster that is not at risk is no news
    if old is None and new.type == "Available":
        return None  # it is only being made
    return Told(reason, f"{new.reason}: {new.message}", kind)
