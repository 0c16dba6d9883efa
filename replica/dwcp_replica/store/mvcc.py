"""etcd v3's multi-version key space: put, range and delete_range.

The empty store is at revision 1. A put makes the next revision; a delete_range that deletes at
least one key makes the next revision for all of them, one that deletes nothing makes none. A
key's `create_revision` is that of the put which made it (anew after each delete), `version`
counts the puts since then. All versions are kept (there is no compaction yet), so that every
revision can be read.

Two sorted maps: the live keys, for reads at the newest revision, whose cost must not grow with
what was deleted; and all keys ever put, for reads of the past.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from sortedcontainers import SortedDict

from dwcp.wire.operations import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Result,
)
from dwcp_replica.store.digest import path_of
from dwcp_replica.store.records import Reading

KEY_NOT_PROVIDED: Final = Failure(3, "etcdserver: key is not provided")
KEY_NOT_FOUND: Final = Failure(3, "etcdserver: key not found")
VALUE_PROVIDED: Final = Failure(3, "etcdserver: value is provided")
LEASE_PROVIDED: Final = Failure(3, "etcdserver: lease is provided")
FUTURE_REVISION: Final = Failure(11, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE: Final = Failure(8, "etcdserver: mvcc: database space exceeded")
NO_LEASES: Final = Failure(12, "leases are not supported yet: leave lease at 0")

_VERSION: Final = b"\x10"
"""Kind of record (store.py has them all)."""
FROM_KEY: Final = b"\0"
"""The range_end that means every key from `key` on."""
KEY_VALUE_OVERHEAD_BYTES: Final = 64
"""What a version costs besides key and value, in the quota and in the size of answers."""

_SORT_KEYS: Final[dict[str, Callable[[KeyValue], Any]]] = {
    "KEY": lambda kv: kv.key,
    "VERSION": lambda kv: kv.version,
    "CREATE": lambda kv: kv.create_revision,
    "MOD": lambda kv: kv.mod_revision,
    "VALUE": lambda kv: kv.value,
}


def stored_bytes(kv: KeyValue) -> int:
    """The logical size of one version."""
    return len(kv.key) + len(kv.value) + KEY_VALUE_OVERHEAD_BYTES


def answer_bytes(result: Result) -> int:
    """How much of an envelope's answer a result takes."""
    match result:
        case PutResponse(prev_kv=KeyValue() as kv):
            return stored_bytes(kv)
        case RangeResponse(kvs=kvs) | DeleteRangeResponse(prev_kvs=kvs):
            return sum(map(stored_bytes, kvs))
        case _:
            return 0


def too_large(answer_bytes_max: int) -> Failure:
    """The answer would not fit; nothing was changed."""
    return Failure(
        8,
        f"the answer is larger than {answer_bytes_max} bytes allow: "
        "ask for less with limit, keys_only or a narrower range, or in an envelope of its own",
    )


def _span(keys: Any, key: bytes, range_end: bytes) -> tuple[int, int]:
    """Positions [low, high) of the keys that (key, range_end) means; high >= low."""
    low = keys.bisect_left(key)
    if range_end == FROM_KEY:
        return low, len(keys)
    high = keys.bisect_left(range_end) if range_end else low + (key in keys)
    return low, max(low, high)


def _is_pruned(kv: KeyValue, request: RangeRequest) -> bool:
    return (
        (request.max_mod_revision != 0 and kv.mod_revision > request.max_mod_revision)
        or (request.min_mod_revision != 0 and kv.mod_revision < request.min_mod_revision)
        or (request.max_create_revision != 0 and kv.create_revision > request.max_create_revision)
        or (request.min_create_revision != 0 and kv.create_revision < request.min_create_revision)
    )


def _is_filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _fetch_max(request: RangeRequest) -> int | None:
    """How many keys to fetch before sorting: one over the limit, so that `more` is known.

    As in etcd, a sort target without a sort order sorts only what the limit let through.
    """
    if request.limit <= 0 or request.sort_order != "NONE" or _is_filtered(request):
        return None
    return request.limit + 1


def _sorted(kvs: list[KeyValue], request: RangeRequest) -> list[KeyValue]:
    """In the order asked for; equal ones stay in key order, descending too."""
    if request.sort_order == "NONE" and request.sort_target == "KEY":
        return kvs
    return sorted(kvs, key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == "DESCEND")


class Mvcc:
    """The key space. Each method executes one operation; a Failure means nothing changed."""

    def __init__(self, quota_bytes: int = 2 * 1024**3) -> None:
        self.revision = 1
        self.stored_bytes = 0
        self.looked_at = 0
        """Keys that operations had to look at since the start; no part of the state."""
        self._quota_bytes = quota_bytes
        self._live: Any = SortedDict()
        """key -> KeyValue"""
        self._history: Any = SortedDict()
        """key -> list of KeyValue by ascending mod_revision; version 0 is a deletion"""
        self._changed: list[KeyValue] = []

    def put(self, request: PutRequest, answer_bytes_max: int) -> PutResponse | Failure:
        """Write one key."""
        previous: KeyValue | None = self._live.get(request.key)
        if (failure := self._check_put(request, previous)) is not None:
            return failure
        value = request.value
        if request.ignore_value:
            assert previous is not None, "ignore_value without a previous value was refused"
            value = previous.value
        revision = self.revision + 1
        kv = KeyValue(
            key=request.key,
            create_revision=revision if previous is None else previous.create_revision,
            mod_revision=revision,
            version=1 if previous is None else previous.version + 1,
            value=value,
        )
        shown = previous if request.prev_kv else None
        if shown is not None and stored_bytes(shown) > answer_bytes_max:
            return too_large(answer_bytes_max)
        if self.stored_bytes + stored_bytes(kv) > self._quota_bytes:
            return NO_SPACE
        self.revision = revision
        self._live[kv.key] = kv
        self._add_version(kv)
        return PutResponse(prev_kv=shown)

    def range(self, request: RangeRequest, answer_bytes_max: int) -> RangeResponse | Failure:
        """Read keys, at the newest revision or an earlier one."""
        if not request.key:
            return KEY_NOT_PROVIDED
        if request.revision > self.revision:
            return FUTURE_REVISION
        kvs, count = self._fetch(request)
        if request.count_only:
            return RangeResponse(count=count)
        if _is_filtered(request):
            kvs = [kv for kv in kvs if not _is_pruned(kv, request)]
        kvs = _sorted(kvs, request)
        more = 0 < request.limit < len(kvs)
        if more:
            kvs = kvs[: request.limit]
        if request.keys_only:
            kvs = [msgspec.structs.replace(kv, value=b"") for kv in kvs]
        if sum(map(stored_bytes, kvs)) > answer_bytes_max:
            return too_large(answer_bytes_max)
        return RangeResponse(kvs=tuple(kvs), more=more, count=count)

    def delete_range(
        self, request: DeleteRangeRequest, answer_bytes_max: int
    ) -> DeleteRangeResponse | Failure:
        """Delete keys, all in one revision."""
        if not request.key:
            return KEY_NOT_PROVIDED
        low, high = _span(self._live, request.key, request.range_end)
        self.looked_at += high - low
        gone: list[KeyValue] = [self._live[key] for key in self._live.islice(low, high)]
        if request.prev_kv and sum(map(stored_bytes, gone)) > answer_bytes_max:
            return too_large(answer_bytes_max)
        if gone:
            self.revision += 1
        for kv in gone:
            del self._live[kv.key]
            self._add_version(
                KeyValue(key=kv.key, create_revision=0, mod_revision=self.revision, version=0)
            )
        return DeleteRangeResponse(
            deleted=len(gone), prev_kvs=tuple(gone) if request.prev_kv else ()
        )

    def drain_changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The records that changed since the last call."""
        changed, self._changed = self._changed, []
        return map(_record, changed)

    def load(self, records: Reading) -> None:
        """Be what these records say: every version of every key, by ascending revision."""
        for _, value in records.scan(_VERSION, bytes((_VERSION[0] + 1,))):
            kv = msgspec.msgpack.decode(value, type=KeyValue)
            self._history.setdefault(kv.key, []).append(kv)
            if kv.version:
                self._live[kv.key] = kv
            else:
                self._live.pop(kv.key, None)

    def _check_put(self, request: PutRequest, previous: KeyValue | None) -> Failure | None:
        if not request.key:
            return KEY_NOT_PROVIDED
        if request.ignore_value and request.value:
            return VALUE_PROVIDED
        if request.ignore_lease and request.lease:
            return LEASE_PROVIDED
        if request.lease:
            return NO_LEASES
        if (request.ignore_value or request.ignore_lease) and previous is None:
            return KEY_NOT_FOUND
        return None

    def _add_version(self, kv: KeyValue) -> None:
        versions = self._history.get(kv.key)
        if versions is None:
            self._history[kv.key] = [kv]
        else:
            assert versions[-1].mod_revision < kv.mod_revision, "a key's versions must ascend"
            versions.append(kv)
        self.stored_bytes += stored_bytes(kv)
        self._changed.append(kv)

    def _fetch(self, request: RangeRequest) -> tuple[list[KeyValue], int]:
        """Keys by ascending key, as many as may be needed, and the count of all."""
        fetch_max = 0 if request.count_only else _fetch_max(request)
        if request.revision <= 0 or request.revision == self.revision:
            low, high = _span(self._live, request.key, request.range_end)
            stop = high if fetch_max is None else min(high, low + fetch_max)
            self.looked_at += stop - low
            return [self._live[key] for key in self._live.islice(low, stop)], high - low
        low, high = _span(self._history, request.key, request.range_end)
        self.looked_at += high - low
        kvs = [
            kv
            for key in self._history.islice(low, high)
            if (kv := self._at(key, request.revision)) is not None
        ]
        return kvs[:fetch_max], len(kvs)

    def _at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as it stood at `revision`, or None when it did not exist."""
        versions: list[KeyValue] = self._history[key]
        position = bisect_right(versions, revision, key=lambda kv: kv.mod_revision)
        if position == 0 or versions[position - 1].version == 0:
            return None
        return versions[position - 1]


def _record(kv: KeyValue) -> tuple[bytes, bytes]:
    key = b"".join((_VERSION, kv.mod_revision.to_bytes(8, "big"), path_of(kv.key)))
    return key, msgspec.msgpack.encode(kv)
