"""A log that begins anew: what may be removed, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwcp_replica.durable import ForeignDirectory, Wal
from dwcp_replica.durable.archive import read_archive
from replica.durable.logs import BINDING
from replica.durable.logs import entry_record as entry


def opened(path: Path) -> tuple[Wal, list[object]]:
    wal, records, damage = Wal.open(path / "wal", binding=BINDING, segment_bytes=2000)
    assert damage is None
    return wal, list(records)


def written(path: Path) -> tuple[Wal, int]:
    """Three dozen entries, and a log that begins anew with the last two."""
    wal, _ = opened(path)
    for number in range(1, 37):
        wal.append([entry(number)])
        wal.sync()
    return wal, wal.begin_anew([entry(35), entry(36)])


def test_what_is_left_is_what_the_log_began_anew_with(tmp_path: Path) -> None:
    wal, segment = written(tmp_path)
    before = wal.total_bytes
    wal.remove_before(segment, tmp_path / "archive")
    wal.append([entry(37)])
    wal.close()
    assert wal.total_bytes < before
    again, records = opened(tmp_path)
    assert records == [entry(35), entry(36), entry(37)]
    again.append([entry(38)])
    again.close()
    assert opened(tmp_path)[1] == [entry(35), entry(36), entry(37), entry(38)]


def test_a_crash_before_the_removal_leaves_everything(tmp_path: Path) -> None:
    written(tmp_path)
    records = opened(tmp_path)[1]
    assert records == [*(entry(number) for number in range(1, 37)), entry(35), entry(36)]


def test_a_crash_in_the_middle_of_the_removal_is_finished(tmp_path: Path) -> None:
    """state.json says where the log begins; files before that are needless."""
    wal, segment = written(tmp_path)
    first = tmp_path / "wal" / f"{1:016d}.seg"
    kept = first.read_bytes()
    wal.remove_before(segment, tmp_path / "archive")
    first.write_bytes(kept)
    again, records = opened(tmp_path)
    assert records == [entry(35), entry(36)]
    assert not first.exists()
    assert again.total_bytes == wal.total_bytes


def test_a_missing_first_segment_is_damage(tmp_path: Path) -> None:
    wal, segment = written(tmp_path)
    wal.remove_before(segment, tmp_path / "archive")
    wal.close()
    (tmp_path / "wal" / f"{segment:016d}.seg").unlink()
    _, records, damage = Wal.open(tmp_path / "wal", binding=BINDING, segment_bytes=2000)
    assert records == []
    assert damage is not None
    assert not damage.harmless


def test_headers_of_what_was_removed_stay(tmp_path: Path) -> None:
    wal, segment = written(tmp_path)
    wal.remove_before(segment, tmp_path / "archive")
    for number in range(37, 60):
        wal.append([entry(number)])
    wal.remove_before(wal.begin_anew([entry(59)]), tmp_path / "archive")
    kept = [header for one in read_archive(tmp_path / "archive") for header in one.headers]
    wanted = {entry(number).entry.header for number in range(1, 60)}
    assert set(kept) == wanted


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    wal, segment = written(tmp_path)
    wal.remove_before(segment, tmp_path / "archive")
    (path,) = (tmp_path / "archive").iterdir()
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(ForeignDirectory, match="damaged"):
        list(read_archive(tmp_path / "archive"))


def test_a_damaged_segment_is_not_removed(tmp_path: Path) -> None:
    wal, segment = written(tmp_path)
    path = tmp_path / "wal" / f"{2:016d}.seg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ForeignDirectory, match="damaged"):
        wal.remove_before(segment, tmp_path / "archive")
    assert (tmp_path / "wal" / f"{1:016d}.seg").exists()
