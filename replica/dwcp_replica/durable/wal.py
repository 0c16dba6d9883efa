"""The write-ahead log: what this replica promised, found again after a crash.

Theory of operation. A vote is a promise. A replica that forgets one after a crash may sign the
opposite, which is indistinguishable from a lie, so `sync` returns before anything that depends
on a record leaves the process. What may be forgotten is exactly what was never synced. Opening
the log must therefore tell, from bytes alone, an unfinished write from lost promises:

- A process that is killed leaves its written bytes in the kernel's page cache, in order. While
  the machine has not rebooted (the boot id recorded here is the running one), the file holds a
  prefix of what was written, so a record *cut short at the very end* was being written when
  the process died. It was never synced; nobody saw its promise. It is cut off, and reported
  as harmless (`unfinished`).
- After a reboot the same picture may be a synced record whose end the disk lost. And a record
  with wrong bytes is never an unfinished write. Such a `tail` may have held promises. It is
  copied aside, cut off, and *remembered* in this directory: at this and every later opening
  the damage is reported again, because a mute replica must not find its voice by restarting
  (epochs.md, "Damaged tail": mute until an epoch record above every epoch it may have voted
  in; that is when the volume's memory of it may end, not before).
- Wrong bytes with good records after them, a missing segment, segments out of order or of
  another member are `middle` damage: promises are lost, and cutting would lose more. Nothing
  is written then, ever: the records before the damage are returned for reading, and `append`
  raises LogDamaged. The caller refuses to start, or runs mute without a log.

What can not be seen: a log that lost whole records at its end, cut exactly between two, by a
disk that had confirmed them. No log can see that; f covers it.

Errors. A failed sync ends the log: the kernel may mark the lost pages clean, so that the next
sync succeeds without the data (PostgreSQL's "fsyncgate", 2018). The process must stop. Its
successor would read those same pages from the cache and believe in them; so a failed sync
leaves a note (`sync-failed`), and the next opening writes the last segment anew and syncs that
before anything relies on it. Records that were complete but unsynced when a process was killed
are kept, and synced at the opening for the same reason. A full disk is no failure: the records
at hand are cut off again and refused with DiskFull, and the log stands as before.

Beginning anew. A log would grow for ever. Now and then a segment begins with records that stand
for all before them (core/collection.py); once the state that they lead to is durable as well, the
segments before it are removed. What was in them of the chain's headers and of election
certificates is evidence, and goes to the archive (archive.py).

Files: `NNNNNNNNNNNNNNNN.seg` (segment.py), `state.json` (boot id, the highest segment that was
begun, tail damage), `*.dropped` (bytes set aside). A segment gets its name only once its header
is durable, and a new one is begun when the last has reached 64 MiB.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from dwcp.wire.signing import digest
from dwcp_replica.core.effects import Record
from dwcp_replica.durable.archive import archive_segments
from dwcp_replica.durable.faults import DiskFailure, DiskFull, ForeignDirectory, LogDamaged
from dwcp_replica.durable.files import replace_file, sync_directory, write_all
from dwcp_replica.durable.recovery import (
    SYNC_FAILED,
    Damage,
    DamageKind,
    Recovered,
    recover,
    segment_path,
    store_state,
)
from dwcp_replica.durable.segment import (
    HEADER_BYTES,
    SALT_BYTES,
    SegmentHeader,
    encode_record,
)

__all__ = ["SEGMENT_BYTES", "Damage", "DamageKind", "Wal", "boot_id", "wal_binding"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def boot_id() -> str:
    """What the kernel calls this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def wal_binding(cluster_id: bytes, identity: bytes) -> bytes:
    """Ties segments to a member of a cluster: 32 bytes from cluster id and public key."""
    return digest("wal-binding", cluster_id, identity)


@dataclass(slots=True)
class _Tail:
    """The segment being written: its file, and how far it is good."""

    header: SegmentHeader
    fd: int
    end: int


class Wal:
    """The log of one member. One process at a time (the data directory's lock sees to it)."""

    def __init__(
        self, directory: Path, binding: bytes, recovered: Recovered, segment_bytes: int
    ) -> None:
        self._directory = directory
        self._binding = binding
        self._segment_bytes = segment_bytes
        self._state = recovered.state
        self._next = recovered.next_ordinal
        self._tail: _Tail | None = None
        self._broken: Exception | None = None
        self._unsynced = False
        self._other_bytes = recovered.total_bytes - recovered.end
        if recovered.header is not None:
            fd = os.open(segment_path(directory, recovered.header.segment), os.O_WRONLY)
            self._tail = _Tail(recovered.header, fd, recovered.end)

    @classmethod
    def open(
        cls, directory: Path, *, binding: bytes, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[Wal, list[Record], Damage | None]:
        """Read the log in `directory` (made when missing) and get it ready for appending.

        Returns the log, its records in order, and the damage found now or remembered. Raises
        DiskFailure when the disk can not be read, written or synced, DiskFull when it has no room
        for what an opening writes, ForeignDirectory for records of another program.
        """
        try:
            if not directory.is_dir():
                directory.mkdir()
                sync_directory(directory.parent)
            recovered = recover(directory, binding, boot_id())
            records = _decode(recovered)
            wal = cls(directory, binding, recovered, segment_bytes)
            if recovered.is_writable:
                wal._make_ready()
            else:
                wal._broken = LogDamaged(str(recovered.damage))
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFull(f"no room to open the log in {directory}: free some") from error
            raise DiskFailure(f"can not open the log in {directory}: {error}") from error
        return wal, records, recovered.damage

    def append(self, records: Iterable[Record]) -> None:
        """Write records at the end; durable only after `sync`.

        Raises DiskFull when there is no room: then none of them is in the log. Raises
        DiskFailure, and LogDamaged for a log that may only be read.
        """
        self._check_usable()
        payloads = [_encode_checked(record) for record in records]
        if not payloads:
            return
        tail = self._tail
        assert tail is not None, "an open log has a segment to write"
        if tail.end >= self._segment_bytes:
            self.sync()
            tail = self._begin_segment(tail.header.segment + 1)
        data = b"".join(
            encode_record(tail.header, self._next + i, payload)
            for i, payload in enumerate(payloads)
        )
        self._write(tail, data)
        self._next += len(payloads)

    def sync(self) -> None:
        """Make everything appended durable, by one fdatasync. Raises DiskFailure."""
        self._check_usable()
        if not self._unsynced:
            return
        assert self._tail is not None, "there was something to append to"
        try:
            os.fdatasync(self._tail.fd)
        except OSError as error:
            self._note_failed_sync()
            raise self._fail(f"fdatasync failed: {error}") from error
        self._unsynced = False

    def forgive(self) -> None:
        """Forget the damage that was found: its replica may speak again. Raises DiskFailure."""
        try:
            store_state(self._directory, msgspec.structs.replace(self._state, damage=None))
        except OSError as error:
            raise self._fail(f"can not store the log's state: {error}") from error
        self._state = msgspec.structs.replace(self._state, damage=None)

    def close(self) -> None:
        """Sync and let go of the files. Raises DiskFailure."""
        try:
            if self._broken is None:
                self.sync()
        finally:
            if self._tail is not None:
                os.close(self._tail.fd)
                self._tail = None
            self._broken = self._broken or DiskFailure("the log is closed")

    @property
    def size_bytes(self) -> int:
        """Bytes in the segment being written."""
        return 0 if self._tail is None else self._tail.end

    @property
    def total_bytes(self) -> int:
        """Bytes in all segments."""
        return self._other_bytes + self.size_bytes

    def begin_anew(self, records: Iterable[Record]) -> int:
        """Write records that stand for all before them into a segment of their own, durably.

        Returns its number: what is before it may be removed once the state that these records
        lead to is durable, too. Raises DiskFull: then the log is as it was; DiskFailure.
        """
        self._check_usable()
        self.sync()
        assert self._tail is not None, "an open log has a segment to write"
        tail = self._begin_segment(self._tail.header.segment + 1)
        self.append(records)
        self.sync()
        return tail.header.segment

    def remove_before(self, segment: int, archive: Path) -> None:
        """Remove the segments before one with which the log begins anew.

        The headers and election certificates in them are evidence: they go to the archive first.
        Raises DiskFull: then nothing was removed; DiskFailure.
        """
        self._check_usable()
        numbers = range(self._state.first, segment)
        paths = [segment_path(self._directory, number) for number in numbers]
        state = msgspec.structs.replace(self._state, first=segment)
        try:
            archive_segments(paths, archive, self._binding)
            store_state(self._directory, state)
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFull(f"no room for the archive in {archive}: free some") from error
            raise self._fail(f"can not archive a segment: {error}") from error
        self._state = state
        for path in paths:
            self._other_bytes -= path.stat().st_size
            path.unlink()

    @property
    def segment(self) -> int:
        """The number of the segment being written; segments start at 1."""
        return self._state.segment

    def _make_ready(self) -> None:
        """Leave nothing that was read undurable, and have a segment to write."""
        store_state(self._directory, self._state)
        if self._tail is None:
            self._begin_segment(self._state.segment + 1)
            return
        if (self._directory / SYNC_FAILED).exists():
            self._rewrite_tail()
        self._unsynced = True
        self.sync()
        os.lseek(self._tail.fd, self._tail.end, os.SEEK_SET)
        sync_directory(self._directory)

    def _rewrite_tail(self) -> None:
        """Write the last segment anew: after a failed sync, its cached pages are not on disk."""
        assert self._tail is not None, "called for an existing segment"
        path = segment_path(self._directory, self._tail.header.segment)
        replace_file(path, path.read_bytes())
        os.close(self._tail.fd)
        self._tail.fd = os.open(path, os.O_WRONLY)
        (self._directory / SYNC_FAILED).unlink()

    def _begin_segment(self, number: int) -> _Tail:
        header = SegmentHeader(number, self._next, self._binding, secrets.token_bytes(SALT_BYTES))
        path = segment_path(self._directory, number)
        state = msgspec.structs.replace(self._state, segment=number)
        try:
            replace_file(path, header.encode())
            store_state(self._directory, state)
            fd = os.open(path, os.O_WRONLY)
        except OSError as error:
            if error.errno in _FULL:
                path.unlink(missing_ok=True)
                raise DiskFull(f"no room for a new segment in {self._directory}") from error
            raise self._fail(f"can not begin segment {number}: {error}") from error
        except DiskFailure as failure:
            self._broken = failure
            raise
        os.lseek(fd, HEADER_BYTES, os.SEEK_SET)
        if self._tail is not None:
            self._other_bytes += self._tail.end
            os.close(self._tail.fd)
        self._state = state
        self._tail = _Tail(header, fd, HEADER_BYTES)
        return self._tail

    def _write(self, tail: _Tail, data: bytes) -> None:
        try:
            write_all(tail.fd, data)
        except OSError as error:
            if error.errno not in _FULL:
                raise self._fail(f"write failed: {error}") from error
            self._cut_back(tail)
            raise DiskFull(
                f"no room for {len(data)} bytes in {self._directory}: "
                "free some or enlarge the volume; nothing was lost"
            ) from error
        self._unsynced = True
        tail.end += len(data)

    def _cut_back(self, tail: _Tail) -> None:
        """Take off what a full disk let through of a write."""
        try:
            os.ftruncate(tail.fd, tail.end)
            os.lseek(tail.fd, tail.end, os.SEEK_SET)
        except OSError as error:
            raise self._fail(f"can not cut off an unfinished write: {error}") from error

    def _note_failed_sync(self) -> None:
        """Tell the next process, as well as a failing disk allows."""
        try:
            (self._directory / SYNC_FAILED).touch()
        except OSError:
            return  # the disk refuses even a name: then the log does not reopen either

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _fail(self, what: str) -> DiskFailure:
        self._broken = DiskFailure(
            f"{what}, in {self._directory}: the replica must stop; replace the disk if it happens "
            "again"
        )
        return self._broken


def _encode_checked(record: Record) -> bytes:
    """The record's bytes, proved to be readable as the same record before they are written."""
    payload = _encoder.encode(record)
    assert _decoder.decode(payload) == record, f"{type(record).__name__} does not read back"
    return payload


def _decode(recovered: Recovered) -> list[Record]:
    """The records; one that its CRC proves but that does not decode is of another program."""
    try:
        return [_decoder.decode(payload) for payload in recovered.payloads]
    except msgspec.DecodeError as error:
        raise ForeignDirectory(
            f"a good record of the log does not decode ({error}): "
            "was it written by a newer version of this program? Start that one"
        ) from error
