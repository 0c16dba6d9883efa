"""Who is to leave the members, and why.

At once: whose volume is gone, and who is proven to lie. After `replace_after_ms`: who does not
vote or lags for good, whatever the cause (its node is gone, its disk is bound to that node, its
process ends again and again), as long as the others have a quorum: where there is none, who fails
can not be told from who is only unseen. One after the other, while all are well: those whose
volumes are of another class than the resource asks for. And the newest, when there are to be
fewer.

A member that runs a revision which not all have run together is the roll's business: it may fail
because of that revision, and its successor would fail too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from dwcp_operator.plan.agreement import Agreement, agreement, good_members, verified_reports
from dwcp_operator.plan.observed import Desired, MemberObserved, Observed, Volume
from dwcp_operator.plan.quorum import quorum

LAG_MAX: Final = 100
"""Log entries behind what f+1 members know to be final, with which a member has caught up."""


class Why(StrEnum):
    """Why a member leaves."""

    VOLUME_LOST = "its volume is lost"
    LIES = "it is proven to lie"
    FAILING = "it has not voted, or has lagged, for longer than spec.replaceAfter"
    STORAGE_CLASS = "its volume is of another StorageClass"
    FEWER = "there are to be fewer members"


def is_sound(member: MemberObserved, agreed: Agreement, good: set[str]) -> bool:
    """True for a member that votes in the agreed view and is not far behind."""
    report = member.report
    if report is None or member.name not in good:
        return False
    return agreed.final_index - report.applied_index <= LAG_MAX


def leaving(desired: Desired, observed: Observed, present: tuple[str, ...]) -> Mapping[str, Why]:
    """Who of the present members is to leave, in their order, broken ones first."""
    reports = verified_reports(observed)
    agreed = agreement(reports, len(present))
    good = good_members(present, reports, agreed)
    members = [observed.member(name) for name in present]
    # A change that has begun is not dropped because one look found no quorum.
    may_judge = len(good) >= quorum(len(present)) or bool(observed.joining)
    found: dict[str, Why] = {}
    for member in members:
        if member.volume is Volume.ABSENT:
            found[member.name] = Why.VOLUME_LOST
        elif member.name in agreed.faulty:
            found[member.name] = Why.LIES
        elif may_judge and _has_failed(desired, member) and not is_sound(member, agreed, good):
            found[member.name] = Why.FAILING
    sound = [name for name in present if name not in found]
    surplus = len(sound) - desired.count
    if surplus > 0:
        found |= dict.fromkeys(sound[-surplus:], Why.FEWER)
    if not found and len(present) == desired.count:
        # As in a roll: clients may remember for a while where the ones before were.
        pause_ms = desired.rolling.steady_ms
        steady = all(is_sound(m, agreed, good) and m.steady_for_ms >= pause_ms for m in members)
        if (steady and desired.rolling.settled) or observed.joining:
            found |= _misplaced(desired, members, agreed)
    return found


def _has_failed(desired: Desired, member: MemberObserved) -> bool:
    """True for one that has been failing for long, and not for what is being rolled out."""
    if not 0 < desired.replace_after_ms <= member.failing_for_ms:
        return False
    return desired.rolling.settled or not member.running


def _misplaced(
    desired: Desired, members: list[MemberObserved], agreed: Agreement
) -> dict[str, Why]:
    """One whose volume is of another class; who leads comes last."""
    wanted = desired.storage_class
    other = [m.name for m in members if wanted and m.storage_class not in (None, wanted)]
    other.sort(key=lambda name: name == agreed.primary)
    return dict.fromkeys(other[:1], Why.STORAGE_CLASS)
