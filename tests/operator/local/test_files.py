from __future__ import annotations

from pathlib import Path

from dwcp_operator.local.files import last_lines, replace_file, rotate, write_once


def test_a_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "genesis"
    assert write_once(path, b"first")
    assert not write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["genesis"], "drafts are removed"


def test_a_draft_that_a_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "genesis"
    assert write_once(path, b"whole")
    draft = next(iter(tmp_path.iterdir())).with_name(".other.1.new")
    draft.write_bytes(b"half")
    assert write_once(tmp_path / "other", b"whole")
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_replacing_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    replace_file(path, b"long content", mode=0o644)
    replace_file(path, b"short", mode=0o644)
    assert path.read_bytes() == b"short"
    assert len(list(tmp_path.iterdir())) == 1


def test_logs_are_bounded_at_start(tmp_path: Path) -> None:
    log = tmp_path / "demo-0.log"
    rotate(log, size_max=10)
    log.write_text("x" * 10)
    rotate(log, size_max=10)
    assert log.exists()
    log.write_text("x" * 11)
    rotate(log, size_max=10)
    assert not log.exists()
    assert (tmp_path / "demo-0.log.1").stat().st_size == 11


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log, 3) == []
    log.write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert last_lines(log, 2) == ["line 99998", "line 99999"]
