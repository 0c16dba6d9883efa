from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_replica.core.effects import EnteredRecord, Record
from dwcp_replica.durable import DamageKind, DiskFailure, DiskFull, LogDamaged, Wal
from dwcp_replica.durable.recovery import STATE, SYNC_FAILED, LogState, store_state
from dwcp_replica.durable.segment import FRAME_BYTES, HEADER_BYTES
from dwcp_replica.durable.wal import boot_id
from replica.durable.logs import (
    BINDING,
    ENTERED,
    entry_record,
    open_wal,
    read,
    records,
    segment,
    write,
)


def rebooted(directory: Path) -> None:
    """As if the machine had rebooted since the log was written."""
    state = msgspec.json.decode((directory / STATE).read_bytes(), type=LogState)
    store_state(directory, msgspec.structs.replace(state, boot_id="another boot"))


def flip(path: Path, position: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    items = records(20)
    write(tmp_path / "wal", items)
    assert read(tmp_path / "wal") == (items, None)


def test_a_new_log_is_empty_and_goes_on_after_reopening(tmp_path: Path) -> None:
    assert read(tmp_path / "wal") == ([], None)
    write(tmp_path / "wal", records(3))
    write(tmp_path / "wal", [entry_record(9)])
    assert read(tmp_path / "wal") == ([*records(3), entry_record(9)], None)


def test_segments_rotate(tmp_path: Path) -> None:
    items = records(40, bytes(100))
    write(tmp_path, items, segment_bytes=2000)
    assert segment(tmp_path, 3).exists()
    assert read(tmp_path) == (items, None)
    write(tmp_path, [entry_record(99)], segment_bytes=2000)
    assert read(tmp_path)[0] == [*items, entry_record(99)]


def test_one_fdatasync_per_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal, _, _ = open_wal(tmp_path)
    calls: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append(fd), real(fd)))
    wal.append(records(5))
    wal.append([entry_record(6)])
    assert not calls
    wal.sync()
    wal.sync()
    assert len(calls) == 1
    wal.close()


# --- damage ---------------------------------------------------------------------------------


def last_record_bytes(items: list[Record]) -> int:
    return FRAME_BYTES + len(msgspec.msgpack.encode(items[-1]))


@pytest.mark.parametrize("is_rebooted", [False, True])
def test_cut_at_every_byte_of_the_last_record_and_into_the_one_before(
    tmp_path: Path, is_rebooted: bool
) -> None:
    items = records(4)
    write(tmp_path / "log", items)
    size = segment(tmp_path / "log").stat().st_size
    last = last_record_bytes(items)
    for cut in range(1, last + FRAME_BYTES + 8):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "log", copy)
        os.truncate(segment(copy), size - cut)
        if is_rebooted:
            rebooted(copy)
        found, damage = read(copy)
        assert found == items[: 4 - -(-cut // last)]
        if cut % last == 0:
            assert damage is None, "a cut between records can not be seen"
            continue
        assert damage is not None
        assert damage.harmless is not is_rebooted
        assert damage.kind is (DamageKind.TAIL if is_rebooted else DamageKind.UNFINISHED)
        assert read(copy) == (found, damage if is_rebooted else None), "a lost tail is remembered"


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("wal")
    items = records(12, bytes(30))
    write(directory, items, segment_bytes=700)
    numbers = [int(path.stem) for path in directory.glob("*.seg")]
    number = data.draw(st.sampled_from(sorted(numbers)))
    path = segment(directory, number)
    position = data.draw(st.integers(0, path.stat().st_size - 1))
    before = path.read_bytes()
    flip(path, position, 1 << data.draw(st.integers(0, 7)))
    found, damage = read(directory)
    assert damage is not None
    assert not damage.harmless
    assert found == items[: len(found)], "never a wrong record"
    assert len(found) < len(items)
    if damage.kind is DamageKind.TAIL:
        assert number == max(numbers)
        assert damage.dropped is not None
        kept = (directory / damage.dropped).read_bytes()
        assert path.read_bytes() + kept != before
        assert len(path.read_bytes() + kept) == len(before), "set aside, not destroyed"
    else:
        assert len(path.read_bytes()) == len(before), "never truncated"


def test_flip_every_byte_of_the_last_record(tmp_path: Path) -> None:
    items = records(4)
    write(tmp_path / "log", items)
    size = segment(tmp_path / "log").stat().st_size
    for position in range(size - last_record_bytes(items), size):
        copy = tmp_path / f"flip-{position}"
        shutil.copytree(tmp_path / "log", copy)
        flip(segment(copy), position)
        found, damage = read(copy)
        assert found == items[:3]
        assert damage is not None
        assert damage.kind is DamageKind.TAIL


def test_damage_before_good_records_is_never_truncated(tmp_path: Path) -> None:
    items = records(6)
    write(tmp_path, items)
    flip(segment(tmp_path), HEADER_BYTES + last_record_bytes([ENTERED]) + FRAME_BYTES)
    before = segment(tmp_path).read_bytes()
    wal, found, damage = open_wal(tmp_path)
    assert found == items[:1]
    assert damage is not None
    assert damage.kind is DamageKind.MIDDLE
    with pytest.raises(LogDamaged):
        wal.append([entry_record(1)])
    wal.close()
    assert segment(tmp_path).read_bytes() == before
    assert read(tmp_path)[1] == damage


def test_zeros_and_rubbish_at_the_end_are_a_lost_tail(tmp_path: Path) -> None:
    for name, rubbish in (("zeros", bytes(5000)), ("rubbish", b"\xa5" * 40)):
        directory = tmp_path / name
        write(directory, records(3))
        with segment(directory).open("ab") as file:
            file.write(rubbish)
        found, damage = read(directory)
        assert found == records(3)
        assert damage is not None
        assert damage.kind is DamageKind.TAIL


def test_a_lost_tail_is_remembered_and_the_log_goes_on(tmp_path: Path) -> None:
    write(tmp_path, records(3))
    flip(segment(tmp_path), segment(tmp_path).stat().st_size - 1)
    wal, found, damage = open_wal(tmp_path)
    wal.append([entry_record(7)])
    wal.sync()
    wal.close()
    os.truncate(segment(tmp_path), segment(tmp_path).stat().st_size - 1)
    again, remembered = read(tmp_path)
    assert again == found
    assert remembered == damage


@pytest.mark.parametrize("kind", ["missing", "last missing", "swapped", "cut", "state", "foreign"])
def test_segments_that_do_not_fit_are_middle_damage(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "log"
    write(directory, records(40, bytes(100)), segment_bytes=2000)
    last = max(int(path.stem) for path in directory.glob("*.seg"))
    one, two = segment(directory, 1), segment(directory, 2)
    match kind:
        case "missing":
            two.unlink()
        case "last missing":
            segment(directory, last).unlink()
        case "swapped":
            data = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(data)
        case "cut":
            os.truncate(one, one.stat().st_size - last_record_bytes([entry_record(1, bytes(100))]))
        case "state":
            (directory / STATE).unlink()
        case "foreign":
            other, _, _ = Wal.open(tmp_path / "other", binding=b"x" * 32)
            other.close()
            shutil.copy(segment(tmp_path / "other"), one)
    _, found, damage = open_wal(directory)
    assert damage is not None
    assert damage.kind is DamageKind.MIDDLE
    assert found == records(40, bytes(100))[: len(found)]


def test_the_log_of_another_member_is_refused(tmp_path: Path) -> None:
    write(tmp_path, records(3))
    wal, found, damage = Wal.open(tmp_path, binding=b"x" * 32)
    wal.close()
    assert found == []
    assert damage is not None
    assert damage.kind is DamageKind.MIDDLE
    assert "another member" in damage.detail
    assert read(tmp_path) == (records(3), None), "left as it was"


def test_a_record_inside_a_record_is_no_later_record(tmp_path: Path) -> None:
    """A client that knew the format could plant one; without the salt it does not pass."""
    write(tmp_path / "other", records(3))
    planted = segment(tmp_path / "other").read_bytes()[HEADER_BYTES:]
    directory = tmp_path / "log"
    write(directory, [ENTERED, entry_record(1, planted * 3)])
    os.truncate(segment(directory), segment(directory).stat().st_size - 10)
    found, damage = read(directory)
    assert found == [ENTERED]
    assert damage is not None
    assert damage.kind is DamageKind.UNFINISHED


# --- errors of the disk -----------------------------------------------------------------------


def test_a_failed_sync_ends_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal, _, _ = open_wal(tmp_path)
    wal.append(records(3))
    calls = 0

    def fail(fd: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.EIO, "planted")

    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(2):
        with pytest.raises(DiskFailure, match="fdatasync"):
            wal.sync()
    with pytest.raises(DiskFailure):
        wal.append(records(1))
    assert calls == 1, "never retried"
    assert (tmp_path / SYNC_FAILED).exists()
    wal.close()
    with pytest.raises(DiskFailure):
        open_wal(tmp_path)
    monkeypatch.undo()
    inode = segment(tmp_path).stat().st_ino
    assert read(tmp_path) == (records(3), None)
    assert segment(tmp_path).stat().st_ino != inode, "written anew"
    assert not (tmp_path / SYNC_FAILED).exists()


def test_opening_syncs_what_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may have left whole records that were never synced."""
    wal, _, _ = open_wal(tmp_path)
    wal.append(records(3))
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd)))
    again, found, _ = open_wal(tmp_path)
    assert found == records(3)
    assert segment(tmp_path).stat().st_ino in synced
    again.close()
    wal.close()


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("spare", [0, 1, 30, 150])
def test_a_full_disk_refuses_and_leaves_the_log_as_it_was(tmp_path: Path, spare: int) -> None:
    """The kernel's file size limit lets through a part of the write, as a full disk does."""
    wal, _, _ = open_wal(tmp_path)
    wal.append(records(3))
    size = wal.size_bytes
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit_file_size(size + spare)
    try:
        with pytest.raises(DiskFull, match="nothing was lost"):
            wal.append([entry_record(8, bytes(200)), entry_record(9, bytes(200))])
        assert segment(tmp_path).stat().st_size == size
    finally:
        limit_file_size(unlimited)
    wal.append([entry_record(3)])
    wal.sync()
    wal.close()
    assert read(tmp_path) == ([*records(3), entry_record(3)], None)


def test_no_room_for_a_new_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal, _, _ = open_wal(tmp_path, segment_bytes=100)
    wal.append(records(2))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit_file_size(HEADER_BYTES // 2)
    try:
        with pytest.raises(DiskFull, match="segment"):
            wal.append([entry_record(2)])
    finally:
        limit_file_size(unlimited)
    wal.append([entry_record(2)])
    assert wal.segment == 2
    wal.close()
    assert read(tmp_path) == (records(3), None)


def test_a_record_that_does_not_read_back_is_not_written(tmp_path: Path) -> None:
    wal, _, _ = open_wal(tmp_path)
    with pytest.raises((AssertionError, msgspec.DecodeError)):
        wal.append([EnteredRecord(0, bytes(32))])
    wal.close()
    assert read(tmp_path) == ([], None)


def test_boot_id_is_recorded(tmp_path: Path) -> None:
    write(tmp_path, records(1))
    state = msgspec.json.decode((tmp_path / STATE).read_bytes(), type=LogState)
    assert (state.boot_id, state.segment) == (boot_id(), 1)
    assert len(BINDING) == 32


def kill_writer_after(directory: Path, acknowledgements: int) -> int:
    """Run the writer, kill it after some acknowledgements; the last record it acknowledged."""
    path = os.pathsep.join(item for item in sys.path if item)
    process = subprocess.Popen(
        [sys.executable, "-m", "replica.durable.writer", str(directory)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        first = output.readline()
        assert first.startswith("ready "), "the writer found damage"
        for _ in range(acknowledgements):
            assert output.readline()
        process.send_signal(signal.SIGKILL)
        lines = [first.removeprefix("ready "), *output.readlines()]
    complete = [int(line) for line in lines if line.endswith("\n")]
    return complete[-1]


def test_acknowledged_records_survive_kill(tmp_path: Path) -> None:
    for round_number in range(12):
        acknowledged = kill_writer_after(tmp_path / "wal", 1 + round_number * 3)
        wal, found, damage = open_wal(tmp_path / "wal", segment_bytes=200_000)
        wal.close()
        assert damage is None or damage.harmless
        assert len(found) >= acknowledged
        numbers = [item.entry.header.index for item in found]  # type: ignore[union-attr]
        assert numbers == list(range(1, len(found) + 1))
