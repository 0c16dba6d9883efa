"""Roles on intervals of keys: what is not granted is refused, from one position of the log on."""

from __future__ import annotations

from typing import Any

import pytest

from dwcp.wire.operations import (
    Access,
    AccessGetRequest,
    AccessGetResponse,
    AccessSetRequest,
    AlarmRequest,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    Failure,
    Grant,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    StatusRequest,
    TxnRequest,
)
from dwcp_replica.store import KeyStore
from dwcp_replica.store.records import MemoryRecords
from replica.store.driver import ALICE, BOB, Driver, envelope, results_of

ADMIN, USER = bytes([1]) * 32, bytes([2]) * 32
READER = Access(grants=(Grant(b"a/", b"a0", read=True),))
WRITER = Access(grants=(Grant(b"a/", b"a0", write=True),))
BOTH = Access(grants=(Grant(b"a/", b"a0", read=True, write=True), Grant(b"z", b"\0", read=True)))
ABSENT = Compare(b"a/k", "CREATE", "EQUAL")


def store_with(access: Access | None) -> KeyStore:
    store = KeyStore(MemoryRecords())
    store.execute(LeaseGrantRequest(60, 5), 1000)
    store.execute(PutRequest(b"b/leased", lease=5), 1000)
    store.execute(AccessSetRequest(USER, access), 1000, ADMIN)
    return store


CASES: list[tuple[Access, Any, bool]] = [
    (READER, RangeRequest(b"a/k"), True),
    (READER, RangeRequest(b"a/", b"a0"), True),
    (READER, RangeRequest(b"a/", b"a1"), False),
    (READER, RangeRequest(b"a/", b"\0"), False),
    (READER, RangeRequest(b"a"), False),
    (READER, RangeRequest(b"a0"), False),
    (READER, PutRequest(b"a/k"), False),
    (READER, DeleteRangeRequest(b"a/k"), False),
    (READER, TxnRequest((ABSENT,), (RangeRequest(b"a/k"),)), True),
    (READER, TxnRequest((ABSENT,), (), (PutRequest(b"a/k"),)), False),
    (READER, TxnRequest(success=(TxnRequest(failure=(RangeRequest(b"b"),)),)), False),
    (READER, TxnRequest((Compare(b"b"),)), False),
    (READER, LeaseGrantRequest(60, 9), False),
    (READER, StatusRequest(), True),
    (READER, CompactionRequest(1), False),
    (READER, AccessSetRequest(USER, None), False),
    (WRITER, PutRequest(b"a/k"), True),
    (WRITER, PutRequest(b"a/k", prev_kv=True), False),
    (WRITER, PutRequest(b"b"), False),
    (WRITER, RangeRequest(b"a/k"), False),
    (WRITER, DeleteRangeRequest(b"a/", b"a0"), True),
    (WRITER, DeleteRangeRequest(b"a/", b"a0", prev_kv=True), False),
    (WRITER, LeaseGrantRequest(60, 9), True),
    (WRITER, LeaseKeepAliveRequest(5), True),
    (WRITER, LeaseRevokeRequest(5), False),
    (WRITER, LeaseTimeToLiveRequest(5), True),
    (WRITER, LeaseTimeToLiveRequest(5, keys=True), False),
    (BOTH, PutRequest(b"a/k", prev_kv=True), True),
    (BOTH, RangeRequest(b"zz", b"\0"), True),
    (BOTH, RangeRequest(b"a/", b"zz"), False),
    (BOTH, AlarmRequest(), False),
    (Access(admin=True), CompactionRequest(1), True),
    (Access(admin=True), RangeRequest(b"a"), False),
    (Access(), RangeRequest(b"a"), False),
    (Access(), AccessGetRequest(USER), True),
]


@pytest.mark.parametrize(("access", "operation", "allowed"), CASES)
def test_what_is_granted_and_nothing_else(access: Access, operation: Any, *, allowed: bool) -> None:
    store = store_with(access)
    revision = store.revision
    result, _ = store.execute(operation, 10_000, USER)
    denied = isinstance(result, Failure) and result.code == 7
    assert denied != allowed, result
    if denied:
        assert store.revision == revision
        assert not isinstance(store.execute(operation, 10_000, ADMIN)[0], Failure)


def test_a_right_ends_at_one_position_and_comes_back() -> None:
    """Within one entry: what stands before the change is done, what stands behind it is not."""
    driver = Driver()
    alice, bob = driver.open(), driver.open(BOB)
    put = PutRequest(b"k", b"bob")
    before, change, after = driver.apply(
        envelope(bob, 1, put, signer=BOB),
        envelope(alice, 1, AccessSetRequest(BOB.public_key, Access())),
        envelope(bob, 2, put, AccessGetRequest(BOB.public_key), signer=BOB),
    )
    assert not any(isinstance(result, Failure) for result in results_of(before))
    assert not any(isinstance(result, Failure) for result in results_of(change))
    refused, shown = results_of(after)
    assert refused == Failure(7, "etcdserver: permission denied")
    assert shown == AccessGetResponse(Access())
    assert after.revision == before.revision
    driver.one(envelope(alice, 2, AccessSetRequest(BOB.public_key, None)))
    (again,) = results_of(driver.one(envelope(bob, 3, put, signer=BOB)))
    assert not isinstance(again, Failure)
    assert ALICE.public_key != BOB.public_key


def test_reads_beside_the_log_ask_for_rights_too() -> None:
    driver = Driver()
    alice = driver.open()
    driver.one(envelope(alice, 1, AccessSetRequest(BOB.public_key, READER)))
    store = driver.store
    _, own = store.read(BOB.public_key, (RangeRequest(b"a/k"),))
    _, others = store.read(BOB.public_key, (RangeRequest(b"b"),))
    assert b"permission denied" not in own
    assert b"permission denied" in others
