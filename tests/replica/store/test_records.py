"""Records: an ordered map with a digest that depends on its content alone."""

from __future__ import annotations

from random import Random

from dwcp_replica.store.records import MemoryRecords


def test_scan_is_ordered_and_half_open() -> None:
    records = MemoryRecords()
    for key in (b"b", b"a", b"d", b"c"):
        records.set(key, key.upper())
    assert list(records.scan(b"b", b"d")) == [(b"b", b"B"), (b"c", b"C")]
    assert [key for key, _ in records.scan(b"b", reverse=True)] == [b"d", b"c", b"b"]
    assert list(records.scan(b"d", b"d")) == []


def test_equal_content_means_equal_digest_whatever_the_history() -> None:
    straight, winding = MemoryRecords(), MemoryRecords()
    rng = Random(7)
    for n in rng.sample(range(300), 300):
        winding.set(b"%03d" % n, b"old")
    for n in range(300):
        straight.set(b"%03d" % n, b"%d" % n)
        winding.set(b"%03d" % n, b"%d" % n)
    winding.set(b"gone", b"x")
    assert straight.digest() != winding.digest()
    winding.remove(b"gone")
    winding.remove(b"never")
    assert straight.digest() == winding.digest()
    assert winding.get(b"gone") is None
