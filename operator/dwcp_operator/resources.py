"""The custom resource DWCPCluster as pydantic models: what users write and what they read back.

The custom resource definition (crds/) and its reference page (docs/reference/) are generated
from these models; field docstrings are their descriptions. Field names are camelCase in a
manifest and snake_case here. Unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dwcp_operator import rules
from dwcp_operator.access import (
    AccessStatus,
    ClientAccess,
    Gateway,
    GatewayStatus,
    Tls,
    access_problem,
    gateway_problem,
)
from dwcp_operator.documents import Documents
from dwcp_operator.features import Features
from dwcp_operator.fields import EMPTY, Label, Model, Time, Unique, refuse
from dwcp_operator.modes import Modes, ModeSwitchStatus
from dwcp_operator.pods import Monitoring, Placement, PodTemplate, Resources, Upgrade

GROUP: Final = "dwcp.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "DWCPCluster"
PAUSED_ANNOTATION: Final = "dwcp.dev/paused"
RESTART_ANNOTATION: Final = "dwcp.dev/restart"
PLURAL: Final = "dwcpclusters"
SINGULAR: Final = "dwcpcluster"
SHORT_NAMES: Final = ("dwcp",)
CATEGORIES: Final = ("all",)
API_VERSION: Final = f"{GROUP}/{VERSION}"

CONDITION_TYPES: Final = (
    "Available",
    "Progressing",
    "Degraded",
    "QuorumAtRisk",
    "ByzantineFault",
    "ModeSettled",
    "ZonesSpread",
)


def _replicas(value: int) -> int:
    refuse(rules.replicas_problem(value))
    return value


def _trust(value: str) -> str:
    refuse(rules.trust_problem(value))
    return value


def _size(value: str) -> str:
    refuse(rules.size_problem(value))
    return value


def _request_timeout(value: str) -> str:
    refuse(rules.request_timeout_problem(value))
    return value


def _replace_after(value: str) -> str:
    refuse(rules.replace_after_problem(value))
    return value


def _name(value: str) -> str:
    refuse(rules.name_problem(value))
    return value


def _file(value: str) -> str:
    refuse(rules.file_problem(value))
    return value


class Storage(Model):
    """The volume of each member."""

    size: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.SIZE_PATTERN, "maxLength": 8}),
        AfterValidator(_size),
    ] = "1Gi"
    """Size of each member's volume. It may grow, where the StorageClass allows it; a growth that
    was refused may be taken back. Local clusters do not enforce it."""
    storage_class_name: Label | None = None
    """StorageClass of the volumes; the cluster's default class when absent. With another one the
    members are replaced one after the other by members on volumes of that class. Unused locally."""
    reclaim: Literal["Retain", "Delete"] = "Retain"
    """What happens to the volumes when the resource is deleted: Retain keeps them, so that
    another cluster can adopt them; Delete removes them and everything that is stored."""


class AdoptedVolume(Model):
    """A retained volume and the member whose key lies on it."""

    member: Label
    """Name of the member, such as demo-0."""
    claim: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the PersistentVolumeClaim."""


class Adopt(Model):
    """The volumes of an earlier cluster."""

    cluster_id: Annotated[str, Field(pattern=rules.CLUSTER_ID_PATTERN)]
    """Id of the earlier cluster, as its status and its volumes' labels say: 32 hex digits."""
    volumes: Annotated[
        tuple[AdoptedVolume, ...],
        Field(strict=False, min_length=4, max_length=rules.REPLICAS_MAX),
    ]
    """One volume for each member that the earlier cluster had; spec.replicas may be another
    number, which is changed to once the members are back."""


class BackupSource(Model):
    """A backup that another cluster's members have signed for."""

    claim: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """PersistentVolumeClaim with the backup. Unused locally."""
    file: Annotated[
        str,
        Field(min_length=1, max_length=512, json_schema_extra={"pattern": rules.FILE_PATTERN}),
        AfterValidator(_file),
    ]
    """The backup's file: a path on the claim's volume, or on this machine."""
    genesis_hash: Annotated[str, Field(pattern=rules.HASH_PATTERN)]
    """Hash of the genesis of the cluster that the backup is of, as its status says: 64 hex digits.
    The backup proves everything else itself."""
    accepted_loss: Annotated[str, Field(max_length=1024)] = ""
    """What may be lost, in your words, when the earlier cluster has lost its quorum for good; it
    is kept in the genesis of this one."""


class Bootstrap(Model):
    """How the cluster begins: exactly one of the fields."""

    adopt: Adopt | None = None
    """Begin from volumes that an earlier cluster of the same name left behind."""
    backup: BackupSource | None = None
    """Begin from the state in a backup, with new members and keys."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.adopt is None) == (self.backup is None):
            refuse(rules.ONE_BOOTSTRAP)
        return self


class ClusterSpec(Model):
    """What the user wants."""

    replicas: Annotated[
        int,
        AfterValidator(_replicas),
        Field(json_schema_extra={"format": "int32"}),
    ] = 4
    """Number of members: 3f+1, which stays correct while f of them lie and available while f of
    them are down. 4 tolerates 1, 7 tolerates 2, 10 tolerates 3."""
    mode: Literal["Auto", "Datacenter", "Hybrid", "Internet"] = "Auto"
    """Which mode a new cluster runs: Datacenter is Raft, Internet is PBFT, Hybrid is Raft that
    gives way to PBFT and comes back. Auto begins as Internet and follows the measured network where
    spec.modes.detection is true."""
    modes: Modes = Field(default_factory=Modes, json_schema_extra=EMPTY)
    """How the members measure their network and choose the mode."""
    features: Features = Field(default_factory=Features, json_schema_extra=EMPTY)
    """Parts of mode detection, each on a share of the members; can be changed at any time."""
    trust: Annotated[Literal["Byzantine", "Crash"], AfterValidator(_trust)] = "Byzantine"
    """What an answer withstands. Byzantine: f members that lie. Crash is not yet supported."""
    storage: Storage = Field(default_factory=Storage, json_schema_extra=EMPTY)
    """The volume of each member."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the members; the operator's own image when absent. Unused locally."""
    resources: Resources = Field(default_factory=Resources, json_schema_extra=EMPTY)
    """Compute resources of each member. Unused locally."""
    placement: Placement = Field(default_factory=Placement, json_schema_extra=EMPTY)
    """Where members run. Unused locally."""
    upgrade: Upgrade = Field(default_factory=Upgrade, json_schema_extra=EMPTY)
    """How a change of image, resources or placement is rolled out. Unused locally."""
    monitoring: Monitoring = Field(default_factory=Monitoring, json_schema_extra=EMPTY)
    """What is made for Prometheus and Grafana. Unused locally."""
    replace_after: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.DURATION_PATTERN, "maxLength": 8}),
        AfterValidator(_replace_after),
    ] = "1800s"
    """A member that has not voted, or has lagged, for so long is replaced by another one, as long
    as the others have a quorum: its node may be gone for good. 30s or more; 0s for never, which is
    what to say before longer maintenance. A member whose volume is gone, or that is proven to lie,
    is replaced at once. Unused locally."""
    hibernate: bool = False
    """Stop all members and keep their volumes; false wakes them. `dwcp down` does it locally."""
    checkpoint_interval: Annotated[
        int, Field(ge=rules.CHECKPOINT_INTERVAL_MIN, le=rules.CHECKPOINT_INTERVAL_MAX)
    ] = 100
    """Log entries between two checkpoints."""
    request_timeout: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.DURATION_PATTERN, "maxLength": 8}),
        AfterValidator(_request_timeout),
    ] = "2s"
    """How long a member waits for a request to be executed before it asks for another primary:
    100ms to 60s."""
    fast_reads: bool = False
    """Linearizable reads skip the log when a quorum of members answers alike; writes wait for a
    quorum of equal replies then, where f+1 are enough otherwise."""
    clients: Annotated[
        tuple[Label, ...],
        Field(strict=False, min_length=1, max_length=16),
        Unique,
    ] = ("default",)
    """Names of the clients that may read and write; a key is made for each of them."""
    documents: Documents | None = None
    """How documents are handled; absent: as clients with an administrator's rights have set it."""
    access: Annotated[tuple[ClientAccess, ...], Field(strict=False, max_length=16)] | None = None
    """What clients may do. A client without an entry may do everything. When the field is absent,
    what was agreed on through the log stays."""
    tls: Tls | None = None
    """TLS on the members' client port; absent, plain HTTP: requests and answers are signed, and not
    encrypted. Without secretName each member shows the certificate that it made on its volume,
    which the genesis names. Local clusters always speak TLS so."""
    gateway: Gateway | None = None
    """Gateways for programs that speak etcd's API; none when absent."""
    bootstrap: Bootstrap | None = None
    """How the cluster begins; absent for a new, empty cluster."""

    @property
    def request_timeout_ms(self) -> int:
        """The request timeout in milliseconds."""
        duration_ms = rules.parse_duration_ms(self.request_timeout)
        assert duration_ms is not None, f"validated duration: {self.request_timeout}"
        return duration_ms

    @property
    def replace_after_ms(self) -> int:
        """Milliseconds after which a failing member is replaced; 0 for never."""
        duration_ms = rules.parse_duration_ms(self.replace_after)
        assert duration_ms is not None, f"validated duration: {self.replace_after}"
        return duration_ms

    @model_validator(mode="after")
    def _adopts_whole_clusters(self) -> Self:
        adopt = self.adopt
        if adopt is not None and rules.replicas_problem(len(adopt.volumes)) is not None:
            refuse(rules.ADOPTED_COUNT)
        return self

    @model_validator(mode="after")
    def _lets_in_clients(self) -> Self:
        problem = access_problem(self.clients, self.access)
        refuse(None if problem is None else f".access {problem}")
        problem = gateway_problem(self.clients, self.access, self.gateway)
        refuse(None if problem is None else f".gateway {problem}")
        return self

    @property
    def adopt(self) -> Adopt | None:
        """The volumes to begin from, if any."""
        return None if self.bootstrap is None else self.bootstrap.adopt

    @property
    def restore(self) -> BackupSource | None:
        """The backup to begin from, if any."""
        return None if self.bootstrap is None else self.bootstrap.backup

    def manifest(self) -> dict[str, object]:
        """The spec as in a manifest: camelCase, defaults filled in, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Model):
    """One aspect of the cluster's state, as Kubernetes conditions are."""

    type: Literal[
        "Available", "Progressing", "Degraded", "QuorumAtRisk", "ByzantineFault", "ModeSettled",
        "ZonesSpread",
    ]  # fmt: skip
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


class MemberStatus(Model):
    """One member, as its own signed report shows it."""

    name: str
    """Its name; never used again for another member."""
    id: int
    """Its number in the epoch record and in messages."""
    role: Literal["primary", "backup", "leader", "follower", "waiting", "stopped", "unknown"]
    """What it does now: primary or backup in PBFT, leader or follower in Raft."""
    mode: Literal["Datacenter", "Hybrid", "Internet"] | None = None
    """The mode it reports."""
    endpoint: str
    """Base URL of its client API."""
    ready: bool
    """Whether it votes."""
    healthy: bool | None = None
    """Whether it says that it has committed recently, or is idle and able to."""
    illness: Annotated[str, Field(max_length=300)] | None = None
    """What it says keeps it from that."""
    suspicion: Annotated[str, Field(max_length=64)] | None = None
    """What f+1 others suspect it of: lied, unheard, silent, mute, old-epoch or lagging."""
    applied_index: int | None = None
    """The last log entry it has executed."""
    lag: int | None = None
    """Log entries it is behind what f+1 members know to be final."""
    view: int | None = None
    """The view it is in; in Raft, the term."""
    last_seen: Time | None = None
    """When its last verified report arrived."""
    failing_since: Time | None = None
    """Since when it has not voted, or has lagged, while the others had a quorum."""
    node: str | None = None
    """The node that it runs on."""
    zone: str | None = None
    """The site that it is dealt to, or the zone of its node where Pods are labelled with it."""
    revision: str | None = None
    """Names what its Pod was made from."""


class UpgradeStatus(Model):
    """What members' Pods are made from."""

    revision: str
    """Names what they are made from now."""
    updated: int
    """Members that are made from it."""
    stable: PodTemplate | None = None
    """What all members have last run together."""
    failed: str | None = None
    """The revision that was asked for and given up, since a member did not come back with it. It
    is tried again when what is asked for changes."""


class MembershipStatus(Model):
    """Who the members are, by the newest epoch record."""

    epoch: int
    """Number of the record."""
    record: Annotated[str, Field(pattern=rules.HASH_PATTERN)]
    """Hash of the record: a fresh anchor for whoever was away."""
    names: Annotated[tuple[str, ...], Field(strict=False)]
    """The members, in the order of their numbers."""
    used: Annotated[tuple[str, ...], Field(strict=False)]
    """Names that were ever a member's: none is used again."""
    joining: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Who is to become a member: written here before anything is made for them."""


class ClusterStatus(Model):
    """What is. Whatever one member says of itself is a claim; epoch, view, primary and mode
    stand here when f+1 verified reports agree on them."""

    observed_generation: int = 0
    """The generation of the spec that was last acted on."""
    mode: Literal["Datacenter", "Hybrid", "Internet"] | None = None
    """The mode that runs."""
    last_switch: ModeSwitchStatus | None = None
    """The latest change of the mode that the members decided, and the network that led to it."""
    epoch: int | None = None
    """The epoch in force."""
    view: int | None = None
    """The view in force; in Raft, the term."""
    primary: str | None = None
    """Name of the member that leads the view or term."""
    ready: str = "0/0"
    """Ready members of all members, such as 4/4."""
    ready_replicas: int = 0
    """Number of ready members."""
    replicas: int = 0
    """Number of members."""
    selector: str = ""
    """Label selector of the members, for the scale subresource."""
    cluster_id: str | None = None
    """Random id, made once: 32 hex digits."""
    genesis_hash: str | None = None
    """Names the genesis record, the root of trust of every client: 64 hex digits."""
    storage_size: Annotated[str, Field(max_length=32)] | None = None
    """The size that volumes have been asked to have, and below which spec.storage.size can not
    go: 2Gi."""
    upgrade: UpgradeStatus | None = None
    """What members' Pods are made from."""
    membership: MembershipStatus | None = None
    """Who the members are, and who is to join them."""
    access: Annotated[tuple[AccessStatus, ...], Field(strict=False)] = ()
    """What clients may do, where spec.access says it, as the members hold it."""
    gateway: GatewayStatus | None = None
    """The gateways."""
    members: Annotated[tuple[MemberStatus, ...], Field(strict=False)] = ()
    """Every member."""
    conditions: Annotated[tuple[Condition, ...], Field(strict=False)] = ()
    """Available, Progressing, Degraded, QuorumAtRisk, ByzantineFault, ModeSettled, ZonesSpread."""

    def manifest(self) -> dict[str, object]:
        """The status as in the resource: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Metadata(BaseModel):
    """What the cluster is called; other metadata of Kubernetes is kept and not read."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Annotated[str, AfterValidator(_name)]
    namespace: Label = "default"
    generation: int = 1
    annotations: dict[str, str] = Field(default_factory=dict)


class DWCPCluster(Model):
    """A cluster of 3f+1 members that keeps small, precious state."""

    api_version: Literal["dwcp.dev/v1alpha1"]
    kind: Literal["DWCPCluster"]
    metadata: Metadata
    spec: ClusterSpec
    status: ClusterStatus | None = None

    @model_validator(mode="after")
    def _adopts_its_own_members(self) -> Self:
        adopt = self.spec.adopt
        if adopt is not None:
            named = sorted(v.member for v in adopt.volumes)
            if named != sorted(self.member_names):
                refuse(rules.adoption_problem(self.metadata.name, len(adopt.volumes)))
        return self

    @property
    def member_names(self) -> tuple[str, ...]:
        """The first members' names; a name is never used again for another member."""
        adopt = self.spec.adopt
        count = self.spec.replicas if adopt is None else len(adopt.volumes)
        return tuple(f"{self.metadata.name}-{i}" for i in range(count))

    @property
    def paused(self) -> bool:
        """True while the operator is to look and do nothing; in doubt it does nothing."""
        return self.metadata.annotations.get(PAUSED_ANNOTATION, "false") not in ("false", "")

    @property
    def template(self) -> PodTemplate:
        """What the user wants members' Pods to be made from."""
        return PodTemplate(
            image=self.spec.image,
            resources=self.spec.resources,
            placement=self.spec.placement,
            features=self.spec.features,
            restart=self.metadata.annotations.get(RESTART_ANNOTATION),
        )
