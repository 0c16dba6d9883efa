"""Which revision members are to be made from: what the user asks for, or what worked before it.

A revision with which a member did not come back is written down in the status as failed before
anything is undone: without that a rolled-back change would begin anew, for ever. It is tried
again when what the user asks for changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dwcp_operator.conditions import Situation
from dwcp_operator.plan.observed import Desired, MemberObserved, Rolling
from dwcp_operator.plan.steps import ReportRollFailed
from dwcp_operator.plan.window import Opening, opens_in_ms
from dwcp_operator.pods import DAYS, PodTemplate, Window
from dwcp_operator.resources import ClusterStatus, DWCPCluster, UpgradeStatus
from dwcp_operator.rules import size_bytes


@dataclass(frozen=True, slots=True)
class Rollout:
    """`template` is what members are made from now; `stable` what all have last run together.

    `failed` names the revision that was asked for and given up; then `template` is the stable one.
    """

    template: PodTemplate
    stable: PodTemplate | None
    failed: str | None

    @property
    def settled(self) -> bool:
        """True when all members have run the template together, or none that could be told."""
        return self.stable is None or self.stable.revision == self.template.revision


def rollout(cluster: DWCPCluster, status: ClusterStatus | None) -> Rollout:
    """What members are to be made from, by the resource and by what its status remembers."""
    known = status.upgrade if status is not None else None
    written = cluster.template
    if known is None:
        return Rollout(written, None, None)
    gone_back = known.failed == written.revision and known.stable is not None
    if gone_back and known.stable is not None and cluster.spec.upgrade.rollback:
        return Rollout(known.stable, known.stable, known.failed)
    return Rollout(written, known.stable, None)


def desired(
    cluster: DWCPCluster, out: Rollout, now_ms: int, present: tuple[str, ...] | None = None
) -> Desired:
    """What the planner is to bring about; `now_ms` is Unix time, `present` are the members."""
    upgrade = cluster.spec.upgrade
    window = upgrade.window
    return Desired(
        cluster=cluster.metadata.name,
        members=cluster.member_names if present is None else present,
        count=cluster.spec.replicas,
        adopt=cluster.spec.adopt is not None,
        restore=cluster.spec.restore is not None,
        revision=out.template.revision,
        rolling=Rolling(
            deadline_ms=upgrade.step_deadline_ms,
            steady_ms=upgrade.settle_time_ms,
            opens_in_ms=0 if window is None else opens_in_ms(_opening(window), now_ms),
            settled=out.settled,
            failed=out.failed,
        ),
        volume_bytes=size_bytes(cluster.spec.storage.size) or 0,
        paused=cluster.paused,
        hibernate=cluster.spec.hibernate,
        replace_after_ms=cluster.spec.replace_after_ms,
        storage_class=cluster.spec.storage.storage_class_name,
    )


def _opening(window: Window) -> Opening:
    hours, minutes = window.start.split(":")
    return Opening(
        days=frozenset(DAYS.index(day) for day in window.days),
        start_minute=int(hours) * 60 + int(minutes),
        duration_minutes=window.duration_minutes,
    )


def upgrade_status(cluster: DWCPCluster, out: Rollout, seen: Situation) -> UpgradeStatus:
    """What the status is to remember of the members' revisions."""
    revision = out.template.revision
    members = [seen.observed.member(name) for name in seen.desired.members]
    updated = [m for m in members if m.running and m.revision == revision]
    all_run = len(updated) == len(members) == len(seen.good)
    stable = out.template if all_run else out.stable
    gave_up = any(isinstance(step, ReportRollFailed) for step in seen.steps)
    can_go_back = cluster.spec.upgrade.rollback and out.failed is None and not out.settled
    return UpgradeStatus(
        revision=revision,
        updated=len(updated),
        stable=stable,
        failed=revision if gave_up and can_go_back else out.failed,
    )


class RollReason(StrEnum):
    """Why a member is restarted by the operator."""

    IMAGE = "ImageChanged"
    RESOURCES = "ResourcesChanged"
    PLACEMENT = "PlacementChanged"
    REQUESTED = "RestartRequested"
    ROLLED_BACK = "RolledBack"
    VOLUME_GROWN = "VolumeGrown"
    CHANGED = "SpecChanged"


def roll_reason(out: Rollout, member: MemberObserved) -> RollReason:
    """Why this member is rolled: the first difference from what all have last run together."""
    if member.revision == out.template.revision:
        return RollReason.VOLUME_GROWN
    if out.failed is not None:
        return RollReason.ROLLED_BACK
    old, new = out.stable, out.template
    if old is None:
        return RollReason.CHANGED
    for before, after, reason in (
        (old.image, new.image, RollReason.IMAGE),
        (old.resources, new.resources, RollReason.RESOURCES),
        (old.placement, new.placement, RollReason.PLACEMENT),
        (old.restart, new.restart, RollReason.REQUESTED),
    ):
        if before != after:
            return reason
    return RollReason.CHANGED
