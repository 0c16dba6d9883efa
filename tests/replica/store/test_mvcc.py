from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dwcp.wire.operations import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from dwcp_replica.store import Mvcc

UNLIMITED = 2**62
KEYS = st.sampled_from([b"a", b"b", b"b\0", b"c", b"\xff", b"\0"])
ENDS = st.sampled_from([b"", b"\0", b"a", b"b", b"c", b"d", b"\xff\xff"])
PUTS = st.builds(PutRequest, key=KEYS, value=st.binary(max_size=3), prev_kv=st.booleans())
DELETES = st.builds(DeleteRangeRequest, key=KEYS, range_end=ENDS, prev_kv=st.booleans())


class Model:
    """The key space as a list of whole snapshots, one per revision: slow and plain."""

    def __init__(self) -> None:
        self.snapshots: list[dict[bytes, KeyValue]] = [{}, {}]

    @property
    def revision(self) -> int:
        return len(self.snapshots) - 1

    def select(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        def wanted(k: bytes) -> bool:
            if not range_end:
                return k == key
            return k >= key and (range_end == b"\0" or k < range_end)

        return [kv for k, kv in sorted(self.snapshots[revision].items()) if wanted(k)]

    def put(self, request: PutRequest) -> PutResponse:
        old = self.snapshots[-1].get(request.key)
        revision = self.revision + 1
        kv = KeyValue(
            request.key,
            old.create_revision if old else revision,
            revision,
            old.version + 1 if old else 1,
            request.value,
        )
        self.snapshots.append(self.snapshots[-1] | {request.key: kv})
        return PutResponse(old if request.prev_kv else None)

    def delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        gone = self.select(request.key, request.range_end, self.revision)
        if gone:
            left = dict(self.snapshots[-1])
            for kv in gone:
                del left[kv.key]
            self.snapshots.append(left)
        return DeleteRangeResponse(len(gone), tuple(gone) if request.prev_kv else ())


@given(st.lists(st.one_of(PUTS, DELETES), max_size=30), KEYS, ENDS, st.integers(0, 4))
def test_every_revision_reads_as_the_model_does(
    operations: list[PutRequest | DeleteRangeRequest], key: bytes, range_end: bytes, limit: int
) -> None:
    store, model = Mvcc(), Model()
    for operation in operations:
        if isinstance(operation, PutRequest):
            assert store.put(operation, UNLIMITED) == model.put(operation)
        else:
            assert store.delete_range(operation, UNLIMITED) == model.delete(operation)
        assert store.revision == model.revision
    for revision in range(1, model.revision + 1):
        request = RangeRequest(key, range_end, limit=limit, revision=revision)
        kvs = model.select(key, range_end, revision)
        assert store.range(request, UNLIMITED) == RangeResponse(
            kvs=tuple(kvs[:limit] if limit else kvs),
            more=0 < limit < len(kvs),
            count=len(kvs),
        )


def failure_of(response: object) -> tuple[int, str]:
    assert isinstance(response, Failure)
    return response.code, response.message


def test_refusals_change_nothing() -> None:
    store = Mvcc()
    store.put(PutRequest(b"k", b"v"), UNLIMITED)
    put = [
        (PutRequest(b""), (3, "etcdserver: key is not provided")),
        (PutRequest(b"x", ignore_value=True), (3, "etcdserver: key not found")),
        (PutRequest(b"x", ignore_lease=True), (3, "etcdserver: key not found")),
        (PutRequest(b"k", b"v", ignore_value=True), (3, "etcdserver: value is provided")),
        (PutRequest(b"k", lease=1, ignore_lease=True), (3, "etcdserver: lease is provided")),
    ]
    for request, wanted in put:
        assert failure_of(store.put(request, UNLIMITED)) == wanted
    assert failure_of(store.put(PutRequest(b"k", lease=7), UNLIMITED))[0] == 12
    assert failure_of(store.range(RangeRequest(b"k", revision=3), UNLIMITED)) == (
        11,
        "etcdserver: mvcc: required revision is a future revision",
    )
    assert failure_of(store.delete_range(DeleteRangeRequest(b""), UNLIMITED))[0] == 3
    assert store.revision == 2
    assert len(list(store.drain_changes())) == 1


def test_answers_that_do_not_fit_are_refused_before_anything_changes() -> None:
    store = Mvcc()
    for i in range(4):
        store.put(PutRequest(b"k%d" % i, bytes(1000)), UNLIMITED)
    everything = (b"\0", b"\0")
    assert failure_of(store.range(RangeRequest(*everything), 3000))[0] == 8
    assert failure_of(store.delete_range(DeleteRangeRequest(*everything, prev_kv=True), 3000))[0]
    assert failure_of(store.put(PutRequest(b"k1", b"", prev_kv=True), 500))[0] == 8
    assert store.revision == 5
    assert isinstance(store.range(RangeRequest(*everything, keys_only=True), 3000), RangeResponse)
    assert isinstance(
        store.delete_range(DeleteRangeRequest(*everything), 3000), DeleteRangeResponse
    )


def test_quota_refuses_puts_and_lets_deletes_pass() -> None:
    store = Mvcc(quota_bytes=200)
    assert isinstance(store.put(PutRequest(b"k", bytes(100)), UNLIMITED), PutResponse)
    assert failure_of(store.put(PutRequest(b"k", bytes(100)), UNLIMITED)) == (
        8,
        "etcdserver: mvcc: database space exceeded",
    )
    response = store.delete_range(DeleteRangeRequest(b"k"), UNLIMITED)
    assert response == DeleteRangeResponse(deleted=1)


def test_sort_target_without_order_sorts_only_what_the_limit_let_through() -> None:
    store = Mvcc()
    for key, value in ((b"a", b"3"), (b"b", b"2"), (b"c", b"1")):
        store.put(PutRequest(key, value), UNLIMITED)
    response = store.range(RangeRequest(b"a", b"\0", limit=1, sort_target="VALUE"), UNLIMITED)
    assert isinstance(response, RangeResponse)
    assert ([kv.key for kv in response.kvs], response.more, response.count) == ([b"b"], True, 3)
