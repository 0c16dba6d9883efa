"""What the planner can ask for. The actions carry steps out; reports and waits act on nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WaitReason(StrEnum):
    """What is being waited for; the reason of the condition Progressing."""

    ADOPTED_VOLUME = "WaitingForAdoptedVolume"
    BACK_OFF = "BackingOff"
    IDENTITY = "WaitingForIdentity"
    START = "WaitingForStart"
    READY = "WaitingForReady"
    PAUSED = "Paused"
    ROLLED = "WaitingForRolledMember"
    QUORUM = "WaitingForQuorum"
    WINDOW = "WaitingForMaintenanceWindow"
    GROWTH = "WaitingForVolumeGrowth"
    BACKUP = "WaitingForBackup"
    LEARNERS = "WaitingForLearners"
    SETTLED = "WaitingForSettledEpoch"


@dataclass(frozen=True, slots=True)
class EnsureKeys:
    """Make what does not exist yet: cluster id, admin key, clients' keys, members' tokens."""


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Make the member's empty volume; its key is made on it by the member itself."""

    member: str


@dataclass(frozen=True, slots=True)
class StartMember:
    """Start the member on its volume."""

    member: str


@dataclass(frozen=True, slots=True)
class CreateGenesis:
    """Make the genesis record from the verified identities, once: refuse when one exists."""


@dataclass(frozen=True, slots=True)
class ServeBackup:
    """Serve the backup that the cluster begins from to its members."""


@dataclass(frozen=True, slots=True)
class DropBackup:
    """Serve the backup no longer: every member has taken its state from it."""


@dataclass(frozen=True, slots=True)
class AdoptGenesis:
    """Take over the genesis that this member holds, after checking its signatures."""

    member: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class DeliverGenesis:
    """Give the member the genesis with all signatures known, and keep the signature it adds."""

    member: str


@dataclass(frozen=True, slots=True)
class CompleteGenesis:
    """Publish the genesis, which every member has signed."""


@dataclass(frozen=True, slots=True)
class RollMember:
    """Stop the member, so that it is started again as the resource asks.

    It hands over first when it leads. Whoever carries this out may be refused by the same budget
    that guards against evictions, and then asks again.
    """

    member: str


@dataclass(frozen=True, slots=True)
class StopMember:
    """Stop the member, and keep its volume: the cluster hibernates."""

    member: str


@dataclass(frozen=True, slots=True)
class InviteMember:
    """Show a new replica the cluster that it is to join: it learns from then on."""

    member: str


@dataclass(frozen=True, slots=True)
class AnnounceMembers:
    """Tell the members who is to join them, so that they let them learn; it is not remembered."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderMembers:
    """Order, with the admin's key, that these be the members from the next epoch on."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Stop who is no member any more, or was to join and is not wanted now."""

    member: str


@dataclass(frozen=True, slots=True)
class GrowVolume:
    """Ask for a volume of this size; a volume is never asked to shrink."""

    member: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ReportRollFailed:
    """A member did not come back with this revision: no other is taken down for it."""

    member: str
    revision: str


@dataclass(frozen=True, slots=True)
class ReportLostVolume:
    """The volume of a member of the genesis is gone, and its key with it."""

    member: str


@dataclass(frozen=True, slots=True)
class ReportForeignVolume:
    """The member's volume holds another key or another cluster's genesis."""

    member: str


@dataclass(frozen=True, slots=True)
class ReportForeignGenesis:
    """Members hold genesis records that differ, so that none can be taken over."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportStopped:
    """The member stopped with an exit code that says not to start it again."""

    member: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Nothing to do for these members but to look again, after `delay_ms` when it is known."""

    reason: WaitReason
    members: tuple[str, ...]
    delay_ms: int | None = None


Step = (
    EnsureKeys
    | CreateVolume
    | StartMember
    | CreateGenesis
    | ServeBackup
    | DropBackup
    | AdoptGenesis
    | DeliverGenesis
    | CompleteGenesis
    | RollMember
    | StopMember
    | GrowVolume
    | InviteMember
    | AnnounceMembers
    | OrderMembers
    | RemoveMember
    | ReportRollFailed
    | ReportLostVolume
    | ReportForeignVolume
    | ReportForeignGenesis
    | ReportStopped
    | WaitFor
)
