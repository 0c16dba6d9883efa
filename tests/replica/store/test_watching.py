"""Events of a watch: as the twin saw them happen, in pages of any size, and after compaction."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.wire.operations import CompactionRequest, DeleteRangeRequest, PutRequest, TxnRequest
from dwcp.wire.watch import LAST, Pull, WatchEvent
from dwcp_replica.store.keystore import KeyStore
from dwcp_replica.store.txn import check
from dwcp_replica.store.watching import Seen, look
from replica.store.etcd_twin import Twin
from replica.store.test_mvcc import ENDS, KEYS, START_MS, STEPS, make, run

ALL_EVENTS = 10**6


def play(store: KeyStore, twin: Twin, steps: list[Any]) -> None:
    for step in steps:
        if isinstance(step, int):
            store.advance(twin.now_ms, twin.now_ms + step)
            twin.pass_time(twin.now_ms + step)
        elif check(step) is None:
            assert run(store, step) == twin.execute(step)


def pages(store: KeyStore, pull: Pull, bytes_max: int, events_max: int) -> list[WatchEvent]:
    """All pages of a watch, each pulled where the one before ended."""
    found: list[WatchEvent] = []
    after = pull.after
    for _ in range(1000):
        again = Pull(0, pull.key, pull.range_end, after, pull.filters, pull.prev_kv)
        seen = look(store.keys, again, bytes_max=bytes_max, events_max=events_max)
        assert seen.compact_revision == 0
        found += seen.events
        if seen.upto == after:
            return found
        assert seen.upto > after
        after = seen.upto
    raise AssertionError("no end of pages")


@settings(deadline=None)
@given(STEPS, KEYS, ENDS, st.integers(0, 12), st.integers(1, 200), st.integers(1, 5))
def test_a_watch_sees_what_the_twin_saw(
    steps: list[Any], key: bytes, end: bytes, start: int, bytes_max: int, events_max: int
) -> None:
    store, twin = make()[0], Twin(now_ms=START_MS)
    play(store, twin, steps)
    start = max(start, twin.compacted, 1)
    pull = Pull(0, key, end, (start - 1, LAST), prev_kv=True)
    wanted = [
        WatchEvent(change.kind.upper(), change.kv, change.prev_kv)  # type: ignore[arg-type]
        for change in twin.watch(start, key, end)
    ]
    assert pages(store, pull, bytes_max, events_max) == wanted
    whole = look(store.keys, pull, bytes_max=2**62, events_max=ALL_EVENTS)
    assert whole == Seen((max(start - 1, store.revision), LAST), tuple(wanted))
    for filters, kind in ((("NOPUT",), "DELETE"), (("NODELETE",), "PUT")):
        filtered = Pull(0, key, end, pull.after, filters, prev_kv=True)  # type: ignore[arg-type]
        seen = look(store.keys, filtered, bytes_max=2**62, events_max=ALL_EVENTS)
        assert list(seen.events) == [event for event in wanted if event.type == kind]


def test_a_watch_below_the_compaction_is_told_so() -> None:
    store, _ = make()
    for i in range(5):
        run(store, PutRequest(b"k", b"%d" % i))
    run(store, DeleteRangeRequest(b"k"))
    run(store, CompactionRequest(7))
    store.keys.collect(100)
    below = look(store.keys, Pull(0, b"k", b"", (5, LAST)), bytes_max=100, events_max=100)
    assert (below.compact_revision, below.events) == (7, ())
    at = look(store.keys, Pull(0, b"k", b"", (6, LAST)), bytes_max=100, events_max=100)
    assert [event.type for event in at.events] == ["DELETE"]


def test_a_put_and_a_deletion_in_one_revision_are_both_seen() -> None:
    """etcd lets a nested transaction delete what another one before it has put."""
    store, _ = make()
    put, delete = PutRequest(b"k", b"brief"), DeleteRangeRequest(b"a", b"z")
    inner = (TxnRequest(success=(put,)), TxnRequest(success=(delete,)))
    run(store, TxnRequest(success=inner))
    pull = Pull(0, b"k", b"", (1, LAST), prev_kv=True)
    seen = look(store.keys, pull, bytes_max=1000, events_max=1000)
    assert [(event.type, event.kv.value) for event in seen.events] == [
        ("PUT", b"brief"),
        ("DELETE", b""),
    ]
    assert seen.events[1].prev_kv == seen.events[0].kv
