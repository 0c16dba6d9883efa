"""What goes into the core and what comes out of it.

The core is stepped with events and returns a `Ready`: the shell makes `persist` durable,
in order, and only then sends, applies and reports. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from dwcp.wire.envelope import Envelope
from dwcp.wire.epochs import (
    CertifiedRecord,
    Seal,
    SlotCertificate,
    SlotChange,
    SlotProposal,
    SlotValue,
)
from dwcp.wire.peer import (
    AnyElection,
    Certificate,
    Entry,
    Evidence,
    PeerMessage,
    View,
    ViewChange,
    Vote,
)
from dwcp.wire.signing import Count, Hash
from dwcp.wire.switch import AdminSwitch

EVERYONE = -1
"""The address of a message to every other member."""


class ViewChangeReason(StrEnum):
    """Why a replica asked for a new view; a metric label."""

    TIMEOUT = "timeout"
    SILENT = "silent"
    EQUIVOCATION = "equivocation"
    JOINED = "joined"
    RESTARTED = "restarted"
    HANDOVER = "handover"
    READMIT = "readmit"
    QUORUM_LOST = "quorum-lost"


class PanicReason(StrEnum):
    """Why a replica wants the epoch to end in PBFT (epochs.md, PANIC); a metric label."""

    ELECTIONS_FAILED = "elections-failed"
    STARVED = "starved"


# --- durable records: what a replica must find again after a crash -------------------------


class EntryRecord(Struct, frozen=True, array_like=True, tag="entry"):
    """An entry accepted at its index: replaces whatever stood there and everything above."""

    entry: Entry


class CertificateRecord(Struct, frozen=True, array_like=True, tag="certificate"):
    """The highest CC, a final certificate, or a stable checkpoint."""

    certificate: Certificate


class BranchRecord(Struct, frozen=True, array_like=True, tag="branch"):
    """The headers and bodies of the highest CC's chain that a new view is about to replace."""

    entries: tuple[Entry, ...]


class ViewChangeRecord(Struct, frozen=True, array_like=True, tag="view-change"):
    """My own view change: after it nothing below its view is signed, and it is resent as it is."""

    change: ViewChange


class ElectionRecord(Struct, frozen=True, array_like=True, tag="election"):
    """An election certificate that I verified, with the start that it fixes."""

    election: AnyElection
    start_index: Count
    start_hash: Hash
    start_term: Count


class EnteredRecord(Struct, frozen=True, array_like=True, tag="entered"):
    """I take part in the view of this election certificate; its first entry follows.

    `first` is that entry, where the log no longer reaches down to it.
    """

    view: View
    election: Hash
    first: Entry | None = None


class TermRecord(Struct, frozen=True, array_like=True, tag="term"):
    """Raft: my current term, below which I sign nothing, and my vote in it if I gave one."""

    term: View
    vote: Vote | None


class EvidenceRecord(Struct, frozen=True, array_like=True, tag="evidence"):
    """A proof against a member."""

    evidence: Evidence


class BaseRecord(Struct, frozen=True, array_like=True, tag="base"):
    """The log starts above this place, which a stable checkpoint proves; what was below is cut.

    `certificate` and `body` are those of this entry, where they are known: a member that lags is
    shown them. `stamp_ms` is the agreed time there.
    """

    index: Count
    hash: Hash
    term: Count
    stamp_ms: Count
    certificate: Certificate | None
    body: bytes = b""


class SealedRecord(Struct, frozen=True, array_like=True, tag="sealed"):
    """I ended an epoch with this SEAL, and sign nothing more in its log."""

    seal: Seal


class SlotVoteRecord(Struct, frozen=True, array_like=True, tag="slot-vote"):
    """I accepted this value in this view of the slot; `proposed`: I proposed it there."""

    view: Count
    value: SlotValue
    proposed: SlotProposal | None = None


class SlotPreparedRecord(Struct, frozen=True, array_like=True, tag="slot-prepared"):
    """A quorum accepted a value in the slot; durable before my COMMIT."""

    certificate: SlotCertificate


class SlotChangeRecord(Struct, frozen=True, array_like=True, tag="slot-change"):
    """I asked for this view of the slot, and sign nothing below it there."""

    change: SlotChange


class EpochBegun(Struct, frozen=True, array_like=True, tag="epoch"):
    """The next epoch's record is decided; records that follow belong to it."""

    certified: CertifiedRecord


Record = (
    EntryRecord
    | BaseRecord
    | CertificateRecord
    | BranchRecord
    | ViewChangeRecord
    | ElectionRecord
    | EnteredRecord
    | TermRecord
    | EvidenceRecord
    | SealedRecord
    | SlotVoteRecord
    | SlotPreparedRecord
    | SlotChangeRecord
    | EpochBegun
)

# --- events that tests and operators listen to --------------------------------------------


@dataclass(frozen=True, slots=True)
class ViewChangeStarted:
    """This replica asked for `view`."""

    view: int
    reason: ViewChangeReason


@dataclass(frozen=True, slots=True)
class ViewEntered:
    """This replica takes part in `view`, led by `primary`."""

    view: int
    primary: int


@dataclass(frozen=True, slots=True)
class SteppedDown:
    """This replica leads `term` no longer: a quorum does not answer."""

    term: int


@dataclass(frozen=True, slots=True)
class Panicked:
    """This replica wants the epoch to end in PBFT: Raft in `term` can not be trusted to go on."""

    term: int
    reason: PanicReason


@dataclass(frozen=True, slots=True)
class CheckpointStable:
    """A quorum agrees on the state after `index`."""

    index: int
    state: bytes


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """`member` is proven to have lied."""

    member: int
    kind: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message from `sender` was dropped and changed nothing; `reason` is an enumerated word."""

    sender: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateDiverged:
    """This replica's state digest differs from a stable checkpoint: it must stop."""

    index: int
    mine: bytes
    stable: bytes


@dataclass(frozen=True, slots=True)
class TransferStarted:
    """The state at a stable checkpoint is being fetched, since the log no longer leads there."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class TransferDone:
    """The state at a checkpoint is here; `received_bytes` were taken from peers for it."""

    index: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class SourceLied:
    """`member` gave a part of the state that is not the certified one, and is not asked again."""

    member: int
    index: int


@dataclass(frozen=True, slots=True)
class Halted:
    """This replica must not go on: more than f members lied, or its own memory is wrong."""

    reason: str


@dataclass(frozen=True, slots=True)
class EpochSealed:
    """This replica ended `epoch`; `reason` is the kind of trigger, an enumerated word."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class EpochEntered:
    """A record was decided. `me` is this replica's number in it, None when it is no member."""

    certified: CertifiedRecord
    me: int | None


@dataclass(frozen=True, slots=True)
class VoiceFound:
    """A replica that had lost the tail of its log may sign again, from this epoch on."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Retired:
    """A quorum of the members of `epoch` or a later one holds its start state.

    Whoever is a member no more need not serve, and erases its key.
    """

    epoch: int


Event = (
    ViewChangeStarted
    | ViewEntered
    | SteppedDown
    | Panicked
    | CheckpointStable
    | EvidenceFound
    | MessageRefused
    | StateDiverged
    | TransferStarted
    | TransferDone
    | SourceLied
    | Halted
    | EpochSealed
    | EpochEntered
    | VoiceFound
    | Retired
)


# --- outputs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message to one member, or to EVERYONE else."""

    to: int
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What became of a ReadIndex: read once `index` is applied; None: order the read in the log."""

    token: bytes
    index: int | None


@dataclass(slots=True)
class Ready:
    """What the shell must do, in field order: persist (and wait), then the rest.

    `transfer`: after `apply`, make the state one that is being turned into that of this
    checkpoint (index, state digest) and answer with TransferBegun; its parts are then written
    through the state that the core was given. `transferred`: it is that state now; answer with
    Restored.
    """

    persist: list[Record] = field(default_factory=list)
    send: list[Outbound] = field(default_factory=list)
    apply: list[Entry] = field(default_factory=list)
    transfer: tuple[int, bytes] | None = None
    transferred: bool = False
    events: list[Event] = field(default_factory=list)
    reads: list[ReadAnswer] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.persist
            or self.send
            or self.apply
            or self.transfer
            or self.transferred
            or self.events
            or self.reads
        )


# --- inputs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time: `now_ms` never goes back and starts anywhere; `wall_ms` is Unix time."""

    now_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message over the authenticated connection of member `sender`."""

    sender: int
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Submit:
    """An envelope straight from a client, its signature and client already checked."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Applied:
    """The state machine has executed up to `index`; `state` is its digest at a checkpoint.

    A restart finds the state at `saved` or above: the log is needed only from there on.
    `due_ms`: the agreed time from which it wants an entry even if no client asks for anything.
    """

    index: int
    state: bytes | None
    saved: int = 0
    due_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A restart finds the state at `index` or above."""

    index: int


@dataclass(frozen=True, slots=True)
class TransferBegun:
    """The state may be turned into that of the checkpoint at `index`: nothing executes now."""

    index: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The state is that of the checkpoint at `index`, and a restart finds it."""

    index: int


@dataclass(frozen=True, slots=True)
class HandOver:
    """This replica is about to stop, or `to` would lead better: give up the primary role."""

    to: int | None = None


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """A read that need not stand in the log (Raft under Crash trust; Ongaro 2014, section 6.4).

    `token` names it in the ReadAnswer, which comes once this replica has proved that it leads.
    """

    token: bytes


@dataclass(frozen=True, slots=True)
class Learners:
    """Who receives entries without being counted: numbers above the members'."""

    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Order:
    """The admin's order for the next epoch, unchecked; `learn`: its new members may fetch only."""

    switch: AdminSwitch
    learn: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """Somebody whom the shell believes has reason to end the epoch: PANIC."""


Input = (
    Tick
    | Received
    | Submit
    | Applied
    | Saved
    | TransferBegun
    | Restored
    | HandOver
    | ReadIndex
    | Learners
    | Order
    | Alarm
)
