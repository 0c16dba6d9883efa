"""The conditions of a cluster, computed from what is seen: no clock, no I/O.

Whatever one member says of itself is a claim: conditions rest on f+1 verified reports that
match. Each condition keeps its transition time while its status stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dwcp_operator.plan.agreement import (
    Agreement,
    agreement,
    good_members,
    verified_reports,
)
from dwcp_operator.plan.observed import Desired, Observed
from dwcp_operator.plan.quorum import faulty_max, quorum
from dwcp_operator.plan.steps import (
    AdoptGenesis,
    AnnounceMembers,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    DropBackup,
    EnsureKeys,
    GrowVolume,
    InviteMember,
    OrderMembers,
    RemoveMember,
    ReportForeignGenesis,
    ReportForeignVolume,
    ReportLostVolume,
    ReportRollFailed,
    ReportStopped,
    RollMember,
    ServeBackup,
    StartMember,
    Step,
    StopMember,
    WaitFor,
)
from dwcp_operator.resources import Condition

Status = Literal["True", "False", "Unknown"]
Type = Literal[
    "Available", "Progressing", "Degraded", "QuorumAtRisk", "ByzantineFault", "ModeSettled",
    "ZonesSpread",
]  # fmt: skip


class Reason(StrEnum):
    """Every reason a condition may have, besides the planner's WaitReason."""

    QUORUM_VOTES = "QuorumVotes"
    QUORUM_LOST = "QuorumLost"
    NO_SPARE = "NoSpareMember"
    SPARE = "SpareMembers"
    BOOTSTRAPPING = "Bootstrapping"
    SETTLED = "Settled"
    NEEDS_ATTENTION = "NeedsAttention"
    CREATING_KEYS = "CreatingKeys"
    STARTING_MEMBERS = "StartingMembers"
    AGREEING_ON_GENESIS = "AgreeingOnGenesis"
    ALL_READY = "AllMembersReady"
    VOLUME_LOST = "VolumeLost"
    VOLUME_FOREIGN = "VolumeForeign"
    GENESIS_CONFLICT = "GenesisConflict"
    MEMBER_STOPPED = "MemberStopped"
    MEMBER_MUTE = "MemberMute"
    MEMBERS_NOT_READY = "MembersNotReady"
    NO_EVIDENCE = "NoEvidence"
    EVIDENCE = "EvidenceAgreed"
    CLAIM = "EvidenceClaimed"
    ROLLING = "Rolling"
    RESTORING = "Restoring"
    CHANGING_MEMBERS = "ChangingMembers"
    GROWING_VOLUMES = "GrowingVolumes"
    ROLL_FAILED = "RollFailed"
    ROLLED_BACK = "RolledBack"
    HIBERNATING = "Hibernating"
    HIBERNATED = "Hibernated"
    PAUSED = "Paused"
    ZONES_SPREAD = "NoZoneHoldsTooMany"
    ZONE_TOO_FULL = "ZoneHoldsTooMany"
    ZONES_UNKNOWN = "ZonesUnknown"
    MODE_AGREED = "ModeAgreed"
    NO_AGREEMENT = "NoAgreement"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the conditions are computed from, and what several of them need."""

    desired: Desired
    observed: Observed
    steps: tuple[Step, ...]
    agreed: Agreement
    good: tuple[str, ...]
    """Members that vote in the agreed view and against which nothing is known."""

    @property
    def n(self) -> int:
        """The number of members."""
        return len(self.desired.members)

    @property
    def begun(self) -> bool:
        """True once the genesis is published: from then on a missing member is a fault."""
        return self.observed.genesis is not None and self.observed.genesis.published

    @property
    def sleeps(self) -> bool:
        """True when the members are stopped on purpose, or are being stopped."""
        return self.desired.hibernate and self.begun and not self.desired.paused


def situation(desired: Desired, observed: Observed, steps: tuple[Step, ...]) -> Situation:
    """Look at what is seen, once."""
    reports = verified_reports(observed)
    agreed = agreement(reports, len(desired.members))
    good = good_members(desired.members, reports, agreed)
    return Situation(desired, observed, steps, agreed, tuple(sorted(good)))


def conditions(
    seen: Situation, generation: int, previous: tuple[Condition, ...], now: str
) -> tuple[Condition, ...]:
    """All conditions; `now` (RFC 3339) is the transition time of those that changed."""
    before = {c.type: c for c in previous}
    out = []
    for kind, (status, reason, message) in _all(seen):
        old = before.get(kind)
        since = old.last_transition_time if old is not None and old.status == status else now
        out.append(
            Condition(
                type=kind,
                status=status,
                reason=str(reason),
                message=message[:4096],
                observed_generation=generation,
                last_transition_time=since,
            )
        )
    return tuple(out)


Verdict = tuple[Status, StrEnum, str]


def _all(seen: Situation) -> Iterator[tuple[Type, Verdict]]:
    yield "Available", _available(seen)
    yield "Progressing", _progressing(seen)
    yield "Degraded", _degraded(seen)
    yield "QuorumAtRisk", _quorum_at_risk(seen)
    yield "ByzantineFault", _byzantine_fault(seen)
    yield "ModeSettled", _mode_settled(seen)
    yield "ZonesSpread", _zones_spread(seen)


def _available(seen: Situation) -> Verdict:
    votes = f"{len(seen.good)} of {seen.n} members vote"
    need = quorum(seen.n)
    if not seen.begun:
        return "False", Reason.BOOTSTRAPPING, "the members have not yet agreed on the genesis"
    if seen.agreed.view is not None and len(seen.good) >= need:
        return "True", Reason.QUORUM_VOTES, f"{votes} in view {seen.agreed.view}; {need} are enough"
    if seen.sleeps:
        return "False", Reason.HIBERNATED, _ASLEEP
    what = f"{votes}, {need} are needed: see members; docs/backup.md says what to do when they"
    return "False", Reason.QUORUM_LOST, f"{what} are gone for good"


_ASLEEP = "spec.hibernate is true: the members are stopped, and their volumes are kept"


def _progressing(seen: Situation) -> Verdict:
    if seen.desired.paused:
        message = "the annotation dwcp.dev/paused is set: nothing is done until it is removed"
        return "False", Reason.PAUSED, message
    acts = [s for s in seen.steps if not isinstance(s, WaitFor) and not _is_report(s)]
    waits = [s for s in seen.steps if isinstance(s, WaitFor)]
    if acts:
        return "True", _doing(acts[0]), f"doing: {', '.join(_describe(s) for s in acts)}"
    if seen.sleeps:
        return "False", Reason.HIBERNATED, _ASLEEP
    if any(isinstance(s, ReportRollFailed) for s in seen.steps):
        return "False", Reason.NEEDS_ATTENTION, "the change has stopped: see Degraded"
    if waits:
        names = ", ".join(dict.fromkeys(name for wait in waits for name in wait.members))
        return "True", waits[0].reason, f"waiting for {names or 'the backup to be served'}"
    if seen.steps:
        return "False", Reason.NEEDS_ATTENTION, "nothing can be done without help: see Degraded"
    return "False", Reason.SETTLED, "everything is as the resource asks"


def _is_report(step: Step) -> bool:
    reports = (
        ReportLostVolume,
        ReportForeignVolume,
        ReportForeignGenesis,
        ReportStopped,
        ReportRollFailed,
    )
    return isinstance(step, reports)


def _doing(step: Step) -> Reason:
    match step:
        case EnsureKeys():
            return Reason.CREATING_KEYS
        case CreateGenesis() | AdoptGenesis() | DeliverGenesis() | CompleteGenesis():
            return Reason.AGREEING_ON_GENESIS
        case RollMember():
            return Reason.ROLLING
        case InviteMember() | AnnounceMembers() | OrderMembers() | RemoveMember():
            return Reason.CHANGING_MEMBERS
        case ServeBackup() | DropBackup():
            return Reason.RESTORING
        case StopMember():
            return Reason.HIBERNATING
        case GrowVolume():
            return Reason.GROWING_VOLUMES
        case _:
            return Reason.STARTING_MEMBERS


def _describe(step: Step) -> str:
    match step:
        case CreateVolume(member) | StartMember(member) | DeliverGenesis(member):
            return f"{type(step).__name__} {member}"
        case AnnounceMembers(members) | OrderMembers(members):
            return f"{type(step).__name__} {', '.join(members)}"
        case InviteMember(member) | RemoveMember(member):
            return f"{type(step).__name__} {member}"
        case RollMember(member) | StopMember(member) | GrowVolume(member):
            return f"{type(step).__name__} {member}"
        case _:
            return type(step).__name__


def _degraded(seen: Situation) -> Verdict:
    for step in seen.steps:
        trouble = _trouble(step)
        if trouble is not None:
            return "True", *trouble
    for member in seen.observed.members:
        if member.report is not None and member.report.mute is not None:
            message = (
                f"{member.name} signs nothing ({member.report.mute}): it learns and answers, and "
                f"counts as one of the {faulty_max(seen.n)} that may fail"
            )
            return "True", Reason.MEMBER_MUTE, message
    missing = [name for name in seen.desired.members if not seen.observed.member(name).ready]
    if seen.desired.rolling.failed is not None:
        return (
            "True",
            Reason.ROLLED_BACK,
            (
                f"a member did not come back with revision {seen.desired.rolling.failed}, and the "
                "members run what they ran before: change the spec, or set the annotation "
                "dwcp.dev/restart to try again"
            ),
        )
    if not seen.begun:
        return _degraded_at_birth(seen)
    if seen.sleeps:
        return "False", Reason.HIBERNATED, _ASLEEP
    if missing and _is_planned(seen, missing):
        return "False", Reason.ROLLING, f"{missing[0]} is being restarted for a change"
    if missing:
        return "True", Reason.MEMBERS_NOT_READY, f"not ready: {', '.join(missing)}"
    return "False", Reason.ALL_READY, f"all {seen.n} members are ready"


def _degraded_at_birth(seen: Situation) -> Verdict:
    """A member that never came up keeps the genesis from being made: it is named."""
    deadline_ms = seen.desired.rolling.deadline_ms
    late = [
        m.name
        for m in seen.observed.members
        if m.running and m.identity is None and m.unready_for_ms >= deadline_ms
    ]
    if late:
        what = f"{', '.join(late)} did not come up within {deadline_ms // 1000} s"
        message = f"{what}, and all are needed to begin: the Pod or its log says why"
        return "True", Reason.MEMBERS_NOT_READY, message
    return "False", Reason.BOOTSTRAPPING, "the cluster is being made"


def _is_planned(seen: Situation, missing: list[str]) -> bool:
    """True while one member is down for a change that is rolled out, and not for too long."""
    rolling = seen.desired.rolling
    down_ms = max(seen.observed.member(name).unready_for_ms for name in missing)
    return not rolling.settled and len(missing) == 1 and down_ms < rolling.deadline_ms


def _trouble(step: Step) -> tuple[Reason, str] | None:
    match step:
        case ReportLostVolume(member):
            return Reason.VOLUME_LOST, (
                f"the volume of {member} is gone, and its key with it: it is never made anew under "
                "this name. Another member takes its place: on Kubernetes by itself while a quorum "
                "votes, elsewhere by `dwcp admin replace`"
            )
        case ReportForeignVolume(member):
            return Reason.VOLUME_FOREIGN, (
                f"the volume of {member} is not the one this cluster began with: put that one back"
            )
        case ReportForeignGenesis(members):
            return Reason.GENESIS_CONFLICT, (
                f"{', '.join(members)} hold different genesis records: these volumes are of "
                "different clusters, keep those of one"
            )
        case ReportRollFailed(member, revision):
            return Reason.ROLL_FAILED, (
                f"{member} did not come back with revision {revision} in time, and no other member "
                "is taken down for it: its log says why. Change the spec back or mend it; "
                "spec.upgrade.rollback goes back by itself"
            )
        case ReportStopped(member, code):
            return Reason.MEMBER_STOPPED, (
                f"{member} stopped with exit code {code} and is not started again: its log says "
                "what is wrong with its data"
            )
    return None


def _quorum_at_risk(seen: Situation) -> Verdict:
    if not seen.begun:
        return "Unknown", Reason.BOOTSTRAPPING, "the members have not yet agreed on the genesis"
    spare = len(seen.good) - quorum(seen.n)
    if seen.sleeps:
        return "Unknown", Reason.HIBERNATED, _ASLEEP
    if spare < 0:
        return "True", Reason.QUORUM_LOST, f"{-spare} more members must vote before writes go on"
    if spare == 0:
        return "True", Reason.NO_SPARE, "one member less would stop writes: restart none"
    return "False", Reason.SPARE, f"{spare} more members can be lost before writes stop"


def _byzantine_fault(seen: Situation) -> Verdict:
    if seen.agreed.faulty:
        return "True", Reason.EVIDENCE, "; ".join(seen.agreed.faulty.values())
    if seen.agreed.claimed:
        claims = "; ".join(seen.agreed.claimed)
        return "Unknown", Reason.CLAIM, f"too few members show it to be believed: {claims}"
    return "False", Reason.NO_EVIDENCE, "no member is shown to lie"


def _mode_settled(seen: Situation) -> Verdict:
    if seen.agreed.mode is not None:
        return "True", Reason.MODE_AGREED, f"f+1 members report mode {seen.agreed.mode}"
    return "Unknown", Reason.NO_AGREEMENT, "fewer than f+1 members report the same mode"


def _zones_spread(seen: Situation) -> Verdict:
    zones = {name: seen.observed.member(name).zone for name in seen.desired.members}
    counts = Counter(zone for zone in zones.values() if zone is not None)
    bound = faulty_max(seen.n)
    full = [f"{zone} holds {n}" for zone, n in sorted(counts.items()) if n > bound]
    if full:
        return (
            "False",
            Reason.ZONE_TOO_FULL,
            (
                f"{', '.join(full)} of {seen.n} members, and {bound} may be lost at once: "
                "its loss stops writes until it is back"
            ),
        )
    unknown = [name for name, zone in zones.items() if zone is None]
    if unknown:
        return "Unknown", Reason.ZONES_UNKNOWN, f"the zones of {', '.join(unknown)} are not known"
    return "True", Reason.ZONES_SPREAD, f"no zone holds more than {bound} of {seen.n} members"
