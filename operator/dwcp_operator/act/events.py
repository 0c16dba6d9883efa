"""Kubernetes Events: what happened, for `kubectl describe` and `kubectl events`."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

from dwcp_operator.act.api import ApiError, KubeApi
from dwcp_operator.build.names import MANAGER, Object, Subject
from dwcp_operator.resources import API_VERSION, KIND

NOTE_LENGTH_MAX: Final = 1024

_log = logging.getLogger(__name__)


class EventReason(StrEnum):
    """Every reason an Event of ours may have."""

    KEYS_CREATED = "KeysCreated"
    VOLUME_CREATED = "VolumeCreated"
    MEMBER_STARTED = "MemberStarted"
    MEMBER_READY = "MemberReady"
    MEMBER_NOT_READY = "MemberNotReady"
    MEMBER_RESTARTED = "MemberRestarted"
    MEMBER_ROLLED = "MemberRolled"
    MEMBER_STOPPED = "MemberStopped"
    VOLUME_GROWN = "VolumeGrown"
    ROLLED_BACK = "RolledBack"
    PAUSED = "Paused"
    HIBERNATED = "Hibernated"
    MONITORING_ABSENT = "MonitoringAbsent"
    GENESIS_CREATED = "GenesisCreated"
    ACCESS_CHANGED = "AccessChanged"
    GATEWAY_MADE = "GatewayMade"
    GATEWAY_REMOVED = "GatewayRemoved"
    CERTIFICATE_MADE = "CertificateMade"
    MEMBER_INVITED = "MemberInvited"
    MEMBERS_ORDERED = "MembersOrdered"
    MEMBER_REMOVED = "MemberRemoved"
    RESTORED = "Restored"
    GENESIS_ADOPTED = "GenesisAdopted"
    GENESIS_PUBLISHED = "GenesisPublished"
    VIEW_CHANGED = "ViewChanged"
    MODE_DECIDED = "ModeDecided"
    MODE_SWITCHED = "ModeSwitched"
    MEMBER_SUSPECTED = "MemberSuspected"
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"
    DEGRADED = "Degraded"
    RECOVERED = "Recovered"
    QUORUM_AT_RISK = "QuorumAtRisk"
    QUORUM_SAFE = "QuorumSafe"
    BYZANTINE_FAULT = "ByzantineFault"
    ACTION_FAILED = "ActionFailed"
    RESOURCE_UNREADABLE = "ResourceUnreadable"


class RestartReason(StrEnum):
    """Why a member's container ended."""

    KILLED = "Killed"
    OUT_OF_MEMORY = "OutOfMemory"
    FAULT = "Fault"
    LOCKED = "VolumeLocked"
    REFUSED = "Refused"
    STOPPED = "Stopped"
    OTHER = "Other"


_BY_EXIT_CODE: Final = {
    0: RestartReason.STOPPED,
    70: RestartReason.FAULT,
    75: RestartReason.LOCKED,
    78: RestartReason.REFUSED,
    137: RestartReason.KILLED,
}


def restart_reason(terminated: Object) -> RestartReason:
    """The reason in a container's last state."""
    if terminated.get("reason") == "OOMKilled":
        return RestartReason.OUT_OF_MEMORY
    return _BY_EXIT_CODE.get(terminated.get("exitCode", -1), RestartReason.OTHER)


class Events:
    """Posts Events on clusters. An Event that can not be posted is logged and let go."""

    def __init__(self, api: KubeApi, instance: str) -> None:
        self._api = api
        self._instance = instance

    async def post(
        self,
        subject: Subject,
        reason: EventReason,
        note: str,
        *,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Say that something happened to a cluster; `note` is a sentence."""
        metadata = {"name": subject.name, "namespace": subject.namespace, "uid": subject.uid}
        await self.post_on({"metadata": metadata}, reason, note, kind=kind)

    async def post_on(
        self,
        raw: Object,
        reason: EventReason,
        note: str,
        *,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """The same for a resource as it was read, which may be one that is not understood."""
        metadata = raw["metadata"]
        where = f"{metadata['namespace']}/{metadata['name']}"
        _log.info("event", extra={"cluster": where, "reason": str(reason), "note": note})
        try:
            await self._api.create(self._event(metadata, reason, note, kind))
        except ApiError as error:
            _log.warning("event-lost", extra={"reason": str(reason), "detail": str(error)})

    def _event(self, metadata: Object, reason: EventReason, note: str, kind: str) -> Object:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"dwcp.dev/{MANAGER}",
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": kind,
            "reason": str(reason),
            "note": note[:NOTE_LENGTH_MAX],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
