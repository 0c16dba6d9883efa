"""The replicated state on disk: LMDB, not synced, and worth nothing after the machine has stopped.

Theory of operation. What must not be forgotten is the log (wal.py); the state is only what the
log adds up to, kept so that a restart need not add it up again. So commits are not synced, which
makes them cheap, and what an unclean stop of the *machine* may have mixed up is thrown away: the
state is then rebuilt from the newest snapshot, which is synced, and the log above it. A killed
*process* loses nothing that it committed, since the kernel holds it; the boot id tells the two
apart, as it does for the log. LMDB is never used with a writable map: a stray pointer could
write into it, and after a full disk a write to the map ends the process.

Writes are held in memory until the checkpoint after them is stable: many writes of one record
cost one, an ordered bulk write is several times quicker than single ones, what is on disk is
always a state that a quorum has certified (so that it can be shown to others even after a
restart), and a commit that finds the disk full has changed nothing and is tried again. What was
executed since is in the log, and at most a window of it.

Two databases: `records`, and `nodes`, the trie of the digest (store/digest.py), so that neither
is computed anew at a start. A view for a replica that fetches the state is a read transaction;
one that is held makes the file grow, since its pages can not be used again, so that views are
closed soon (core/transfer.py bounds them). A snapshot is a compacted copy of the file, made
while work goes on, synced, with a hash of its bytes beside it.

Files: `live/` (LMDB), `snapshot-N/` (the Nth copy, with `about.json`), `state.json` (boot id, and
whether the live state was synced when it was closed).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import lmdb
import msgspec
from msgspec import Struct

from dwcp_replica.durable.faults import DiskFailure, DiskFull
from dwcp_replica.durable.files import replace_file, sync_directory
from dwcp_replica.durable.lmdb_records import MAP_BYTES, LmdbRecords
from dwcp_replica.durable.wal import boot_id

_LIVE: Final = "live"
_STATE: Final = "state.json"
_ABOUT: Final = "about.json"
_DATA: Final = "data.mdb"


class LiveState(Struct, frozen=True):
    """state.json: the boot in which the live state was written, and whether it is synced."""

    boot_id: str
    is_synced: bool = False


class SnapshotAbout(Struct, frozen=True):
    """about.json: the index at or above which a snapshot stands, the SHA-256 of its file in hex."""

    number: int
    index: int
    bytes: int
    sha256: str


class StateDirectory:
    """The directory of one member's state, opened for work: `records` is the live one."""

    def __init__(self, path: Path, records: LmdbRecords) -> None:
        self.path = path
        self.records = records
        numbers = _snapshots(path)
        about = _about(path, numbers[-1]) if numbers else None
        self.snapshot_index = 0 if about is None else about.index
        self.snapshot_bytes = 0 if about is None else about.bytes

    @classmethod
    def open(cls, path: Path, map_bytes: int = MAP_BYTES) -> StateDirectory:
        """Open the live state, rebuilt from the newest snapshot where it can not be trusted.

        Without a good snapshot it is empty. Raises DiskFailure and DiskFull.
        """
        try:
            path.mkdir(exist_ok=True)
            sync_directory(path.parent)
            _clear_unfinished(path)
            state = _read_state(path)
            if state is None or not (state.is_synced or state.boot_id == boot_id()):
                _rebuild(path)
            _store_state(path, LiveState(boot_id()))
            return cls(path, _open_live(path, map_bytes))
        except OSError as error:
            raise DiskFailure(f"can not open the state in {path}: {error}") from error

    def snapshot(self, index: int) -> None:
        """Copy the committed state, which stands at `index` or above, durably; older copies go.

        May run in another thread. Raises DiskFull, DiskFailure.
        """
        number = max(_snapshots(self.path), default=0) + 1
        making = self.path / "snapshot.tmp"
        try:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            self.records.copy_to(making)
            data = making / _DATA
            size_bytes, sha256 = _synced_sha256(data)
            about = SnapshotAbout(number, index, size_bytes, sha256)
            replace_file(making / _ABOUT, msgspec.json.encode(about))
            making.rename(self.path / f"snapshot-{number}")
            sync_directory(self.path)
        except OSError as error:
            raise DiskFull(f"can not make a snapshot in {self.path}: {error}") from error
        self.snapshot_index, self.snapshot_bytes = index, size_bytes
        for other in _snapshots(self.path):
            if other != number:
                shutil.rmtree(self.path / f"snapshot-{other}")

    def close(self) -> None:
        """Close the live state so that any next start can use it. Raises OSError."""
        self.records.close(sync=True)
        _store_state(self.path, LiveState(boot_id(), is_synced=True))


def _store_state(path: Path, state: LiveState) -> None:
    """Store state.json. Raises OSError.

    Nothing is written when it stands there already: a full disk must not keep a replica that was
    killed from starting again.
    """
    data = msgspec.json.encode(state)
    file = path / _STATE
    if not file.exists() or file.read_bytes() != data:
        replace_file(file, data)


def _open_live(path: Path, map_bytes: int) -> LmdbRecords:
    """The live state; one that LMDB can not read is thrown away, as after an unclean stop."""
    try:
        return LmdbRecords(path / _LIVE, map_bytes)
    except lmdb.Error:
        _rebuild(path)
    try:
        return LmdbRecords(path / _LIVE, map_bytes)
    except lmdb.Error as error:
        raise DiskFailure(f"can not open the state in {path}: {error}") from error


def _rebuild(path: Path) -> None:
    """Put the newest good snapshot in place of the live state; nothing where there is none."""
    shutil.rmtree(path / _LIVE, ignore_errors=True)
    making = path / "live.tmp"
    making.mkdir()
    if (about := _newest_snapshot(path)) is not None:
        shutil.copyfile(path / f"snapshot-{about.number}" / _DATA, making / _DATA)
    making.rename(path / _LIVE)
    sync_directory(path)


def _clear_unfinished(path: Path) -> None:
    """Remove what a crash left half made."""
    for name in ("live.tmp", "snapshot.tmp"):
        shutil.rmtree(path / name, ignore_errors=True)


def _read_state(path: Path) -> LiveState | None:
    """state.json, where there is a live state that it speaks of."""
    if not (path / _LIVE).is_dir():
        return None
    try:
        return msgspec.json.decode((path / _STATE).read_bytes(), type=LiveState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _snapshots(path: Path) -> list[int]:
    """The numbers of the snapshots there are, lowest first."""
    numbers = (entry.name.removeprefix("snapshot-") for entry in path.glob("snapshot-*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def _newest_snapshot(path: Path) -> SnapshotAbout | None:
    """The newest snapshot whose bytes are those that were written."""
    for number in reversed(_snapshots(path)):
        about = _about(path, number)
        if about is None:
            continue
        with (path / f"snapshot-{number}" / _DATA).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == about.sha256:
                return about
    return None


def _about(path: Path, number: int) -> SnapshotAbout | None:
    """What a snapshot says of itself; None when it is damaged."""
    directory = path / f"snapshot-{number}"
    try:
        about = msgspec.json.decode((directory / _ABOUT).read_bytes(), type=SnapshotAbout)
        is_whole = (directory / _DATA).stat().st_size == about.bytes
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return about if is_whole and about.number == number else None


def _synced_sha256(path: Path) -> tuple[int, str]:
    """Make a file durable; its size and hash. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
