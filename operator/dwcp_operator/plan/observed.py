"""What is wanted and what is seen, in words that Kubernetes and local processes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Volume(StrEnum):
    """What is known of a member's volume."""

    ABSENT = "absent"
    PRESENT = "present"


class Source(StrEnum):
    """What is known of who serves a backup."""

    ABSENT = "absent"
    STARTING = "starting"
    SERVING = "serving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """How members are brought to another revision.

    `steady_ms`: so long a restarted member must have been ready before the next one is taken down.
    `deadline_ms`: a member that has not come back after so long has failed the step.
    `opens_in_ms`: until the maintenance window opens, 0 while it is open or when there is none.
    `settled`: all members have once run this revision together, so that one that is down now says
    nothing about the revision. `failed`: the revision that the user asks for, which was tried and
    given up for this one.
    """

    deadline_ms: int = 300_000
    steady_ms: int = 0
    opens_in_ms: int = 0
    settled: bool = True
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """What the resource asks for: members by name, in the order of their numbers.

    `adopt`: begin from volumes and the genesis that an earlier cluster left behind. `revision`
    names what members are to be made from; with "" nothing is rolled. `volume_bytes`: the size of
    every volume. `paused`: only look. `hibernate`: stop all members and keep what they hold.
    `restore`: begin from the state in a backup, which somebody must serve to the members.
    `members` are the present ones; `count` is how many there are to be, 0 where that is not known.
    `replace_after_ms`: a member that has been failing for so long is replaced; 0 for never.
    `storage_class`: what volumes are to be made of; a member on another one is replaced.
    """

    cluster: str
    members: tuple[str, ...]
    adopt: bool = False
    revision: str = ""
    rolling: Rolling = field(default_factory=Rolling)
    volume_bytes: int = 0
    paused: bool = False
    hibernate: bool = False
    restore: bool = False
    count: int = 0
    replace_after_ms: int = 0
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """Who the members are: by the newest epoch record that was verified, or by an older memory.

    `used` are the names in any record: none is ever used again. `is_current`: the record itself
    was seen, and not only remembered.
    """

    epoch: int
    members: tuple[str, ...]
    used: frozenset[str]
    is_current: bool = True


@dataclass(frozen=True, slots=True)
class EvidenceSeen:
    """What a member says it can prove against another; a claim until f+1 members say so."""

    member: str
    kind: str
    view: int
    index: int


@dataclass(frozen=True, slots=True)
class SwitchSeen:
    """The latest change of the decided mode as a member shows it: where in the log, and why.

    `time` is agreed time (RFC 3339); the numbers are those of the network that led to
    it: microseconds, a share, bits per second, None where nothing was known.
    """

    before: str
    after: str
    reason: str
    index: int
    time: str
    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A member's status, its signature verified with a fresh nonce against the genesis.

    Indexes and views are counts; `seen_at` is RFC 3339. Verified means that the member said
    it, never that it is true. `illness`: what it says keeps it from committing. `suspects`: whom
    it suspects, with one word why.
    """

    epoch: int
    view: int
    active: bool
    primary: str
    mode: str
    role: str
    final_index: int
    applied_index: int
    stable_checkpoint: int
    stable_state: str
    ready: bool
    mute: str | None
    evidence: tuple[EvidenceSeen, ...]
    seen_at: str
    settled: bool = False
    illness: str | None = None
    suspects: Mapping[str, str] = field(default_factory=dict)
    switch: SwitchSeen | None = None


@dataclass(frozen=True, slots=True)
class GenesisSeen:
    """The genesis a member holds: its hash, signed by this cluster's admin; all signatures in?"""

    hash: bytes
    complete: bool


@dataclass(frozen=True, slots=True)
class GenesisHeld:
    """The genesis that the operator keeps: its hash, the members' keys, who has signed.

    `published` says that the complete one was made known to clients.
    """

    hash: bytes
    identities: Mapping[str, bytes]
    signed: frozenset[str]
    published: bool

    @property
    def complete(self) -> bool:
        """True when every member has signed."""
        return self.signed == frozenset(self.identities)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberObserved:
    """One member as seen now.

    `identity` is its public key, proof and MAC verified. `attempts` counts runs in a row that
    ended before the member was steady; `stopped_for_ms` is the time since the last of them.
    `revision` names what the running member was made from, "" when that is not known. `serving`:
    who runs it finds it ready, whatever it says itself. `unready_for_ms` is the time since it was
    not found so, `steady_for_ms` the time since it is. `needs_restart`: its volume has grown, and
    shows it only after a restart. `volume_bytes` is what its volume was asked to hold, 0 when
    unknown; `growing`: it does not hold that yet. `storage_class`: what its volume is made of, None
    when unknown. `zone`: the failure domain that it runs in, None when unknown. `failing_for_ms`:
    so long it has not voted, or has been far behind, while the others had a quorum.
    """

    name: str
    volume: Volume = Volume.ABSENT
    running: bool = False
    endpoint: str = ""
    attempts: int = 0
    last_exit: int | None = None
    stopped_for_ms: int = 0
    identity: bytes | None = None
    genesis: GenesisSeen | None = None
    report: Report | None = None
    revision: str = ""
    serving: bool = False
    unready_for_ms: int = 0
    steady_for_ms: int = 0
    needs_restart: bool = False
    volume_bytes: int = 0
    growing: bool = False
    storage_class: str | None = None
    zone: str | None = None
    failing_for_ms: int = 0

    @property
    def ready(self) -> bool:
        """True when it runs and says, signed, that it votes."""
        return self.running and self.report is not None and self.report.ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that is seen now. A member that is not listed has never been seen.

    `source`: what is known of who serves the backup that the cluster begins from. `joining` are to
    become members: what they report counts for nobody else; `former` have a process left.
    """

    keys: bool = False
    source: Source = Source.ABSENT
    genesis: GenesisHeld | None = None
    members: tuple[MemberObserved, ...] = field(default=())
    membership: Membership | None = None
    joining: tuple[MemberObserved, ...] = ()
    former: tuple[str, ...] = ()

    def member(self, name: str) -> MemberObserved:
        """The member with this name; one without volume and process when it is not listed."""
        return next((m for m in self.members if m.name == name), MemberObserved(name=name))
