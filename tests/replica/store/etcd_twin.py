"""etcd's store, deliberately dumb: a whole copy of all keys for every revision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dwcp.wire.operations import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

COMPACTED = Failure(11, "etcdserver: mvcc: required revision has been compacted")
FUTURE = Failure(11, "etcdserver: mvcc: required revision is a future revision")
LEASE_NOT_FOUND = Failure(5, "etcdserver: requested lease not found")

Snapshot = dict[bytes, KeyValue]


def wanted(key: bytes, low: bytes, end: bytes) -> bool:
    if not end:
        return key == low
    return key >= low and (end == b"\0" or key < end)


@dataclass
class Change:
    """What happened to a key: `kv` is as in etcd's events."""

    kind: str
    kv: KeyValue
    prev_kv: KeyValue | None


@dataclass
class Twin:
    snapshots: list[Snapshot] = field(default_factory=lambda: [{}, {}])
    changes: list[list[Change]] = field(default_factory=lambda: [[], []])
    compacted: int = -1
    leases: dict[int, tuple[int, int]] = field(default_factory=dict)
    """id -> (ttl, deadline_ms)"""
    now_ms: int = 0

    @property
    def revision(self) -> int:
        return len(self.snapshots) - 1

    def pass_time(self, now_ms: int) -> None:
        self.now_ms = now_ms
        due = [(deadline, id_) for id_, (_, deadline) in self.leases.items() if deadline <= now_ms]
        for _, id_ in sorted(due):
            self.execute(LeaseRevokeRequest(id_))

    def execute(self, operation: Any) -> Any:
        now, changes = dict(self.snapshots[-1]), []
        if isinstance(operation, TxnRequest):
            taken = self.taken(operation, now)
            for kinds in (PutRequest, RangeRequest):  # etcd looks at the puts first
                for item in taken:
                    if isinstance(item, kinds):
                        result = self.run(item, dict(now), [], now)
                        if isinstance(result, Failure):
                            return result
        result = self.run(operation, now, changes, self.snapshots[-1])
        if isinstance(result, Failure):
            return result
        if changes:
            self.snapshots.append(now)
            self.changes.append(changes)
        return result

    def run(self, operation: Any, now: Snapshot, changes: list[Change], before: Snapshot) -> Any:
        match operation:
            case PutRequest():
                return self.put(operation, now, changes)
            case RangeRequest():
                return self.range(operation, now, changed=bool(changes))
            case DeleteRangeRequest():
                return self.delete(operation, now, changes)
            case TxnRequest():
                return self.txn(operation, now, changes, before)
            case CompactionRequest(revision):
                if revision <= self.compacted:
                    return COMPACTED
                if revision > self.revision:
                    return FUTURE
                self.compacted = revision
                return CompactionResponse()
            case _:
                return self.lease(operation, now, changes)

    def put(self, request: PutRequest, now: Snapshot, changes: list[Change]) -> Any:
        old = now.get(request.key)
        if old is None and (request.ignore_value or request.ignore_lease):
            return Failure(3, "etcdserver: key not found")
        if request.lease and request.lease not in self.leases:
            return LEASE_NOT_FOUND
        revision = self.revision + 1
        now[request.key] = KeyValue(
            key=request.key,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
            version=old.version + 1 if old else 1,
            value=old.value if old and request.ignore_value else request.value,
            lease=old.lease if old and request.ignore_lease else request.lease,
        )
        changes.append(Change("put", now[request.key], old))
        return PutResponse(old if request.prev_kv else None)

    def range(self, request: RangeRequest, now: Snapshot, *, changed: bool) -> Any:
        if request.revision > self.revision + changed:
            return FUTURE
        if 0 < request.revision < self.compacted:
            return COMPACTED
        past = 0 < request.revision <= self.revision
        kvs = self.snapshots[request.revision] if past else now
        found = [kv for k, kv in sorted(kvs.items()) if wanted(k, request.key, request.range_end)]
        if request.count_only:
            return RangeResponse(count=len(found))
        more = 0 < request.limit < len(found)
        shown = found[: request.limit] if more else found
        return RangeResponse(tuple(shown), more, len(found))

    def delete(self, request: DeleteRangeRequest, now: Snapshot, changes: list[Change]) -> Any:
        gone = [kv for k, kv in sorted(now.items()) if wanted(k, request.key, request.range_end)]
        for kv in gone:
            del now[kv.key]
            changes.append(Change("delete", KeyValue(kv.key, 0, self.revision + 1, 0), kv))
        return DeleteRangeResponse(len(gone), tuple(gone) if request.prev_kv else ())

    def txn(
        self, request: TxnRequest, now: Snapshot, changes: list[Change], before: Snapshot
    ) -> Any:
        succeeded = all(self.holds(comparison, before) for comparison in request.compare)
        results = []
        for operation in request.success if succeeded else request.failure:
            result = self.run(operation, now, changes, before)
            if isinstance(result, Failure):
                return result
            results.append(result)
        return TxnResponse(succeeded, tuple(results))

    def taken(self, request: TxnRequest, before: Snapshot) -> list[Any]:
        holds = all(self.holds(comparison, before) for comparison in request.compare)
        found = []
        for operation in request.success if holds else request.failure:
            nested = isinstance(operation, TxnRequest)
            found += self.taken(operation, before) if nested else [operation]
        return found

    def holds(self, comparison: Compare, kvs: Snapshot) -> bool:
        found = [kv for k, kv in kvs.items() if wanted(k, comparison.key, comparison.range_end)]
        if not found:
            if comparison.target == "VALUE":
                return False
            found = [KeyValue(comparison.key, 0, 0, 0)]
        field_names = {
            "VERSION": "version",
            "CREATE": "create_revision",
            "MOD": "mod_revision",
            "VALUE": "value",
            "LEASE": "lease",
        }
        name = field_names[comparison.target]
        operand = getattr(comparison, name)
        return all(
            {"EQUAL": a == operand, "NOT_EQUAL": a != operand}.get(
                comparison.result, a > operand if comparison.result == "GREATER" else a < operand
            )
            for a in (getattr(kv, name) for kv in found)
        )

    def lease(self, operation: Any, now: Snapshot, changes: list[Change]) -> Any:
        match operation:
            case LeaseGrantRequest(ttl, id_):
                if id_ in self.leases:
                    return Failure(9, "etcdserver: lease already exists")
                ttl = max(2, ttl)
                self.leases[id_] = (ttl, self.now_ms + ttl * 1000)
                return LeaseGrantResponse(id_, ttl)
            case LeaseRevokeRequest(id_):
                if self.leases.pop(id_, None) is None:
                    return LEASE_NOT_FOUND
                gone = [kv for _, kv in sorted(now.items()) if kv.lease == id_]
                for kv in gone:
                    del now[kv.key]
                    changes.append(Change("delete", KeyValue(kv.key, 0, self.revision + 1, 0), kv))
                return LeaseRevokeResponse(len(gone))
            case LeaseKeepAliveRequest(id_):
                if id_ not in self.leases:
                    return LeaseKeepAliveResponse(id_, 0)
                ttl = self.leases[id_][0]
                self.leases[id_] = (ttl, self.now_ms + ttl * 1000)
                return LeaseKeepAliveResponse(id_, ttl)
            case LeaseTimeToLiveRequest(id_, keys):
                if id_ not in self.leases:
                    return LeaseTimeToLiveResponse(id_, -1)
                ttl, deadline_ms = self.leases[id_]
                left = -((self.now_ms - deadline_ms) // 1000)
                mine = tuple(k for k, kv in sorted(now.items()) if kv.lease == id_)
                return LeaseTimeToLiveResponse(id_, left, ttl, mine if keys else ())
            case LeaseLeasesRequest():
                order = sorted((deadline, id_) for id_, (_, deadline) in self.leases.items())
                return LeaseLeasesResponse(tuple(id_ for _, id_ in order))
        raise AssertionError(f"the twin does not know {operation!r}")

    def watch(self, start: int, low: bytes, end: bytes) -> list[Change]:
        """The changes from revision `start` on, with what was before them where that is kept."""
        return [
            change
            if change.kv.mod_revision > self.compacted
            else Change(change.kind, change.kv, None)
            for changes in self.changes[start:]
            for change in changes
            if wanted(change.kv.key, low, end)
        ]
