"""etcd's store as one state machine: keys, transactions, leases, alarms, in any `Records`.

What is collected is part of the state: each entry removes a bounded number of events below the
compaction, so that no entry's cost follows the size of what was compacted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from dwcp.wire.frontiers import FrontierGetRequest
from dwcp.wire.operations import (
    AccessGetRequest,
    AccessSetRequest,
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    DefragmentRequest,
    DefragmentResponse,
    DeleteRangeRequest,
    DocumentRequest,
    DocumentResponse,
    Failure,
    HashKVRequest,
    KeyOperation,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    RangeRequest,
    Result,
    StatusRequest,
    StatusResponse,
    TxnRequest,
)
from dwcp.wire.strategies import StrategiesGetRequest, StrategiesSetRequest
from dwcp_replica.store import faults
from dwcp_replica.store.access import AccessTable
from dwcp_replica.store.frontiers import FrontierTable
from dwcp_replica.store.layout import KEY_HEAD, KeyHead, decoder, encode
from dwcp_replica.store.leases import ID_OVERHEAD_BYTES, Leases
from dwcp_replica.store.mvcc import Mvcc
from dwcp_replica.store.records import Records
from dwcp_replica.store.strategies import StrategyTable
from dwcp_replica.store.txn import Transactions, answer_bytes, check
from dwcp_replica.store.undo import UndoRecords

EVENTS_PER_ENTRY: Final = 512
"""How many events below the compaction one entry removes."""

_decode_head = decoder(KeyHead)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Bounds of the key space; all replicas must hold the same.

    service_gap_ms: an entry that comes this much later than a lease fell due means that nothing
    was ordered in between: TTLs start anew.
    """

    quota_bytes: int = 2 * 1024**3
    leases: int = 131_072
    service_gap_ms: int = 3000


class KeyStore:
    """The machine. `save` ends an entry: what is not in `records` by then is not state."""

    def __init__(self, records: Records, limits: KeyLimits | None = None) -> None:
        limits = limits or KeyLimits()
        self._limits = limits
        self._records = UndoRecords(records)
        data = records.get(KEY_HEAD)
        head = KeyHead() if data is None else _decode_head(data)
        self.keys = Mvcc(self._records, head, limits.quota_bytes)
        self.leases = Leases(self.keys, self._records, limits.leases, limits.service_gap_ms)
        self._transactions = Transactions(self.keys, self._records)
        self.access = AccessTable(self._records)
        self.strategies = StrategyTable(self._records)
        self.frontiers = FrontierTable(self._records)
        self._saved = data
        self._documents: list[DocumentRequest] = []

    def take_documents(self) -> list[DocumentRequest]:
        """What was executed for documents since this was last asked; no part of the state."""
        taken, self._documents = self._documents, []
        return taken

    @property
    def revision(self) -> int:
        """The newest revision of the keys."""
        return self.keys.head.revision

    def advance(self, before_ms: int, stamp_ms: int) -> None:
        """Begin an entry: agreed time moves, what is due ends, some garbage goes."""
        self.leases.advance(before_ms, stamp_ms)
        self.keys.collect(EVENTS_PER_ENTRY)
        self.keys.recover_space()

    def resume(self, stamp_ms: int) -> None:
        """Go on at this agreed time, after a start from records."""
        self.leases.resume(stamp_ms)

    def save(self) -> None:
        """End an entry."""
        data = encode(self.keys.head)
        if data != self._saved:
            self._records.set(KEY_HEAD, data)
            self._saved = data

    def next_due_ms(self, stamp_ms: int) -> int | None:
        """The agreed time at which an entry is wanted even if no client asks for anything."""
        return stamp_ms if self.keys.has_garbage else self.leases.next_due_ms()

    def execute(
        self, operation: KeyOperation, answer_bytes_max: int, client: bytes = b""
    ) -> tuple[Result, int]:
        """The result of one operation, and how much of the envelope's answer it takes.

        Without a client nobody's rights are asked for.
        """
        result: Result | None = check(operation)
        if result is None and client:
            result = self.access.refusal(client, operation)
        if "CORRUPT" in self.keys.head.raised and not isinstance(
            operation, AlarmRequest | StatusRequest
        ):
            result = faults.CORRUPT
        if result is None:
            result = self._execute(operation, answer_bytes_max)
            self.keys.end_revision()
        match result:
            case LeaseTimeToLiveResponse(keys=keys):
                return result, sum(map(len, keys))
            case LeaseLeasesResponse(leases=leases):
                return result, len(leases) * ID_OVERHEAD_BYTES
            case _:
                return result, answer_bytes(result)

    def _execute(self, operation: KeyOperation, answer_bytes_max: int) -> Result:
        match operation:
            case PutRequest():
                failure = self.keys.check_put(operation)
                return failure or self.keys.put(operation, answer_bytes_max)
            case RangeRequest():
                return self.keys.range(operation, answer_bytes_max)
            case DeleteRangeRequest():
                return self.keys.delete_range(operation, answer_bytes_max)
            case TxnRequest():
                return self._transactions.execute(operation, answer_bytes_max)
            case CompactionRequest():
                return self.keys.compact(operation)
            case HashKVRequest():
                return self.keys.hash(operation)
            case StatusRequest():
                return self._status()
            case AlarmRequest():
                return self._alarm(operation)
            case DefragmentRequest():
                return DefragmentResponse()
            case AccessSetRequest() | AccessGetRequest():
                return self._execute_access(operation)
            case (
                DocumentRequest()
                | StrategiesSetRequest()
                | StrategiesGetRequest()
                | FrontierGetRequest()
            ):
                return self._execute_document(operation)
            case _:
                return self._execute_lease(operation, answer_bytes_max)

    def _execute_access(self, operation: AccessSetRequest | AccessGetRequest) -> Result:
        if isinstance(operation, AccessSetRequest):
            return self.access.set(operation)
        return self.access.get(operation)

    def _execute_document(
        self,
        operation: DocumentRequest
        | StrategiesSetRequest
        | StrategiesGetRequest
        | FrontierGetRequest,
    ) -> Result:
        match operation:
            case DocumentRequest():
                self._documents.append(operation)
                return DocumentResponse()
            case StrategiesSetRequest():
                return self.strategies.set(operation)
            case StrategiesGetRequest():
                return self.strategies.get()
            case FrontierGetRequest(document):
                return self.frontiers.get(document)
            case _:
                assert_never(operation)

    def _execute_lease(
        self,
        operation: LeaseGrantRequest
        | LeaseRevokeRequest
        | LeaseKeepAliveRequest
        | LeaseTimeToLiveRequest
        | LeaseLeasesRequest,
        answer_bytes_max: int,
    ) -> Result:
        match operation:
            case LeaseGrantRequest():
                return self.leases.grant(operation)
            case LeaseRevokeRequest():
                return self.leases.revoke(operation)
            case LeaseKeepAliveRequest():
                return self.leases.keep_alive(operation)
            case LeaseTimeToLiveRequest():
                return self.leases.time_to_live(operation, answer_bytes_max)
            case LeaseLeasesRequest():
                return self.leases.list(answer_bytes_max)
            case _:
                assert_never(operation)

    def _alarms(self) -> tuple[str, ...]:
        head = self.keys.head
        return tuple(sorted({*head.raised, *(("NOSPACE",) if head.full else ())}))

    def _status(self) -> StatusResponse:
        head = self.keys.head
        return StatusResponse(
            db_size=head.stored_bytes,
            quota_bytes=self._limits.quota_bytes,
            compact_revision=max(0, head.compacted),
            leases=head.leases,
            alarms=self._alarms(),
        )

    def _alarm(self, request: AlarmRequest) -> AlarmResponse | Failure:
        """etcd answers with the alarms that were listed, raised or ended."""
        head = self.keys.head
        standing = self._alarms()
        if request.action == "GET":
            wanted = request.alarm
            return AlarmResponse(tuple(a for a in standing if wanted in ("NONE", a)))
        if request.alarm == "NONE":
            return Failure(3, "which alarm? name NOSPACE or CORRUPT")
        if request.action == "ACTIVATE":
            head.raised = tuple(sorted({*head.raised, request.alarm}))
            return AlarmResponse((request.alarm,))
        head.raised = tuple(alarm for alarm in head.raised if alarm != request.alarm)
        head.full = head.full and request.alarm != "NOSPACE"
        return AlarmResponse((request.alarm,) if request.alarm in standing else ())
