"""The status of a resource, computed from what is seen: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dwcp_operator.access import AccessStatus, GatewayStatus
from dwcp_operator.conditions import Situation, conditions
from dwcp_operator.modes import ModeSwitchStatus
from dwcp_operator.plan.observed import MemberObserved
from dwcp_operator.resources import (
    ClusterStatus,
    Condition,
    MembershipStatus,
    MemberStatus,
    UpgradeStatus,
)

SELECTOR_LABEL = "dwcp.dev/cluster"


def cluster_status(
    seen: Situation,
    *,
    generation: int,
    cluster_id: str | None,
    previous: tuple[Condition, ...],
    now: str,
    upgrade: UpgradeStatus | None = None,
    storage_size: str | None = None,
    membership: MembershipStatus | None = None,
    nodes: Mapping[str, str] | None = None,
    gateway: GatewayStatus | None = None,
    access: tuple[AccessStatus, ...] = (),
    failing: Mapping[str, str] | None = None,
) -> ClusterStatus:
    """The whole status; `previous` conditions keep their transition times, `now` is RFC 3339.

    `upgrade`, `storage_size`, `membership`, `gateway`, and by member `nodes` and since when they
    are `failing`, are known on Kubernetes only.
    """
    genesis, agreed = seen.observed.genesis, seen.agreed
    members = tuple(
        _member(seen, number, seen.observed.member(name), (nodes or {}).get(name)).model_copy(
            update={"failing_since": (failing or {}).get(name)}
        )
        for number, name in enumerate(seen.desired.members)
    )
    ready = sum(m.ready for m in members)
    return ClusterStatus(
        observed_generation=generation,
        mode=_mode(agreed.mode),
        last_switch=None if agreed.switch is None else ModeSwitchStatus.of(agreed.switch),
        epoch=agreed.epoch,
        view=agreed.view,
        primary=agreed.primary,
        ready=f"{ready}/{seen.n}",
        ready_replicas=ready,
        replicas=len([m for m in members if m.role != "stopped"]),
        selector=f"{SELECTOR_LABEL}={seen.desired.cluster}",
        cluster_id=cluster_id,
        genesis_hash=genesis.hash.hex() if genesis is not None else None,
        storage_size=storage_size,
        membership=membership,
        upgrade=upgrade,
        gateway=gateway,
        access=access,
        members=members,
        conditions=conditions(seen, generation, previous, now),
    )


def _mode(mode: str | None) -> Literal["Datacenter", "Hybrid", "Internet"] | None:
    match mode:
        case "Datacenter" | "Hybrid" | "Internet":
            return mode
        case _:
            return None


def _role(mode: str | None, *, leads: bool) -> Literal["primary", "backup", "leader", "follower"]:
    """The protocol's own word."""
    if mode in ("Datacenter", "Hybrid"):
        return "leader" if leads else "follower"
    return "primary" if leads else "backup"


def is_available(status: ClusterStatus | None) -> bool:
    """True when the condition Available holds and every member is ready."""
    if status is None or status.ready_replicas < status.replicas:
        return False
    return any(c.type == "Available" and c.status == "True" for c in status.conditions)


def _member(seen: Situation, number: int, member: MemberObserved, node: str | None) -> MemberStatus:
    report, revision = member.report, member.revision or None
    if report is None:
        return MemberStatus(
            name=member.name,
            id=number,
            role="waiting" if member.running else "stopped",
            endpoint=member.endpoint,
            ready=False,
            suspicion=seen.agreed.suspected.get(member.name),
            node=node,
            zone=member.zone,
            revision=revision,
        )
    role = _role(report.mode, leads=seen.agreed.primary == member.name)
    return MemberStatus(
        name=member.name,
        id=number,
        role=role,
        mode=_mode(report.mode),
        endpoint=member.endpoint,
        ready=member.ready,
        healthy=report.illness is None,
        illness=report.illness,
        suspicion=seen.agreed.suspected.get(member.name),
        applied_index=report.applied_index,
        lag=max(0, seen.agreed.final_index - report.applied_index),
        view=report.view,
        last_seen=report.seen_at,
        node=node,
        zone=member.zone,
        revision=revision,
    )
