"""The custom resource DWCPBackup as pydantic models: backups of one cluster onto a volume."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from dwcp_operator import rules
from dwcp_operator.fields import Label, Model, Time, refuse
from dwcp_operator.resources import Metadata

KIND: Final = "DWCPBackup"
PLURAL: Final = "dwcpbackups"
SINGULAR: Final = "dwcpbackup"
SHORT_NAMES: Final = ("dwcpb",)


def _every(value: str) -> str:
    refuse(rules.backup_period_problem(value))
    return value


class BackupSpec(Model):
    """What is to be backed up, where to, and how often."""

    cluster: Label
    """Name of the DWCPCluster, in the same namespace."""
    claim: Annotated[str, Field(min_length=1, max_length=253)]
    """PersistentVolumeClaim that backups are written to. Other targets are not yet supported."""
    every: (
        Annotated[
            str,
            Field(json_schema_extra={"pattern": rules.DURATION_PATTERN, "maxLength": 8}),
            AfterValidator(_every),
        ]
        | None
    ) = None
    """Time from one backup to the next, such as 3600s; absent for one backup."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    """Backups of the cluster that stay on the volume; older ones are removed after a new one."""
    suspend: bool = False
    """Take none while this is true."""

    @property
    def every_ms(self) -> int | None:
        """The period in milliseconds."""
        return None if self.every is None else rules.parse_duration_ms(self.every)


class BackupCondition(Model):
    """Whether the last attempt gave a backup that holds."""

    type: Literal["Complete"]
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=128)]
    """Why, as one word of an enumeration."""
    message: Annotated[str, Field(max_length=4096)]
    """Why, as a sentence, and what to do."""
    observed_generation: int
    """The generation of the spec that was looked at."""
    last_transition_time: Time
    """When the status last changed."""


class BackupTaken(Model):
    """The newest backup; it was checked from the genesis to its last entry."""

    file: str
    """Path on the volume."""
    genesis_hash: str
    """Hash of the cluster's genesis, which a restore asks for."""
    epoch: int
    """The epoch in force."""
    index: int
    """The last log entry in it."""
    revision: int
    """Revision of the keys."""
    size_bytes: int
    """Size of the file."""
    seconds: float
    """How long it took."""
    time: Time
    """When it was complete."""


class BackupStatus(Model):
    """What has been taken."""

    observed_generation: int = 0
    """The generation of the spec that was last acted on."""
    last: BackupTaken | None = None
    """The newest backup."""
    taken: int = 0
    """Backups that were taken for this resource."""
    failures: int = 0
    """Attempts in a row that failed."""
    tried_at: Time | None = None
    """When the last attempt ended."""
    conditions: Annotated[tuple[BackupCondition, ...], Field(strict=False)] = ()
    """Complete."""

    def manifest(self) -> dict[str, object]:
        """The status as in the resource: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class DWCPBackup(Model):
    """Backups of a cluster, once or again and again."""

    api_version: Literal["dwcp.dev/v1alpha1"]
    kind: Literal["DWCPBackup"]
    metadata: Metadata
    spec: BackupSpec
    status: BackupStatus | None = None
