"""The key space against a twin that keeps a copy of everything for every revision."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.wire.operations import (
    MAX_KEY_BYTES,
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    HashKVRequest,
    HashKVResponse,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
)
from dwcp_replica.store import KeyLimits, KeyStore
from dwcp_replica.store.records import MemoryRecords
from dwcp_replica.store.txn import check
from replica.store.etcd_twin import Twin

UNLIMITED = 2**62
ALL = (b"\0", b"\0")
START_MS = 1_000_000
YES = st.sampled_from([True])
KEYS = st.sampled_from([b"a", b"b", b"b\0", b"c", b"\xff", b"\0"])
ENDS = st.sampled_from([b"", b"", b"\0", b"a", b"b", b"c", b"d", b"\xff\xff"])
LEASES = st.sampled_from([1, 2, -3, 2**63 - 1])
REVISIONS = st.one_of(st.just(0), st.integers(-1, 30))
PUTS = st.builds(
    PutRequest,
    key=KEYS,
    value=st.binary(max_size=3),
    lease=st.one_of(st.just(0), LEASES),
    prev_kv=st.booleans(),
)
KEEPING = st.one_of(
    st.builds(PutRequest, key=KEYS, ignore_value=YES, lease=st.one_of(st.just(0), LEASES)),
    st.builds(PutRequest, key=KEYS, value=st.binary(max_size=3), ignore_lease=YES),
)
RANGES = st.builds(
    RangeRequest,
    key=KEYS,
    range_end=ENDS,
    limit=st.integers(0, 3),
    revision=REVISIONS,
    count_only=st.booleans(),
)
DELETES = st.builds(DeleteRangeRequest, key=KEYS, range_end=ENDS, prev_kv=st.booleans())
COMPARES = st.builds(
    Compare,
    key=KEYS,
    target=st.sampled_from(["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]),
    result=st.sampled_from(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]),
    version=st.integers(0, 3),
    create_revision=st.integers(0, 20),
    mod_revision=st.integers(0, 20),
    value=st.binary(max_size=2),
    lease=LEASES,
    range_end=ENDS,
)
SIMPLE = st.one_of(PUTS, KEEPING, RANGES, DELETES)


def txns(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    branch = st.lists(st.one_of(SIMPLE, inner), max_size=3).map(tuple)
    compare = st.lists(COMPARES, max_size=2).map(tuple)
    return st.builds(TxnRequest, compare=compare, success=branch, failure=branch)


TXNS = st.recursive(txns(SIMPLE), txns, max_leaves=3)
OPERATIONS = st.one_of(
    PUTS,
    SIMPLE,
    TXNS,
    st.builds(CompactionRequest, REVISIONS),
    st.builds(LeaseGrantRequest, st.integers(-1, 9), LEASES),
    st.builds(LeaseRevokeRequest, LEASES),
    st.builds(LeaseKeepAliveRequest, LEASES),
    st.builds(LeaseTimeToLiveRequest, LEASES, st.booleans()),
    st.just(LeaseLeasesRequest()),
)
STEPS = st.lists(st.one_of(OPERATIONS, st.integers(0, 2500)), max_size=40)


def make(limits: KeyLimits | None = None) -> tuple[KeyStore, MemoryRecords]:
    records = MemoryRecords()
    store = KeyStore(records, limits)
    store.advance(0, START_MS)
    return store, records


def run(store: KeyStore, operation: Any) -> Any:
    return store.execute(operation, UNLIMITED)[0]


@pytest.mark.parametrize("counted_max", [0, 2, 2000])
@settings(deadline=None, max_examples=100)
@given(STEPS, st.integers(0, 2), st.integers(100, 2000))
def test_everything_answers_as_the_twin_does(
    counted_max: int, steps: list[Any], again: int, answer_bytes: int
) -> None:
    """Any operations and pauses; a restart from the records in between changes nothing.

    Neither does what does not fit an answer, nor how keys are counted.
    """
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("dwcp_replica.store.mvcc.COUNTED_MAX", counted_max)
        _compare_with_the_twin(steps, again, answer_bytes)


def _compare_with_the_twin(steps: list[Any], again: int, answer_bytes: int) -> None:
    store, records = make()
    twin = Twin(now_ms=START_MS)
    for step in steps:
        if isinstance(step, int):
            store.advance(twin.now_ms, twin.now_ms + step)
            twin.pass_time(twin.now_ms + step)
            store.save()
            if step % 3 == again:
                store = KeyStore(records)
                store.leases.advance(twin.now_ms, twin.now_ms)
        elif check(step) is None:
            refused, _ = store.execute(step, answer_bytes // 10)
            if isinstance(refused, Failure) and refused.code == 8:
                assert run(store, step) == twin.execute(step)
            else:
                assert refused == twin.execute(step)
        else:
            before = dict(records.scan(b""))
            assert run(store, step) == check(step)
            assert dict(records.scan(b"")) == before
        assert store.revision == twin.revision
    for revision in range(max(1, twin.compacted), twin.revision + 1):
        request = RangeRequest(b"\0", b"\0", revision=revision)
        assert run(store, request) == twin.execute(request)


@settings(deadline=None)
@given(STEPS)
def test_what_is_compacted_goes_and_nothing_else(steps: list[Any]) -> None:
    """After the collection as many bytes are stored as the versions that can be read have."""
    store, records = make()
    for step in steps:
        if not isinstance(step, int | CompactionRequest):
            run(store, step)
    revision = store.revision
    assert isinstance(run(store, CompactionRequest(revision)), CompactionResponse)
    while store.keys.has_garbage:
        store.keys.collect(3)
    left = list(store.keys.events((0, 0), revision + 1))
    assert {place[0] for place, _ in left} <= {revision}
    kept = sum(len(kv.key) + len(kv.value) + 64 for kv in run(store, RangeRequest(*ALL)).kvs)
    for _, event in left:
        kept += len(event.key) + 64 if event.deleted else 0
        if event.previous is not None:
            assert event.previous.mod_revision == revision
            kept += len(event.key) + len(event.previous.value) + 64
    assert store.keys.head.stored_bytes == kept
    dead = {key[1:] for key, _ in records.scan(b"d", b"e")}
    assert dead <= {event.key for _, event in left if event.deleted}


@settings(deadline=None)
@given(STEPS)
def test_the_same_history_has_the_same_hash_compacted_or_not(steps: list[Any]) -> None:
    plain, other = make()[0], make()[0]
    hashes: dict[int, bytes] = {}
    for step in steps:
        if not isinstance(step, int | CompactionRequest):
            run(plain, step)
            run(other, step)
            run(other, CompactionRequest(max(1, other.revision - 2)))
            other.keys.collect(2)
            hashes[plain.revision] = run(plain, HashKVRequest()).hash
    for revision, digest in hashes.items():
        assert run(plain, HashKVRequest(revision)) == HashKVResponse(digest, revision, 0)
        found = run(other, HashKVRequest(revision))
        assert isinstance(found, Failure) or found.hash == digest
    assert len(set(hashes.values())) == len(hashes)


def test_an_old_version_of_a_busy_key_is_found_in_few_steps() -> None:
    store, _ = make()
    count = 20_000
    for _ in range(count):
        run(store, PutRequest(b"k", b"v"))
    for revision in (2, 3, 777, count // 2, count):
        looked_at = store.keys.looked_at
        response = run(store, RangeRequest(b"k", revision=revision))
        assert response.kvs[0].mod_revision == revision
        assert store.keys.looked_at - looked_at < 60


def failure_of(response: object) -> tuple[int, str]:
    assert isinstance(response, Failure)
    return response.code, response.message


def test_refusals_change_nothing() -> None:
    store, records = make()
    run(store, PutRequest(b"k", b"v"))
    before = dict(records.scan(b""))
    put = [
        (PutRequest(b""), (3, "etcdserver: key is not provided")),
        (PutRequest(b"x", ignore_value=True), (3, "etcdserver: key not found")),
        (PutRequest(b"x", ignore_lease=True), (3, "etcdserver: key not found")),
        (PutRequest(b"k", b"v", ignore_value=True), (3, "etcdserver: value is provided")),
        (PutRequest(b"k", lease=1, ignore_lease=True), (3, "etcdserver: lease is provided")),
        (PutRequest(b"k", lease=7), (5, "etcdserver: requested lease not found")),
    ]
    for request, wanted in put:
        assert failure_of(run(store, request)) == wanted
    assert failure_of(run(store, PutRequest(bytes(MAX_KEY_BYTES + 1))))[0] == 3
    assert failure_of(run(store, RangeRequest(b"k", revision=3))) == (
        11,
        "etcdserver: mvcc: required revision is a future revision",
    )
    assert failure_of(run(store, DeleteRangeRequest(b"")))[0] == 3
    assert failure_of(run(store, LeaseGrantRequest(9_000_000_001)))[0] == 11
    assert store.revision == 2
    assert dict(records.scan(b"")) == before


def test_bounds_longer_than_any_key_still_separate_the_keys() -> None:
    store, _ = make()
    longest = b"k" * MAX_KEY_BYTES
    run(store, PutRequest(longest, b"v"))
    beyond = longest + b"k"
    assert run(store, RangeRequest(b"a", beyond)).count == 1
    assert run(store, RangeRequest(beyond, b"z")).count == 0
    assert run(store, RangeRequest(beyond)).count == 0
    assert run(store, RangeRequest(longest)).count == 1
    assert run(store, DeleteRangeRequest(beyond, b"\0")).deleted == 0


def test_answers_that_do_not_fit_are_refused_before_anything_changes() -> None:
    store, _ = make()
    for i in range(4):
        run(store, PutRequest(b"k%d" % i, bytes(1000)))

    def limited(operation: Any, bytes_max: int) -> Any:
        return store.execute(operation, bytes_max)[0]

    everything = (b"\0", b"\0")
    assert failure_of(limited(RangeRequest(*everything), 3000))[0] == 8
    assert failure_of(limited(DeleteRangeRequest(*everything, prev_kv=True), 3000))[0] == 8
    assert failure_of(limited(PutRequest(b"k1", b"", prev_kv=True), 500))[0] == 8
    assert store.revision == 5
    assert isinstance(limited(RangeRequest(*everything, keys_only=True), 3000), RangeResponse)
    assert isinstance(limited(DeleteRangeRequest(*everything), 3000), DeleteRangeResponse)


def test_a_transaction_that_can_not_be_answered_changes_nothing() -> None:
    """Its last read finds no room, after its puts and deletions were done."""
    store, records = make()
    run(store, LeaseGrantRequest(60, 7))
    run(store, PutRequest(b"old", bytes(1000), lease=7))
    before, head = dict(records.scan(b"")), msgspec.structs.asdict(store.keys.head)
    steps = (
        PutRequest(b"new", bytes(1000), lease=7),
        DeleteRangeRequest(b"old"),
        TxnRequest(success=(RangeRequest(b"new"), PutRequest(b"deep", b"x"))),
    )
    result, used_bytes = store.execute(TxnRequest(success=steps), 900)
    assert failure_of(result)[0] == 8
    assert used_bytes == 0
    assert dict(records.scan(b"")) == before
    assert msgspec.structs.asdict(store.keys.head) == head
    result, used_bytes = store.execute(TxnRequest(success=steps), 2000)
    assert isinstance(result, TxnResponse)
    assert used_bytes == 1000 + 3 + 64
    assert store.revision == 3


def test_quota_refuses_puts_and_recovers_by_itself() -> None:
    store, _ = make(KeyLimits(quota_bytes=400))
    full = (8, "etcdserver: mvcc: database space exceeded")
    assert isinstance(run(store, PutRequest(b"k", bytes(200))), PutResponse)
    assert failure_of(run(store, PutRequest(b"k", bytes(200)))) == full
    assert run(store, AlarmRequest()) == AlarmResponse(("NOSPACE",))
    small = PutRequest(b"j", b"")
    assert failure_of(run(store, small)) == full
    assert failure_of(run(store, TxnRequest(success=(small,)))) == full
    assert failure_of(run(store, LeaseGrantRequest(60))) == full
    assert run(store, RangeRequest(b"k")).count == 1
    assert run(store, DeleteRangeRequest(b"k")) == DeleteRangeResponse(deleted=1)
    assert isinstance(run(store, PutRequest(b"m", b"")), Failure)
    run(store, CompactionRequest(store.revision))
    store.advance(START_MS, START_MS + 1)
    assert run(store, AlarmRequest()) == AlarmResponse(())
    assert isinstance(run(store, PutRequest(b"m", bytes(100))), PutResponse)
    status = run(store, StatusRequest())
    assert status == StatusResponse(
        db_size=(1 + 100 + 64) + (1 + 64), quota_bytes=400, compact_revision=3, leases=0
    )


def test_alarms_of_an_operator_end_only_by_an_operator() -> None:
    store, _ = make()
    assert failure_of(run(store, AlarmRequest("ACTIVATE")))[0] == 3
    assert run(store, AlarmRequest("ACTIVATE", "NOSPACE")) == AlarmResponse(("NOSPACE",))
    store.advance(START_MS, START_MS + 1)
    assert failure_of(run(store, PutRequest(b"k")))[0] == 8
    run(store, AlarmRequest("ACTIVATE", "CORRUPT"))
    assert failure_of(run(store, RangeRequest(b"k"))) == (15, "etcdserver: corrupt cluster")
    assert run(store, StatusRequest()).alarms == ("CORRUPT", "NOSPACE")
    assert run(store, AlarmRequest("GET", "CORRUPT")) == AlarmResponse(("CORRUPT",))
    for alarm in ("CORRUPT", "NOSPACE"):
        assert run(store, AlarmRequest("DEACTIVATE", alarm)) == AlarmResponse((alarm,))
    assert run(store, PutRequest(b"k")) == PutResponse()


def test_sort_target_without_order_sorts_only_what_the_limit_let_through() -> None:
    store, _ = make()
    for key, value in ((b"a", b"3"), (b"b", b"2"), (b"c", b"1")):
        run(store, PutRequest(key, value))
    response = run(store, RangeRequest(b"a", b"\0", limit=1, sort_target="VALUE"))
    assert ([kv.key for kv in response.kvs], response.more, response.count) == ([b"b"], True, 3)


@pytest.mark.parametrize("depth", [1, 20, 128])
def test_transactions_nest_as_deep_as_etcd_counts(depth: int) -> None:
    store, _ = make()
    txn = TxnRequest()
    for _ in range(depth):
        txn = TxnRequest(success=(txn,))
    assert isinstance(run(store, txn), TxnResponse)
    txn = TxnRequest(success=(PutRequest(b"k"),))
    for _ in range(depth):
        txn = TxnRequest(success=(txn,))
    result = run(store, txn)
    if depth < 128:
        assert isinstance(result, TxnResponse)
    else:
        assert failure_of(result) == (3, "etcdserver: too many operations in txn request")


def test_a_page_of_a_large_listing_looks_at_few_keys() -> None:
    """Now, and at the revision at which a client began to list, after further writes."""
    store, _ = make()
    for i in range(5000):
        run(store, PutRequest(b"k%05d" % i))
    began = store.revision
    run(store, DeleteRangeRequest(b"k00000", b"k00010"))
    run(store, PutRequest(b"k99999"))
    for revision, count in ((0, 4991), (began, 5000), (began - 1000, 4000)):
        looked_at = store.keys.looked_at
        page = run(store, RangeRequest(b"k", b"l", limit=10, revision=revision))
        assert (len(page.kvs), page.more, page.count) == (10, True, count)
        only = run(store, RangeRequest(b"k", b"l", count_only=True, revision=revision))
        assert only.count == count
        assert store.keys.looked_at - looked_at < 6100
    txn = TxnRequest(success=(PutRequest(b"k0"), RangeRequest(b"k", b"l", limit=1)))
    assert run(store, txn).responses[1].count == 4992
    too_large = TxnRequest(success=(PutRequest(b"k1"), RangeRequest(b"k", b"l")))
    assert failure_of(store.execute(too_large, 1000)[0])[0] == 8
    assert run(store, RangeRequest(b"k", b"l", limit=1)).count == 4992


def test_keys_counted_first_in_a_transaction_that_fails_are_counted_right() -> None:
    store, _ = make()
    for i in range(3000):
        run(store, PutRequest(b"k%05d" % i))
    counted = RangeRequest(b"k", b"l", limit=1)
    failing = TxnRequest(success=(PutRequest(b"k1"), counted, RangeRequest(b"k", b"l")))
    assert failure_of(store.execute(failing, 1000)[0])[0] == 8
    assert run(store, counted).count == 3000
