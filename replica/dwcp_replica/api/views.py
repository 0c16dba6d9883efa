"""The JSON documents of the status and evidence endpoints."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dwcp.wire.records import Mode, Protocol

Suspicion = Literal["lied", "unheard", "silent", "mute", "old-epoch", "lagging"]
"""Why a member can not be counted on: proven to have lied; never heard of; silent for seconds;
it says that it signs nothing; it is in an epoch that is over; more than a checkpoint behind."""
Phase = Literal["Waiting", "Running", "Refused", "Removed"]


class EvidenceSummary(Struct, frozen=True, rename="camel"):
    """Which member is proven to have lied, and where."""

    member: str
    kind: str
    view: int
    index: int


class EvidenceView(Struct, frozen=True, rename="camel"):
    """A proof against a member: `proof` is the MessagePack of a wire Evidence."""

    member: str
    kind: str
    view: int
    index: int
    proof: bytes


class PeerView(Struct, frozen=True, rename="camel"):
    """Another replica, as this one sees it.

    `role`: whether it is a member of the present record, a learner that an order of the admin
    named, or a former member. `connected`: our connection to it stands. `last_contact_ms`:
    milliseconds since its last frame, null when there was none. `final_index`, `view` and `epoch`:
    what it said last, a hint. The link to it as it was measured, null where it is not known: round
    trip and jitter in microseconds, the share of segments sent again, bits per second. `lag`: the
    entries that are final here and, as it says, not there. `suspicion`: why it can not be counted
    on now, null while nothing speaks against it.
    """

    name: str
    connected: bool
    last_contact_ms: int | None
    final_index: int | None
    view: int | None
    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None
    epoch: int | None = None
    role: Literal["member", "learner", "former"] = "member"
    lag: int | None = None
    suspicion: Suspicion | None = None


class NetworkView(Struct, frozen=True, rename="camel"):
    """A network: round trip and jitter in microseconds, loss as a share, bits per second."""

    rtt_us: int | None
    jitter_us: int | None
    loss: float | None
    rate_bps: int | None


class SwitchView(Struct, frozen=True, rename="camel"):
    """The latest change of the decided mode, and the network that led to it.

    `index` and `at_ms` (agreed time, Unix milliseconds) say where in the log; `reason` is
    "network" or "forced". Numbers are those of NetworkView.
    """

    before: str
    after: str
    reason: str
    index: int
    at_ms: int
    network: NetworkView


class ModesView(Struct, frozen=True, rename="camel"):
    """What is decided of the mode; `reach` is this member's own network to a quorum.

    `network`: the median of the members' reports. `asked`: the mode that the network has asked
    for since `asked_since_ms`, while the dwell or the cool-down is not over. `reports`: how many
    members' reports are held. `commit_ms`: what the latest entries took from proposal to final,
    by their median; only the member that leads says it.
    """

    decided: str
    forced: str | None
    asked: str | None
    asked_since_ms: int
    switches: int
    reports: int
    network: NetworkView
    reach: NetworkView
    last_switch: SwitchView | None
    commit_ms: float | None = None


class StatusView(Struct, frozen=True, rename="camel", kw_only=True):
    """Where a replica stands; fields that need a genesis are null while there is none.

    `started_at` is UTC in RFC 3339; hashes are hexadecimal. `record` is the hash of the epoch
    record in force and `members` are its members, in the order of their numbers; `id` is this
    replica's number there. `settled`: a quorum of the members holds the start of the epoch.
    `healthy`: this replica has committed recently, or is idle and able to; else `illness` says what
    keeps it from that. `commit_age_ms`: milliseconds since an entry became final in this life.
    """

    cluster: str
    namespace: str
    cluster_id: str | None = None
    name: str
    id: int | None = None
    phase: Phase
    reason: str | None
    mode: Mode = "Internet"
    modes: ModesView | None = None
    protocol: Protocol = "pbft"
    forced: Protocol | None = None
    epoch: int | None = None
    view: int | None = None
    active: bool = False
    primary: str | None = None
    role: Literal["primary", "backup", "leader", "follower", "learner", "waiting"] = "waiting"
    record: str | None = None
    members: tuple[str, ...] = ()
    is_member: bool = False
    settled: bool = False
    last_index: int = 0
    prepared_index: int = 0
    final_index: int = 0
    applied_index: int = 0
    checkpoint_seq: int = 0
    stable_checkpoint: int = 0
    stable_state: str | None = None
    log_base: int = 0
    log_bytes: int = 0
    saved_index: int = 0
    snapshot_index: int = 0
    state_transfer: int | None = None
    state_transfer_left: int = 0
    revision: int = 0
    pending_requests: int = 0
    ready: bool
    healthy: bool = False
    illness: str | None = None
    commit_age_ms: int | None = None
    mute: str | None = None
    evidence: tuple[EvidenceSummary, ...] = ()
    peers: tuple[PeerView, ...] = ()
    version: str
    pid: int
    started_at: str
