"""One DWCPBackup, level-triggered: look at its Pod, write down what it took, start the next one.

The Pod that takes a backup gets no key: only a permit of the admin, good for a quarter of an hour,
and the cluster's genesis, against which it checks what members show. What it says when it ends
is a report and no proof; a restore checks the file itself.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pydantic import TypeAdapter, ValidationError

from dwcp.identity import Ed25519Signer
from dwcp.wire.backup import Permit
from dwcp_operator.act.api import BACKUP, CLUSTER, POD, SECRET, ApiError
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.keeper import KeeperError, admin_of
from dwcp_operator.act.observe import has_ended, is_going, utc_now
from dwcp_operator.act.snapshot import UnreadableError, subject_of
from dwcp_operator.act.writer import TakenError, Writer
from dwcp_operator.backups import (
    BackupCondition,
    BackupStatus,
    BackupTaken,
    DWCPBackup,
)
from dwcp_operator.build import backup as build
from dwcp_operator.build.names import Object
from dwcp_operator.plan.backups import due_in_ms

LOOK_S: Final = 1.0
IDLE_S: Final = 30.0
PERMIT_MS: Final = 900_000


class BackupReconciler:
    """Brings one DWCPBackup on; `round` is to be called again and again (dispatch.Loop)."""

    def __init__(self, writer: Writer, settings: Settings, namespace: str, name: str) -> None:
        self._writer = writer
        self._settings = settings
        self._namespace = namespace
        self._name = name

    def touch(self) -> None:
        """Every round reads everything."""

    async def round(self) -> float | None:
        """One round; seconds until the next, or None when the resource is gone.

        Raises ApiError and LeaseLostError.
        """
        raw = await self._writer.api.get(BACKUP, self._namespace, self._name)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        plain = {key: raw[key] for key in ("apiVersion", "kind", "metadata", "spec")}
        try:
            wanted = DWCPBackup.model_validate(plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            await self._say(raw, _status_of(raw), "Unknown", "Unreadable", str(first["msg"]))
            return IDLE_S
        pods = await self._writer.api.list(POD, self._namespace, {build.BACKUP_LABEL: self._name})
        for pod in pods:
            await self._look(raw, pod)
        return LOOK_S if pods else await self._start_when_due(raw, wanted)

    # --- attempts --------------------------------------------------------------------------------

    async def _look(self, raw: Object, pod: Object) -> None:
        """Write down how an attempt ended, then remove its Pod and its permit."""
        if is_going(pod):
            return
        before = _status_of(raw)
        late = _stuck(pod)
        if not has_ended(pod) and late is None:
            return
        said = _said(pod) if late is None else {"error": late}
        if pod["status"]["phase"] == "Succeeded" and (taken := _taken(said)) is not None:
            after = before.model_copy(
                update={"last": taken, "taken": before.taken + 1, "failures": 0}
            )
            message = f"entry {taken.index}, revision {taken.revision}: {taken.file}"
            await self._say(raw, _tried(after), "True", "Taken", message)
        else:
            why = str(said.get("error") or pod["status"].get("message") or "its Pod says nothing")
            after = before.model_copy(update={"failures": before.failures + 1})
            await self._say(raw, _tried(after), "False", "Failed", why)
        permit = await self._writer.api.get(SECRET, self._namespace, pod["metadata"]["name"])
        if permit is not None:
            await self._writer.delete(permit)
        await self._writer.delete(pod)

    async def _start_when_due(self, raw: Object, wanted: DWCPBackup) -> float:
        before = _status_of(raw)
        spec = wanted.spec
        due_ms = due_in_ms(spec.every_ms, before.taken, before.failures, _since_ms(before))
        if spec.suspend or due_ms is None:
            if before.observed_generation != wanted.metadata.generation:
                old = before.conditions[0] if before.conditions else None
                now = (old.status, old.reason, old.message) if old else ("Unknown", "Waiting", "")
                await self._say(raw, before, *now)
            return IDLE_S
        if due_ms > 0:
            return min(due_ms / 1000, IDLE_S)
        problem = await self._start(raw, wanted)
        if problem is not None:
            await self._say(raw, before, "False", "Waiting", problem)
            return IDLE_S / 6
        return LOOK_S

    async def _start(self, raw: Object, wanted: DWCPBackup) -> str | None:
        """Make an attempt's permit and Pod; why it can not be made, or None."""
        found = await self._writer.api.get(CLUSTER, self._namespace, wanted.spec.cluster)
        if found is None:
            return f"there is no DWCPCluster {wanted.spec.cluster} in this namespace"
        try:
            subject = subject_of(found)
        except UnreadableError as error:
            return f"DWCPCluster {wanted.spec.cluster} can not be read: {error}"
        client = subject.client_secret(subject.cluster.spec.clients[0])
        admin = await self._writer.api.get(SECRET, self._namespace, subject.admin_secret)
        genesis = (found.get("status") or {}).get("genesisHash")
        published = await self._writer.api.get(SECRET, self._namespace, client)
        if admin is None or published is None or genesis is None:
            return f"DWCPCluster {wanted.spec.cluster} has not begun yet"
        stamp = int(time.time())
        attempt = build.Attempt(wanted, raw["metadata"]["uid"], f"{self._name}-{stamp}")
        try:
            permit = _permit(admin_of(admin), bytes.fromhex(genesis))
            await self._writer.create(build.permit(attempt, permit))
            await self._writer.create(build.backup_pod(attempt, client, self._settings.pod))
        except (KeeperError, TakenError) as error:
            return str(error)
        return None

    async def _say(
        self, raw: Object, status: BackupStatus, state: str, reason: str, message: str
    ) -> None:
        """Write the status, when it says something new."""
        old = status.conditions[0] if status.conditions else None
        since = old.last_transition_time if old and old.status == state else utc_now()
        condition = BackupCondition.model_validate(
            {
                "type": "Complete",
                "status": state,
                "reason": reason,
                "message": message[:4096],
                "observed_generation": raw["metadata"].get("generation", 0),
                "last_transition_time": since,
            }
        )
        after = status.model_copy(
            update={
                "conditions": (condition,),
                "observed_generation": raw["metadata"].get("generation", 0),
            }
        )
        if after.manifest() == (raw.get("status") or {}):
            return
        try:
            written = await self._writer.replace_status({**raw, "status": after.manifest()})
        except ApiError as error:
            if not (error.is_conflict or error.is_missing):
                raise
            return
        raw.clear()
        raw.update(written)


def _status_of(raw: Object) -> BackupStatus:
    try:
        return TypeAdapter(BackupStatus).validate_python(raw.get("status") or {})
    except ValidationError:
        return BackupStatus()


def _tried(status: BackupStatus) -> BackupStatus:
    return status.model_copy(update={"tried_at": utc_now()})


def _since_ms(status: BackupStatus) -> int | None:
    if status.tried_at is None:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(status.tried_at)
    return max(0, int(age.total_seconds() * 1000))


def _stuck(pod: Object) -> str | None:
    """Why a Pod that has not begun for long will not; None while it may."""
    made = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    if (datetime.now(UTC) - made).total_seconds() < build.DEADLINE_S or has_ended(pod):
        return None
    conditions: list[Any] = pod.get("status", {}).get("conditions") or []
    why = [c["message"] for c in conditions if c["status"] == "False" and c.get("message")]
    return f"its Pod has not ended after {build.DEADLINE_S} s: {'; '.join(why)}"


def _said(pod: Object) -> dict[str, Any]:
    """What the Pod's container said when it ended."""
    statuses: list[Any] = pod.get("status", {}).get("containerStatuses") or []
    ended = statuses[0].get("state", {}).get("terminated", {}) if statuses else {}
    try:
        found = json.loads(ended.get("message") or "{}")
    except ValueError:
        return {"error": str(ended.get("message"))}
    return found if isinstance(found, dict) else {}


def _taken(said: dict[str, Any]) -> BackupTaken | None:
    try:
        return BackupTaken(
            file=str(said["file"]).removeprefix("/backup/"),
            genesis_hash=str(said["genesis"]),
            epoch=int(said["epoch"]),
            index=int(said["index"]),
            revision=int(said["revision"]),
            size_bytes=int(said["bytes"]),
            seconds=float(said["seconds"]),
            time=utc_now(),
        )
    except (KeyError, ValueError, TypeError):
        return None


def _permit(admin: Ed25519Signer, genesis: bytes) -> bytes:
    unsigned = Permit(int(time.time() * 1000) + PERMIT_MS, bytes(64))
    sig = admin.sign(unsigned.signing_bytes(genesis))
    return msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))
