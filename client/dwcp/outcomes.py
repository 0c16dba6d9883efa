"""What becomes of the operations that were submitted under one ticket."""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.operations import (
    DeleteRangeResponse,
    LeaseRevokeResponse,
    PutResponse,
    Result,
    TxnResponse,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """Executed at `index`; `revision` is the store's after the ticket's last operation.

    Without `ordered` it was a read beside the log: of the state at `revision`, after `index`.
    """

    index: int
    revision: int
    results: tuple[Result, ...]
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Declined:
    """Never executed; `code` is a gRPC status code."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Sent, and given up by the replicas: executed or not."""

    message: str


@dataclass(frozen=True, slots=True)
class Broken:
    """f+1 replicas signed an answer that does not fit the operations."""

    message: str


TicketOutcome = Answered | Declined | Unknown | Broken


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a ticket stands, for an error message; members by number."""

    sent: bool
    matching: int = 0
    needed: int = 0
    heard: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()


def writes(result: Result) -> int:
    """How many revisions the operation with this result made: 0 or 1."""
    match result:
        case PutResponse():
            return 1
        case DeleteRangeResponse(deleted=deleted) | LeaseRevokeResponse(deleted=deleted):
            return int(deleted > 0)
        case TxnResponse(responses=responses):
            return max(map(writes, responses), default=0)
        case _:
            return 0
