"""From local to safe: an operation waits in its author's outbox for f+1 signed receipts.

One replica that took an operation may lie, or lose it. Once f+1 members signed that they hold it
durably, an honest one does, and gossip brings it to all. Until then the author sends it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from dwcp.wire.documents import Operation, Receipt, receipt_signing_bytes
from dwcp.wire.signing import SIGNATURE_BYTES, Scope, Signer, Verifier

OUTBOX_MAX: Final = 10_000

Status = Literal["local", "safe", "unknown"]


@dataclass(frozen=True, slots=True)
class Voters:
    """The members of one epoch by number: their identity keys, and where signatures count."""

    epoch: int
    scope: Scope
    keys: Sequence[bytes]

    @property
    def faults_max(self) -> int:
        """f: how many of them may lie."""
        return (len(self.keys) - 1) // 3


def make_receipt(
    document: str, operation: bytes, member: int, voters: Voters, signer: Signer
) -> Receipt:
    """A member's receipt; only for an operation that it holds durably."""
    unsigned = Receipt(document, operation, voters.epoch, member, bytes(SIGNATURE_BYTES))
    sig = signer.sign(receipt_signing_bytes(voters.scope, unsigned))
    return Receipt(document, operation, voters.epoch, member, sig)


class OutboxFull(Exception):  # noqa: N818 - named as the protocol names it
    """Too many operations wait for receipts: wait for the cluster before editing on."""


@dataclass(slots=True)
class _Waiting:
    operation: Operation
    members: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Outbox:
    """An author's operations of one document until f+1 members of the epoch hold them.

    Receipts of another epoch do not count: after a change of members, ask again.
    """

    document: str
    voters: Voters
    verifier: Verifier
    refused: int = 0
    _waiting: dict[bytes, _Waiting] = field(default_factory=dict)
    _safe: dict[bytes, None] = field(default_factory=dict)

    def add(self, operation: Operation) -> None:
        """Keep an operation; make it durable before sending it. Raises OutboxFull."""
        self.room()
        self._waiting.setdefault(operation.hash(), _Waiting(operation))

    def drop(self, operation: bytes) -> None:
        """This operation is no more: it was made again as another."""
        self._waiting.pop(operation, None)

    def room(self) -> None:
        """Raises OutboxFull when too much waits already."""
        if len(self._waiting) >= OUTBOX_MAX:
            raise OutboxFull(f"{OUTBOX_MAX} operations wait for receipts: reach more members first")

    def status(self, operation: bytes) -> Status:
        """local until f+1 receipts, then safe; unknown for what was never here (or long ago)."""
        if operation in self._waiting:
            return "local"
        return "safe" if operation in self._safe else "unknown"

    def unsafe(self) -> list[Operation]:
        """What has to be sent again, in the order in which it was made."""
        return [waiting.operation for waiting in self._waiting.values()]

    def receive(self, receipt: Receipt) -> bool:
        """Count a receipt; True when it made the operation safe. Bad ones are counted apart."""
        if receipt.operation in self._safe:
            return False
        waiting = self._waiting.get(receipt.operation)
        if waiting is None or not self._valid(receipt):
            self.refused += 1
            return False
        waiting.members.add(receipt.member)
        if len(waiting.members) <= self.voters.faults_max:
            return False
        del self._waiting[receipt.operation]
        self._safe[receipt.operation] = None
        if len(self._safe) > OUTBOX_MAX:
            del self._safe[next(iter(self._safe))]
        return True

    def change_epoch(self, voters: Voters) -> None:
        """Count anew among other members; what was safe stays so."""
        self.voters = voters
        for waiting in self._waiting.values():
            waiting.members.clear()

    def _valid(self, receipt: Receipt) -> bool:
        voters = self.voters
        if receipt.document != self.document or receipt.epoch != voters.epoch:
            return False
        if receipt.member >= len(voters.keys):
            return False
        message = receipt_signing_bytes(voters.scope, receipt)
        return self.verifier.verify(voters.keys[receipt.member], message, receipt.sig)
