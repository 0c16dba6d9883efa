"""The cluster's keys as a snapshot that etcd can restore: a way to take one's data elsewhere.

All keys of one revision, read page by page, each page verified as every answer. A revision's
history is not in it: for etcd the store is compacted there, and goes on from the next revision.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO, Final

from dwcp.gateway.bolt import write_database
from dwcp.gateway.desk import Desk
from dwcp.gateway.messages import key_value
from dwcp.gateway.proto.lease_pb2 import Lease
from dwcp.wire.operations import (
    KeyValue,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    RangeRequest,
    RangeResponse,
)

PAGE_KEYS: Final = 1000
MEMORY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A larger file lies on disk."""
_HASHED_AT_ONCE: Final = 1024 * 1024
EMPTY_BUCKETS: Final = (
    b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed",
)  # fmt: skip


async def snapshot_file(desk: Desk) -> tuple[int, IO[bytes]]:
    """A revision, and the file with all its keys. Raises errors.DWCPError."""
    revision, kvs = await _all_keys(desk)
    leases: dict[bytes, bytes] = {}
    for number in sorted({kv.lease for kv in kvs if kv.lease}):
        _, found = await desk.ask(LeaseTimeToLiveRequest(number), LeaseTimeToLiveResponse)
        lease = Lease(ID=number, TTL=found.granted_ttl, RemainingTTL=max(found.ttl, 0))
        leases[number.to_bytes(8, "big", signed=True)] = lease.SerializeToString()
    # closed by whoever reads it
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX)  # noqa: SIM115
    meta = {
        b"consistent_index": (1).to_bytes(8, "big"),
        b"finishedCompactRev": _place(revision, 0),
        b"scheduledCompactRev": _place(revision, 0),
        b"term": (1).to_bytes(8, "big"),
    }
    buckets = {name: iter(()) for name in EMPTY_BUCKETS} | {
        b"key": _history(kvs),
        b"lease": iter(sorted(leases.items())),
        b"meta": iter(sorted(meta.items())),
    }
    write_database(file, sorted(buckets.items()))
    file.seek(0)
    hashed = hashlib.sha256()
    while part := file.read(_HASHED_AT_ONCE):
        hashed.update(part)
    file.write(hashed.digest())
    return revision, file


async def _all_keys(desk: Desk) -> tuple[int, list[KeyValue]]:
    kvs: list[KeyValue] = []
    start, revision = b"\0", 0
    while True:
        asked = RangeRequest(start, b"\0", limit=PAGE_KEYS, revision=revision)
        header, found = await desk.ask(asked, RangeResponse)
        revision = revision or header.revision
        kvs += found.kvs
        if not found.more:
            return revision, kvs
        start = found.kvs[-1].key + b"\0"


def _history(kvs: list[KeyValue]) -> Iterator[tuple[bytes, bytes]]:
    """The keys in the order of their revisions, which is that of etcd's bucket."""
    last, sub = 0, 0
    for kv in sorted(kvs, key=lambda kv: (kv.mod_revision, kv.key)):
        sub = sub + 1 if kv.mod_revision == last else 0
        last = kv.mod_revision
        yield _place(last, sub), key_value(kv).SerializeToString()


def _place(revision: int, sub: int) -> bytes:
    return revision.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
