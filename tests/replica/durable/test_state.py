"""The state on disk: what a killed process, a stopped machine and a full disk leave of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dwcp_replica.durable.faults import DiskFull
from dwcp_replica.durable.lmdb_records import LmdbRecords
from dwcp_replica.durable.state import StateDirectory


def written(directory: StateDirectory, start: int, stop: int) -> bytes:
    for number in range(start, stop):
        directory.records.set(b"k%06d" % number, b"v%d" % number)
    directory.records.commit()
    return directory.records.digest()


def as_after_a_reboot(path: Path) -> None:
    """What the next process finds when the machine has stopped in between."""
    state = msgspec.json.decode((path / "state.json").read_bytes())
    state["boot_id"] = "another"
    (path / "state.json").write_bytes(msgspec.json.encode(state))


def killed(directory: StateDirectory) -> Path:
    """The process is gone, without a word."""
    directory.records.close(sync=False)
    return directory.path


def test_a_killed_process_loses_nothing_that_it_committed(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    digest = written(directory, 0, 500)
    directory.records.set(b"uncommitted", b"")
    again = StateDirectory.open(killed(directory))
    assert again.records.get(b"uncommitted") is None
    assert again.records.digest() == digest
    assert sum(1 for _ in again.records.scan(b"")) == 500
    again.close()


def test_after_the_machine_stopped_the_snapshot_is_what_counts(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    digest = written(directory, 0, 500)
    directory.snapshot(7)
    assert written(directory, 500, 600) != digest
    as_after_a_reboot(killed(directory))
    again = StateDirectory.open(tmp_path / "state")
    assert again.snapshot_index == 7
    assert again.records.digest() == digest
    assert again.records.get(b"k000599") is None
    again.close()


def test_a_state_that_was_closed_in_order_survives_the_machine(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    digest = written(directory, 0, 50)
    directory.close()
    as_after_a_reboot(directory.path)
    again = StateDirectory.open(directory.path)
    assert again.records.digest() == digest
    as_after_a_reboot(killed(again))
    third = StateDirectory.open(directory.path)
    assert third.records.get(b"k000001") is None, "a stop in order counts once"
    third.close()


@pytest.mark.parametrize("harm", ["byte", "cut", "about", "gone"])
def test_a_damaged_snapshot_is_not_used(tmp_path: Path, harm: str) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    written(directory, 0, 50)
    directory.snapshot(3)
    data = directory.path / "snapshot-1" / "data.mdb"
    match harm:
        case "byte":
            bad = bytearray(data.read_bytes())
            bad[len(bad) // 2] ^= 1
            data.write_bytes(bad)
        case "cut":
            os.truncate(data, 4096)
        case "about":
            (data.parent / "about.json").write_text("{}")
        case _:
            data.unlink()
    as_after_a_reboot(killed(directory))
    again = StateDirectory.open(directory.path)
    assert list(again.records.scan(b"")) == []
    again.close()


def test_a_live_state_that_can_not_be_read_is_rebuilt(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    digest = written(directory, 0, 50)
    directory.snapshot(3)
    (killed(directory) / "live" / "data.mdb").write_bytes(bytes(65536))
    again = StateDirectory.open(directory.path)
    assert again.records.digest() == digest
    again.close()


def test_older_snapshots_go_and_unfinished_ones_too(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    written(directory, 0, 50)
    directory.snapshot(3)
    directory.snapshot(9)
    (directory.path / "snapshot.tmp").mkdir()
    again = StateDirectory.open(killed(directory))
    assert sorted(p.name for p in again.path.glob("snap*")) == ["snapshot-2"]
    assert again.snapshot_index == 9
    again.close()


def test_the_map_grows_and_ends_views(tmp_path: Path) -> None:
    records = LmdbRecords(tmp_path, map_bytes=256 * 1024)
    records.set(b"a", b"1")
    records.commit()
    view = records.view()
    assert view.get(b"a") == b"1"
    for number in range(2000):
        records.set(b"k%d" % number, bytes(1000))
    records.commit()
    assert view.get(b"a") is None, "nobody may read while the map is replaced"
    assert records.view().get(b"k1999") == bytes(1000)
    assert records.used_bytes > 2_000_000
    records.close(sync=False)


def test_a_target_is_remembered(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    directory.records.aim((200, b"\x01" * 32))
    again = StateDirectory.open(killed(directory))
    assert again.records.target == (200, b"\x01" * 32)
    again.records.aim(None)
    third = StateDirectory.open(killed(again))
    assert third.records.target is None
    third.close()


def test_a_full_disk_loses_nothing_and_is_got_over(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from replica.durable.test_state import full; full()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def full() -> None:
    """A limit on the size of files stands for a full disk: writes end short, as there."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    directory = StateDirectory.open(Path("state"))
    before = written(directory, 0, 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
    for number in range(2000):
        directory.records.set(b"big%d" % number, bytes(1000))
    for _ in range(3):
        assert not directory.records.commit()
    with pytest.raises(DiskFull, match="no room"):
        directory.records.aim((1, bytes(32)))
    assert directory.records.target is None
    assert directory.records.get(b"big1999") == bytes(1000), "reading goes on"
    assert directory.records.get(b"k000099") == b"v99"
    view = directory.records.view()
    assert view.get(b"big0") is None
    view.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert directory.records.commit()
    again = StateDirectory.open(killed(directory))
    assert again.records.get(b"big1999") == bytes(1000)
    assert again.records.digest() != before
    again.close()


def test_what_is_committed_is_the_newest_stable_state(tmp_path: Path) -> None:
    """Later writes wait in memory, also those that change what is written now."""
    directory = StateDirectory.open(tmp_path / "state")
    records = directory.records
    digests = {}
    for index in (10, 20, 30):
        for number in range(60):
            records.set(b"k%d" % (number + index), b"at %d" % index)
        records.remove(b"k%d" % (index + 1))
        digests[index] = records.digest()
        records.seal(index)
    records.set(b"k40", b"later")
    assert records.commit(20)
    assert records.get(b"k40") == b"later"
    assert records.get(b"k12") == b"at 10"
    assert records.get(b"k85") == b"at 30"
    assert records.get(b"k31") is None
    view = records.view()
    assert (view.get(b"k40"), view.get(b"k79"), view.get(b"k85")) == (b"at 20", b"at 20", None)
    again = StateDirectory.open(killed(directory))
    assert again.records.digest() == digests[20]
    assert again.records.held_bytes == 0
    again.close()


def test_what_is_held_shrinks_with_every_commit(tmp_path: Path) -> None:
    directory = StateDirectory.open(tmp_path / "state")
    records = directory.records
    for index in range(10, 200, 10):
        for number in range(50):
            records.set(b"k%d" % (number + index), bytes(100))
        records.seal(index)
        records.commit(index - 10)
        assert records.held_bytes <= 110 * 300
    records.commit()
    assert records.held_bytes == 0
    directory.close()
