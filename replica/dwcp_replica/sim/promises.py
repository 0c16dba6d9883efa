"""One honest member's promises over all epochs: a ledger for each, and what ends and begins them.

A SEAL never changes, and nothing is signed in its epoch's log after it has left; in the slot one
value is accepted in a view, nothing is signed below the view asked for, and nothing leaves before
what it depends on is durable (epochs.md, Invariants).
"""

from __future__ import annotations

import msgspec

from dwcp.wire.epochs import Ready, Seal, SlotChange, SlotProposal, SlotVote
from dwcp.wire.peer import (
    Append,
    CheckpointVote,
    Commit,
    NewView,
    PeerMessage,
    Prepare,
    Transfer,
    ViewChange,
    Vote,
)
from dwcp_replica.core.effects import (
    CertificateRecord,
    ElectionRecord,
    EntryRecord,
    EpochBegun,
    Record,
    SealedRecord,
    SlotChangeRecord,
    SlotPreparedRecord,
    SlotVoteRecord,
    ViewChangeRecord,
)
from dwcp_replica.core.epochs.messages import epoch_of
from dwcp_replica.sim.ledger import BrokenPromiseError, Ledger, Place

LOG_VOTES = Prepare | Commit | CheckpointVote | ViewChange | NewView | Vote | Append | Transfer


class Promises:
    """What one member's disk ever held, and what it has signed, by epoch."""

    def __init__(self, window: int) -> None:
        self.entries: set[bytes] = set()
        self.certified: set[Place] = set()
        self.states: dict[int, bytes] = {}
        self.begun: set[int] = {0}
        self.spoke_in = -1
        self._window = window
        self._ledgers: dict[int, Ledger] = {}
        self._evidence: set[bytes] = set()
        self._seals: dict[int, bytes] = {}
        self._sealed: set[int] = set()
        self._accepted: dict[tuple[int, int], bytes] = {}
        self._prepared: set[tuple[int, int, bytes]] = set()
        self._asked: dict[tuple[int, int], bytes] = {}
        self._view: dict[int, int] = {}
        self._voted: dict[tuple[int, int, str], bytes] = {}

    def committed(self, epoch: int, view: int, value: bytes) -> bool:
        """True when this member may have committed the value: it was prepared, durably."""
        return (epoch, view, value) in self._prepared

    def of(self, epoch: int) -> Ledger:
        """The promises of one epoch's log."""
        if epoch not in self._ledgers:
            shared = (self.entries, self.certified, self.states, self._evidence)
            self._ledgers[epoch] = Ledger(self._window, shared)
        return self._ledgers[epoch]

    def durable(self, record: Record) -> None:
        """The disk holds a record."""
        match record:
            case SealedRecord() | SlotVoteRecord() | SlotPreparedRecord() | SlotChangeRecord():
                self._ending(record)
            case EntryRecord(entry):
                self.of(entry.header.epoch).durable(record)
            case CertificateRecord(certificate):
                self.of(certificate.header.epoch).durable(record)
            case ViewChangeRecord(change):
                self.of(change.epoch).durable(record)
            case ElectionRecord(election):
                self.of(election.epoch).durable(record)
            case EpochBegun(certified):
                self.begun.add(certified.record.epoch)
                ledger = self.of(certified.record.epoch)
                ledger.stable = ledger.start = certified.record.start_index
            case _:
                self.of(max(self.begun)).durable(record)

    def _ending(
        self, record: SealedRecord | SlotVoteRecord | SlotPreparedRecord | SlotChangeRecord
    ) -> None:
        match record:
            case SealedRecord(seal):
                if self._seals.setdefault(seal.epoch, encoded(seal)) != encoded(seal):
                    raise BrokenPromiseError(f"wrote two SEALs of epoch {seal.epoch}")
            case SlotVoteRecord(view, value):
                key = (value.record.epoch - 1, view)
                if self._accepted.setdefault(key, value.record.hash()) != value.record.hash():
                    raise BrokenPromiseError(f"accepted two values in slot view {key}")
            case SlotPreparedRecord(certificate):
                self._prepared.add((certificate.epoch, certificate.view, certificate.value))
            case SlotChangeRecord(change):
                self._asked[(change.epoch, change.view)] = encoded(change)

    def sent(self, message: PeerMessage, life: int, *, mute: bool) -> None:
        """A message leaves. Raises BrokenPromiseError when it must not."""
        if mute and isinstance(message, Seal | SlotVote | SlotChange | SlotProposal | Ready):
            raise BrokenPromiseError(f"a mute replica signed {type(message).__name__}")
        epoch = epoch_of(message)
        if isinstance(message, LOG_VOTES) and epoch in self._sealed and not mute:
            raise BrokenPromiseError(f"signed {type(message).__name__} in sealed epoch {epoch}")
        if isinstance(message, LOG_VOTES | SlotVote | SlotChange | Seal | Ready):
            self.spoke_in = max(self.spoke_in, epoch or 0)
        match message:
            case Seal():
                self._sealed.add(message.epoch)
                self._same(self._seals.get(message.epoch), encoded(message), "SEAL")
                self.of(message.epoch).shows_certificate(message, "SEAL")
            case SlotVote():
                self._slot_vote(message)
            case SlotChange():
                held = self._asked.get((message.epoch, message.view))
                self._same(held, encoded(message), "slot VIEW-CHANGE")
                self._shows_prepared(message)
                self._view[message.epoch] = max(self._view.get(message.epoch, 0), message.view)
            case SlotProposal():
                held = self._accepted.get((message.epoch, message.view))
                self._same(held, message.value.record.hash(), "slot proposal")
                self._sealed_before(message.epoch)
            case Ready():
                if message.epoch not in self.begun:
                    raise BrokenPromiseError(f"READY in epoch {message.epoch} without its record")
            case _:
                self.of(max(self.begun) if epoch is None else epoch).sent(message, life, mute=mute)

    def _slot_vote(self, vote: SlotVote) -> None:
        self._sealed_before(vote.epoch)
        if vote.view < self._view.get(vote.epoch, 0):
            raise BrokenPromiseError(f"a slot vote of view {vote.view} after asking for more")
        said = self._voted.setdefault((vote.epoch, vote.view, vote.phase), vote.value)
        if said != vote.value:
            raise BrokenPromiseError(f"two slot votes in view {vote.view}")
        if vote.phase == "slot-prepare":
            self._same(self._accepted.get((vote.epoch, vote.view)), vote.value, "slot PREPARE")
        elif (vote.epoch, vote.view, vote.value) not in self._prepared:
            raise BrokenPromiseError("a slot COMMIT before its certificate was durable")

    def _shows_prepared(self, change: SlotChange) -> None:
        """What I have committed in the slot, or something prepared later, is in my VIEW-CHANGE."""
        committed = [
            view
            for epoch, view, phase in self._voted
            if epoch == change.epoch and phase == "slot-commit" and view < change.view
        ]
        shown = -1 if change.prepared is None else change.prepared.view
        if committed and shown < max(committed):
            raise BrokenPromiseError(f"slot VIEW-CHANGE hides what view {max(committed)} prepared")

    def _sealed_before(self, epoch: int) -> None:
        if epoch not in self._seals:
            raise BrokenPromiseError(f"signed in the slot before epoch {epoch} was sealed")

    @staticmethod
    def _same(held: bytes | None, said: bytes, what: str) -> None:
        if held is None:
            raise BrokenPromiseError(f"{what} was sent before it was durable")
        if held != said:
            raise BrokenPromiseError(f"another {what} than the durable one")


def encoded(message: object) -> bytes:
    """The bytes of a message."""
    return msgspec.msgpack.encode(message)
