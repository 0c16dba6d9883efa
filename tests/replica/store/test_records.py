"""Records: an ordered map with a digest of its content alone, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_replica.durable.lmdb_records import LmdbRecords
from dwcp_replica.store.digest import Trie
from dwcp_replica.store.records import MemoryNodes, MemoryRecords, Section, StateRecords

Make = Callable[[], StateRecords]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[LmdbRecords] = []

    def on_disk() -> StateRecords:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(LmdbRecords(directory))
        return made[-1]

    yield MemoryRecords if request.param == "memory" else on_disk
    for records in made:
        records.close(sync=False)


def test_scan_is_ordered_and_half_open(make: Make) -> None:
    records = make()
    for key in (b"b", b"a", b"d", b"c"):
        records.set(key, key.upper())
    assert list(records.scan(b"b", b"d")) == [(b"b", b"B"), (b"c", b"C")]
    assert [key for key, _ in records.scan(b"b", reverse=True)] == [b"d", b"c", b"b"]
    assert list(records.scan(b"d", b"d")) == []


def test_equal_content_means_equal_digest_whatever_the_history(make: Make) -> None:
    straight, winding = make(), make()
    rng = Random(7)
    for n in rng.sample(range(300), 300):
        winding.set(b"%03d" % n, b"old")
    winding.commit()
    for n in range(300):
        straight.set(b"%03d" % n, b"%d" % n)
        winding.set(b"%03d" % n, b"%d" % n)
    winding.set(b"gone", b"x")
    assert straight.digest() != winding.digest()
    winding.remove(b"gone")
    winding.remove(b"never")
    assert straight.digest() == winding.digest()
    assert winding.get(b"gone") is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 60), st.binary(max_size=3)),
        st.tuples(st.just("remove"), st.integers(0, 60)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("scan"), st.integers(0, 60), st.integers(0, 60), st.booleans()),
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_both_kinds_behave_as_a_dictionary(steps: list[tuple[object, ...]]) -> None:
    """Sets, removals, scans both ways, commits in between: the same in memory and on disk."""
    with TemporaryDirectory() as directory:
        disk = LmdbRecords(Path(directory))
        kinds: list[StateRecords] = [MemoryRecords(), disk]
        model: dict[bytes, bytes] = {}
        for step in steps:
            match step:
                case ("set", int(number), bytes(value)):
                    model[b"%02d" % number] = value
                    for records in kinds:
                        records.set(b"%02d" % number, value)
                case ("remove", int(number)):
                    model.pop(b"%02d" % number, None)
                    for records in kinds:
                        records.remove(b"%02d" % number)
                case ("scan", int(low), int(high), bool(reverse)):
                    span = (b"%02d" % low, None if high == 0 else b"%02d" % high)
                    inside = [
                        (key, value)
                        for key, value in sorted(model.items(), reverse=reverse)
                        if key >= span[0] and (span[1] is None or key < span[1])
                    ]
                    for records in kinds:
                        assert list(records.scan(*span, reverse=reverse)) == inside
                case _:
                    for records in kinds:
                        records.commit()
        scratch = Trie(MemoryNodes())
        scratch.update(dict(model))
        for records in kinds:
            assert {k: records.get(k) for k in model} == model
            assert records.digest() == scratch.root()
            records.commit()
            assert dict(records.scan(b"")) == model
        disk.close(sync=False)


def test_a_view_stands_still(make: Make) -> None:
    records = make()
    for number in range(100):
        records.set(b"%d" % number, b"old")
    records.commit()
    view = records.view()
    root = view.node(b"")
    records.set(b"7", b"new")
    records.remove(b"8")
    records.commit()
    assert (view.get(b"7"), view.get(b"8"), view.node(b"")) == (b"old", b"old", root)
    assert records.view().get(b"7") == b"new"
    assert records.node(b"") != root
    view.close()


def test_a_section_is_a_state_of_its_own(make: Make) -> None:
    records = make()
    records.set(b"\x03zz", b"below")
    records.set(b"\x05a", b"above")
    section = Section(records, b"\x04")
    section.set(b"k", b"v")
    section.set(b"l", b"w")
    section.remove(b"absent")
    assert list(section.scan()) == [(b"k", b"v"), (b"l", b"w")]
    assert list(section.scan(b"l", reverse=True)) == [(b"l", b"w")]
    assert section.get(b"k") == records.get(b"\x04k") == b"v"
    alone = MemoryRecords()
    alone.set(b"k", b"v")
    alone.set(b"l", b"w")
    assert section.digest() == alone.digest()


def test_what_can_not_be_stored_is_a_bug_of_the_machine(make: Make) -> None:
    records = make()
    with pytest.raises(AssertionError, match="481 bytes"):
        records.set(bytes(481), b"")
    with pytest.raises(AssertionError, match="at most"):
        records.set(b"k", bytes(8 * 1024 * 1024 + 1))
