"""Changing who the members are: learners first, then one epoch that swaps the whole set.

Who the members are stands in the newest epoch record and nowhere else (docs/members.md). This
decides who they are to be: as many as the resource asks for, without those that are lost or proven
to lie, and with new ones under names that nobody had. The names of those that are to join are
written into the status before anything is made for them; all else is looked up. Who leaves, and
why, is decided in leaving.py.

    more wanted, or one is lost --> volumes, processes --> invited: they learn --> announced
      --> all have caught up --> ordered --> the record names them --> former members are removed

A member is replaced by growing and shrinking in one step: the others vote on, and the one that is
gone is never waited for. Nothing is ordered unless a quorum of the present members votes and a
quorum of those to be is sound, so that no change can take a cluster below what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dwcp_operator.plan.agreement import Agreement, agreement, good_members, verified_reports
from dwcp_operator.plan.leaving import LAG_MAX, Why, leaving
from dwcp_operator.plan.observed import Desired, MemberObserved, Observed, Volume
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.plan.steps import (
    AnnounceMembers,
    CreateVolume,
    InviteMember,
    OrderMembers,
    RemoveMember,
    StartMember,
    Step,
    WaitFor,
    WaitReason,
)


@dataclass(frozen=True, slots=True)
class Change:
    """Who leaves and why, who joins, and all members to be, in the order that they are to have."""

    leaving: Mapping[str, Why]
    joining: tuple[str, ...]
    members: tuple[str, ...]


def wanted_change(desired: Desired, observed: Observed) -> Change | None:
    """The change that is to be made; None when the members are as they should be."""
    known = observed.membership
    begun = observed.genesis is not None and observed.genesis.published
    if not begun or known is None or not known.is_current or desired.hibernate or not desired.count:
        return None
    present = known.members
    going = leaving(desired, observed, present)
    need = desired.count - (len(present) - len(going))
    if not going and not need:
        return None
    joining = _joining(desired, observed, need)
    places = iter(joining)
    kept = [name if name not in going else next(places, None) for name in present]
    members = (*(name for name in kept if name is not None), *places)
    return Change(going, joining, members)


def _joining(desired: Desired, observed: Observed, need: int) -> tuple[str, ...]:
    """Those that were to join already, then names above all that were ever used."""
    known = observed.membership
    assert known is not None, "asked for"
    waiting = [
        m.name
        for m in observed.joining
        if m.name not in known.used and not _is_given_up(desired, m)
    ][:need]
    prefix = f"{desired.cluster}-"
    taken = {*known.used, *(m.name for m in observed.joining)}
    numbers = [int(n.removeprefix(prefix)) for n in taken if n.removeprefix(prefix).isdecimal()]
    first = max(numbers, default=-1) + 1
    return (*waiting, *(f"{prefix}{first + i}" for i in range(need - len(waiting))))


def _is_given_up(desired: Desired, member: MemberObserved) -> bool:
    """True for a learner that has not answered for long, such as one whose node is gone too."""
    return member.report is None and 0 < desired.replace_after_ms <= member.failing_for_ms


def change(desired: Desired, observed: Observed) -> Iterator[Step]:
    """The steps towards the members that are wanted; then former ones are removed."""
    wanted = wanted_change(desired, observed)
    if wanted is None:
        yield from _clean_up(observed, ())
        return
    yield from _clean_up(observed, wanted.joining)
    seen = {member.name: member for member in observed.joining}
    if not wanted.joining or all(name in seen for name in wanted.joining):
        joining = [seen[name] for name in wanted.joining]
        yield from _advance(desired, wanted, observed, joining)
    else:
        yield WaitFor(WaitReason.LEARNERS, wanted.joining)  # their names are being written down


def _advance(
    desired: Desired, wanted: Change, observed: Observed, joining: list[MemberObserved]
) -> Iterator[Step]:
    known = observed.membership
    assert known is not None, "a change is wanted"
    reports = verified_reports(observed)
    agreed = agreement(reports, len(known.members))
    good = good_members(known.members, reports, agreed)
    waits = []
    for member in joining:
        if member.volume is Volume.ABSENT:
            yield CreateVolume(member.name)
        if not member.running:
            yield StartMember(member.name)
        elif _is_outdated(desired, member):
            yield RemoveMember(member.name)  # what it was made from may be why it does not learn
        elif member.identity is not None and member.report is None:
            yield InviteMember(member.name)
        if not _has_caught_up(member, agreed):
            waits.append(member.name)
    learners = tuple(m.name for m in joining if m.report is not None)
    if waits and len(learners) == len(joining):
        yield AnnounceMembers(wanted.members)
    if waits:
        yield WaitFor(WaitReason.LEARNERS, tuple(waits))
    elif _is_safe(wanted, known.members, good):
        yield OrderMembers(wanted.members)
    else:
        yield WaitFor(WaitReason.QUORUM, wanted.members)


def _is_outdated(desired: Desired, member: MemberObserved) -> bool:
    """True for a learner that does not learn and was made from what is no longer asked for."""
    return member.report is None and member.revision not in ("", desired.revision)


def _has_caught_up(member: MemberObserved, agreed: Agreement) -> bool:
    report = member.report
    return report is not None and agreed.final_index - report.applied_index <= LAG_MAX


def _is_safe(wanted: Change, present: tuple[str, ...], good: set[str]) -> bool:
    """A quorum votes on it, and a quorum of the members to be is sound."""
    if len(good) < quorum(len(present)):
        return False
    sound = [name for name in wanted.members if name in good or name in wanted.joining]
    return len(sound) >= quorum(len(wanted.members))


def is_under_way(step: Step) -> bool:
    """True for a step of a change; stopping who is no member disturbs nobody."""
    return not isinstance(step, RemoveMember)


def _clean_up(observed: Observed, joining: tuple[str, ...]) -> Iterator[Step]:
    """Stop who is no member: a former one once a quorum of the members holds the epoch's start."""
    known = observed.membership
    if known is None or not known.is_current:
        return
    reports = verified_reports(observed)
    settled = [n for n in known.members if n in reports and reports[n].settled]
    has_settled = known.epoch == 0 or len(settled) >= quorum(len(known.members))
    abandoned = [m.name for m in observed.joining if m.running and m.name not in joining]
    for name in (*observed.former, *abandoned):
        if has_settled or name not in known.used:
            yield RemoveMember(name)
        else:
            yield WaitFor(WaitReason.SETTLED, (name,))
