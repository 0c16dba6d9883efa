"""The rolling change: members are brought to another revision one at a time.

Nobody is taken down unless the signed answers of the others, of which f+1 agree on the view, show
a quorum that votes without it. Members that vote by nobody's word come first: they have nothing
to lose, and a change that mends them must not wait for them. The primary comes last; stopping it
makes it hand over, so that a whole roll moves the lead once. The next member waits until the one
before is back: it votes in the agreed view, has caught up, and has been ready for a while, since
whoever knows its old address may remember it so long. When one does not come back in time,
the roll stops where it is.

It remembers nothing: what a member was made from stands on the member.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dwcp_operator.plan.agreement import Agreement, agreement, good_members, verified_reports
from dwcp_operator.plan.backoff import restart
from dwcp_operator.plan.observed import Desired, GenesisHeld, MemberObserved, Observed, Volume
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.plan.steps import ReportRollFailed, RollMember, Step, WaitFor, WaitReason

LAG_MAX: Final = 100
"""Log entries behind what f+1 members know to be final, with which a member counts as back."""


def is_begun(genesis: GenesisHeld | None) -> bool:
    """True once the genesis is published: from then on votes may be lost."""
    return genesis is not None and genesis.published


def roll(desired: Desired, observed: Observed) -> Iterator[Step]:
    """The next step of the roll, or what it waits for; nothing when all is as wanted."""
    if not desired.revision:
        return
    members = tuple(observed.member(name) for name in desired.members)
    outdated = tuple(m for m in members if _is_outdated(desired, m))
    if not is_begun(observed.genesis):
        # There are no votes to lose, and no way to ask: what was wrong is made anew at once.
        yield from (RollMember(m.name) for m in outdated)
        return
    reports = verified_reports(observed)
    agreed = agreement(reports, len(members))
    others = tuple(m for m in members if m not in outdated)
    busy = tuple(m for m in others if _is_coming(m, agreed))
    late = [m for m in busy if m.running and m.unready_for_ms >= desired.rolling.deadline_ms]
    if late and (outdated or not desired.rolling.settled):
        yield ReportRollFailed(late[0].name, desired.revision)
    elif outdated and busy:
        yield WaitFor(WaitReason.ROLLED, tuple(m.name for m in busy))
    elif outdated:
        good = good_members(desired.members, reports, agreed)
        yield _next(desired, outdated, agreed, good, _young(desired, others))


def _next(
    desired: Desired,
    outdated: tuple[MemberObserved, ...],
    agreed: Agreement,
    good: set[str],
    young: tuple[str, ...],
) -> Step:
    """One member, or the reason why it is none of them."""
    names = tuple(m.name for m in outdated)
    idle = [m.name for m in outdated if not m.serving and m.name not in good]
    if idle:
        return RollMember(idle[0])
    if young:
        return WaitFor(WaitReason.ROLLED, young)
    if desired.rolling.opens_in_ms > 0:
        return WaitFor(WaitReason.WINDOW, names, desired.rolling.opens_in_ms)
    # Who votes comes after who does not, and the primary last: if the first may not go, none may.
    first = min(names, key=lambda name: (name in good, name == agreed.primary, names.index(name)))
    if len(good - {first}) >= quorum(len(desired.members)):
        return RollMember(first)
    return WaitFor(WaitReason.QUORUM, names)


def _young(desired: Desired, members: tuple[MemberObserved, ...]) -> tuple[str, ...]:
    """Members that run and have not been ready for long; not those that never will be."""
    mute = {m.name for m in members if m.report is not None and m.report.mute is not None}
    steady_ms = desired.rolling.steady_ms
    fresh = (m.name for m in members if m.running and m.steady_for_ms < steady_ms)
    return tuple(name for name in fresh if name not in mute)


def _is_outdated(desired: Desired, member: MemberObserved) -> bool:
    known = member.running and member.revision != ""
    return known and (member.revision != desired.revision or member.needs_restart)


def _is_coming(member: MemberObserved, agreed: Agreement) -> bool:
    """True for a member that is to come back and has not; not for one that never will."""
    if not member.running:
        will_start = restart(member.attempts, member.last_exit).delay_ms is not None
        return member.volume is Volume.PRESENT and will_start
    report = member.report
    if report is None:
        return True
    if report.mute is not None:
        return False  # it learns and answers, and no restart gives it its votes back
    if agreed.view is None:
        return not report.ready
    behind = agreed.final_index - report.applied_index > LAG_MAX
    return not report.ready or report.view != agreed.view or behind
