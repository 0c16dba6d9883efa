"""What status, evidence and gauges show of a process."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, Literal

import msgspec

from dwcp.wire.records import EpochRecord
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.views import (
    EvidenceSummary,
    EvidenceView,
    ModesView,
    NetworkView,
    PeerView,
    Phase,
    StatusView,
    SwitchView,
)
from dwcp_replica.core.effects import EvidenceFound
from dwcp_replica.core.modes.decide import Mode
from dwcp_replica.core.modes.reach import Reach
from dwcp_replica.core.quorum import faults
from dwcp_replica.net.roster import Roster
from dwcp_replica.node.config import NodeConfig
from dwcp_replica.node.health import Contact, suspicion
from dwcp_replica.node.running import RunningReplica
from dwcp_replica.store.modes import network_of

VERSION: Final = version("dwcp")
MODE_OF: Final = {"pbft": "Internet", "raft": "Datacenter"}
ROLES: Final = {"pbft": ("backup", "primary"), "raft": ("follower", "leader")}
"""Of who follows, and of who leads."""


def status(
    config: NodeConfig, started_at: datetime, phase: Phase, hindrance: str | None,
    record: EpochRecord | None, running: RunningReplica | None,
) -> StatusView:  # fmt: skip
    """The status of a process in any phase; `hindrance` is why it does not vote."""
    present = record if running is None else running.record
    known = {} if present is None else _of_record(present, config.name)
    if running is not None:
        known |= _of_running(running)
    return StatusView(
        cluster=config.cluster,
        namespace=config.namespace,
        name=config.name,
        phase=phase,
        reason=hindrance,
        ready=hindrance is None,
        healthy=(illness := illness_of(hindrance, running)) is None,
        illness=illness,
        version=VERSION,
        pid=os.getpid(),
        started_at=started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **known,
    )


def illness_of(hindrance: str | None, running: RunningReplica | None) -> str | None:
    """What keeps a process from committing; None while it commits, or is idle and able to."""
    if hindrance is not None:
        return hindrance
    return "it does not run" if running is None else running.pulse.illness()


def evidence(running: RunningReplica) -> list[EvidenceView]:
    """The proofs against members, with what proves them."""
    return [
        EvidenceView(
            proof=msgspec.msgpack.encode(found.evidence),
            **_summary(running.record, found),
        )
        for found in running.engine.standing.evidence
    ]


def refresh(metrics: ReplicaMetrics, hindrance: str | None, running: RunningReplica | None) -> None:
    """Set the gauges to what is so now."""
    metrics.ready.set(hindrance is None)
    metrics.healthy.set(illness_of(hindrance, running) is None)
    if running is None:
        return
    standing = running.engine.standing
    members = len(running.record.members)
    metrics.replica_count.set(members)
    metrics.tolerance.set(faults(members))
    metrics.epoch.set(standing.epoch)
    metrics.view.set(standing.view)
    metrics.view_active.set(standing.active)
    metrics.is_primary.set(standing.active and standing.primary == running.me)
    metrics.last_index.set(standing.last)
    metrics.prepared_index.set(standing.prepared)
    metrics.final_index.set(standing.final)
    metrics.applied_index.set(running.store.applied_index)
    metrics.checkpoint_seq.set(running.engine.checkpoint_index)
    metrics.stable_checkpoint.set(standing.stable)
    metrics.pending.set(standing.pending)
    metrics.revision.set(running.store.revision)
    metrics.pre_prepare_log_size.set(standing.pre_prepare_log_size)
    metrics.prepare_log_size.set(standing.prepare_log_size)
    metrics.commit_log_size.set(standing.commit_log_size)
    metrics.log_base.set(standing.log_base)
    metrics.log_bytes.set(running.keeper.log_bytes)
    metrics.saved_index.set(standing.saved)
    metrics.snapshot_index.set(running.keeper.snapshot_index)
    metrics.transfer_index.set(standing.transfer or 0)
    metrics.transfer_left.set(standing.transfer_left)
    metrics.muted.set(standing.mute is not None)
    metrics.disk_full.set(running.engine.disk_full)
    metrics.connections.set(running.admission.desk.connections)
    for mode in Mode:
        metrics.sync_mode.labels(mode.value).set(running.modes.mode is mode)
    metrics.documents.set(len(running.documents.store))
    roster = running.mesh.roster
    others = list(filter(roster.is_member, roster.others()))
    metrics.peers_connected.set(sum(map(running.mesh.connected, others)))
    for number in others:
        metrics.show_link(roster.name(number), running.modes.links.link(number))
    for peer in _peers(running):
        metrics.show_peer(peer)


def _of_record(record: EpochRecord, name: str) -> dict[str, Any]:
    return {
        "cluster_id": record.cluster_id.hex(),
        "id": record.member_named(name),
        "epoch": record.epoch,
        "protocol": record.protocol,
        "mode": MODE_OF[record.protocol],
        "forced": record.forced,
        "record": record.hash().hex(),
        "members": tuple(member.name for member in record.members),
    }


def _of_running(running: RunningReplica) -> dict[str, Any]:
    standing = running.engine.standing
    leads = standing.active and standing.primary == running.me
    return {
        "epoch": standing.epoch,
        "protocol": standing.record.protocol,
        "mode": running.modes.mode.value,
        "forced": standing.record.forced,
        "modes": _modes(running),
        "view": standing.view,
        "active": standing.active,
        "primary": running.record.members[standing.primary].name,
        "role": "learner" if running.me is None else ROLES[running.record.protocol][leads],
        "id": running.me,
        "is_member": running.me is not None,
        "settled": running.settled,
        "last_index": standing.last,
        "prepared_index": standing.prepared,
        "final_index": standing.final,
        "applied_index": running.store.applied_index,
        "checkpoint_seq": running.engine.checkpoint_index,
        "stable_checkpoint": standing.stable,
        "stable_state": standing.stable_state.hex() or None,
        "log_base": standing.log_base,
        "log_bytes": running.keeper.log_bytes,
        "saved_index": standing.saved,
        "snapshot_index": running.keeper.snapshot_index,
        "state_transfer": standing.transfer,
        "state_transfer_left": standing.transfer_left,
        "revision": running.store.revision,
        "pending_requests": standing.pending,
        "commit_age_ms": running.pulse.commit_age_ms,
        "mute": standing.mute,
        "evidence": tuple(
            EvidenceSummary(**_summary(running.record, found)) for found in standing.evidence
        ),
        "peers": _peers(running),
    }


def _modes(running: RunningReplica) -> ModesView:
    state, keeper = running.store.modes.state, running.modes
    last = state.last
    return ModesView(
        decided=state.mode.value,
        forced=_held(running.engine.standing.record, state.forced),
        asked=None if state.asked is None else state.asked.value,
        asked_since_ms=state.asked_since_ms,
        switches=state.switches,
        reports=len(state.reports),
        network=_network(keeper.network),
        reach=_network(keeper.reach),
        last_switch=None
        if last is None
        else SwitchView(
            last.before.value, last.after.value, last.reason, last.index, last.at_ms,
            _network(network_of(last.network)),
        ),
        commit_ms=running.engine.commit_ms if _leads(running) else None,
    )  # fmt: skip


def _held(record: EpochRecord, by_genesis: Mode | None) -> str | None:
    """The mode that the admin holds, or that the genesis did from the start."""
    if record.forced is not None:
        return MODE_OF[record.forced]
    return None if by_genesis is None else by_genesis.value


def _leads(running: RunningReplica) -> bool:
    standing = running.engine.standing
    return standing.active and standing.primary == standing.me


def _network(network: Reach) -> NetworkView:
    return NetworkView(network.rtt_us, network.jitter_us, network.loss, network.rate_bps)


def _summary(record: EpochRecord, found: EvidenceFound) -> dict[str, Any]:
    header = found.evidence.first
    return {
        "member": record.members[found.member].name,
        "kind": found.kind,
        "view": header.term,
        "index": header.index,
    }


def _peers(running: RunningReplica) -> tuple[PeerView, ...]:
    standing, roster = running.engine.standing, running.mesh.roster
    proven = {found.member for found in standing.evidence}
    peers = []
    for number in roster.others():
        if roster.is_twin(number):
            continue
        member = roster.members[number]
        position = running.record.member_with(member.identity)
        said = standing.outsiders if position is None else standing.peers
        last = said.get(number if position is None else position)
        link = running.modes.links.link(number)
        silence_ms = running.mesh.server.silence_ms(number)
        contact = Contact(last, silence_ms, position in proven)
        peers.append(
            PeerView(
                name=member.name,
                connected=running.mesh.connected(number),
                last_contact_ms=silence_ms,
                final_index=None if last is None else last.final,
                view=None if last is None else last.view,
                rtt_us=link.rtt_us,
                jitter_us=link.jitter_us,
                loss=link.loss,
                rate_bps=link.rate_bps,
                epoch=None if last is None else last.epoch,
                role=_role(roster, number),
                lag=None if last is None else max(0, standing.final - last.final),
                suspicion=suspicion(standing, contact) if roster.is_member(number) else None,
            )
        )
    return tuple(peers)


def _role(roster: Roster, number: int) -> Literal["member", "learner", "former"]:
    if roster.is_member(number):
        return "member"
    return "former" if roster.is_former(number) else "learner"
