"""Transactions: compare, then one of two branches, all in one revision or not at all.

In this order, as etcd does it: what the request says by itself (`check`, in both branches); which
branches are taken, every comparison seeing the store as it was before the outermost transaction;
whether the puts and then the reads of the branches taken can be done; then they are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import eq, gt, lt, ne
from typing import Any, Final

import msgspec

from dwcp.wire.operations import (
    MAX_KEY_BYTES,
    MAX_TXN_OPERATIONS,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    Operation,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnOperation,
    TxnRequest,
    TxnResponse,
    TxnResult,
)
from dwcp_replica.store import faults
from dwcp_replica.store.layout import FROM_KEY, Version
from dwcp_replica.store.mvcc import Mvcc, stored_bytes
from dwcp_replica.store.undo import UndoRecords

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "EQUAL": eq,
    "GREATER": gt,
    "LESS": lt,
    "NOT_EQUAL": ne,
}
_ABSENT: Final = Version(create_revision=0, mod_revision=0, version=0, value=b"", lease=0)


# --- what a request says by itself ----------------------------------------------------------------


def check(operation: Operation) -> Failure | None:
    """Why an operation can not be done in any state."""
    match operation:
        case PutRequest(key=key):
            if key and len(key) > MAX_KEY_BYTES:
                return faults.KEY_TOO_LONG
            return _check_put(operation)
        case RangeRequest(key=key) | DeleteRangeRequest(key=key):
            return None if key else faults.KEY_NOT_PROVIDED
        case TxnRequest():
            if (failure := _check_counts(operation, MAX_TXN_OPERATIONS)) is not None:
                return failure
            return None if _writes_once(operation) else faults.DUPLICATE_KEY
        case _:
            return None


def _check_put(request: PutRequest) -> Failure | None:
    if not request.key:
        return faults.KEY_NOT_PROVIDED
    if request.ignore_value and request.value:
        return faults.VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        return faults.LEASE_PROVIDED
    return None


def _check_counts(request: TxnRequest, operations_max: int) -> Failure | None:
    """A nested transaction may hold as many operations as the one around it left."""
    count = max(len(request.compare), len(request.success), len(request.failure))
    if count > operations_max:
        return faults.TOO_MANY_OPERATIONS
    if not all(comparison.key for comparison in request.compare):
        return faults.KEY_NOT_PROVIDED
    for operation in (*request.success, *request.failure):
        if isinstance(operation, TxnRequest):
            failure = _check_counts(operation, operations_max - count)
        else:
            failure = check(operation)
        if failure is not None:
            return failure
    return None


class _Touched:
    """The keys that a branch puts, and the intervals that it deletes."""

    def __init__(self) -> None:
        self.puts: set[bytes] = set()
        self.deletes: list[tuple[bytes, bytes]] = []

    def deletes_key(self, key: bytes) -> bool:
        """Whether a deletion names the key. One "from a key on" names none (as in etcd)."""
        return any(low <= key < high for low, high in self.deletes)


def _writes_once(request: TxnRequest) -> bool:
    return _touched(request.success) is not None and _touched(request.failure) is not None


def _touched(branch: tuple[TxnOperation, ...]) -> _Touched | None:
    """What a branch writes; None when it puts a key twice, or puts and deletes one.

    Of a nested transaction only one branch is taken, so both may put the same key. A deletion in
    one nested transaction after a put in another one before it is let through, as in etcd.
    """
    found = _Touched()
    for operation in branch:
        if isinstance(operation, DeleteRangeRequest):
            found.deletes.append(_interval(operation))
    for operation in branch:
        if not isinstance(operation, TxnRequest):
            continue
        inner = [_touched(operation.success), _touched(operation.failure)]
        puts: set[bytes] = set()
        for side in inner:
            if side is None:
                return None
            puts |= side.puts
        if puts & found.puts or any(map(found.deletes_key, sorted(puts))):
            return None
        found.puts |= puts
        found.deletes += [pair for side in inner if side is not None for pair in side.deletes]
    for operation in branch:
        if isinstance(operation, PutRequest):
            if operation.key in found.puts or found.deletes_key(operation.key):
                return None
            found.puts.add(operation.key)
    return found


def _interval(request: DeleteRangeRequest) -> tuple[bytes, bytes]:
    if request.range_end == FROM_KEY:
        return b"", b""
    return request.key, request.range_end or request.key + b"\0"


# --- what is done ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Taken:
    """A transaction with its branch chosen; nested ones too."""

    succeeded: bool
    steps: tuple[TxnOperation | _Taken, ...]

    def flat(self) -> Iterator[PutRequest | RangeRequest | DeleteRangeRequest]:
        """The operations in their order."""
        for step in self.steps:
            if isinstance(step, _Taken):
                yield from step.flat()
            elif not isinstance(step, TxnRequest):
                yield step


class Transactions:
    """Executes transactions on a key space."""

    def __init__(self, keys: Mvcc, records: UndoRecords) -> None:
        self._keys = keys
        self._records = records
        self._left_bytes = 0

    def execute(self, request: TxnRequest, answer_bytes_max: int) -> TxnResponse | Failure:
        """Do all of a checked transaction, or nothing."""
        taken = self._choose(request)
        operations = list(taken.flat())
        if (failure := self._check(operations)) is not None:
            return failure
        self._left_bytes = answer_bytes_max
        if all(isinstance(operation, RangeRequest) for operation in operations):
            return self._run(taken)
        before = msgspec.structs.replace(self._keys.head)
        self._records.mark()
        result = self._run(taken)
        if isinstance(result, Failure):
            self._records.undo()
            before.full = self._keys.head.full
            self._keys.head = before
            self._keys.forget_revision()
        else:
            self._records.keep()
        return result

    def _check(
        self, operations: list[PutRequest | RangeRequest | DeleteRangeRequest]
    ) -> Failure | None:
        puts = [operation for operation in operations if isinstance(operation, PutRequest)]
        ranges = [operation for operation in operations if isinstance(operation, RangeRequest)]
        for put in puts:
            if (failure := self._keys.check_put(put)) is not None:
                return failure
        for range_ in ranges:
            if (failure := self._keys.check_range(range_)) is not None:
                return failure
        return None

    def _choose(self, request: TxnRequest) -> _Taken:
        succeeded = all(map(self._holds, request.compare))
        branch = request.success if succeeded else request.failure
        steps: list[TxnOperation | _Taken] = []
        for operation in branch:  # a plain loop: a frame less for every level
            if isinstance(operation, TxnRequest):
                steps.append(self._choose(operation))
            else:
                steps.append(operation)
        return _Taken(succeeded, tuple(steps))

    def _holds(self, comparison: Compare) -> bool:
        found = list(self._keys.newest(comparison.key, comparison.range_end))
        if not found:
            return comparison.target != "VALUE" and _compare(comparison, _ABSENT)
        return all(_compare(comparison, version) for version in found)

    def _run(self, taken: _Taken) -> TxnResponse | Failure:
        results: list[TxnResult] = []
        for step in taken.steps:
            result = self._run(step) if isinstance(step, _Taken) else self._run_one(step)
            if isinstance(result, Failure):
                return result
            results.append(result)
        return TxnResponse(taken.succeeded, tuple(results))

    def _run_one(self, operation: TxnOperation) -> TxnResult | Failure:
        result: TxnResult | Failure
        match operation:
            case PutRequest():
                result = self._keys.put(operation, self._left_bytes)
            case RangeRequest():
                result = self._keys.range(operation, self._left_bytes)
            case DeleteRangeRequest():
                result = self._keys.delete_range(operation, self._left_bytes)
            case TxnRequest():
                raise AssertionError("a nested transaction has its branch chosen")
        self._left_bytes -= answer_bytes(result)
        return result


def answer_bytes(result: object) -> int:
    """How much of an envelope's answer the result of a key operation takes."""
    match result:
        case PutResponse(prev_kv=KeyValue() as kv):
            return stored_bytes(kv)
        case RangeResponse(kvs=kvs) | DeleteRangeResponse(prev_kvs=kvs):
            return sum(map(stored_bytes, kvs))
        case TxnResponse(responses=responses):
            return sum(map(answer_bytes, responses))
        case _:
            return 0


def _compare(comparison: Compare, version: Version) -> bool:
    compare = _COMPARISONS[comparison.result]
    match comparison.target:
        case "VERSION":
            return compare(version.version, comparison.version)
        case "CREATE":
            return compare(version.create_revision, comparison.create_revision)
        case "MOD":
            return compare(version.mod_revision, comparison.mod_revision)
        case "VALUE":
            return compare(version.value, comparison.value)
        case "LEASE":
            return compare(version.lease, comparison.lease)
