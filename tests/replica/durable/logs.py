"""Records and logs for the tests of the durable layer."""

from __future__ import annotations

from pathlib import Path

from dwcp.wire.peer import Entry, Header
from dwcp_replica.core.effects import EnteredRecord, EntryRecord, Record
from dwcp_replica.durable import Damage, Wal
from dwcp_replica.durable.recovery import segment_path

BINDING = b"m" * 32
ENTERED = EnteredRecord(1, bytes(32))


def entry_record(number: int, body: bytes = b"body") -> EntryRecord:
    header = Header(0, 1, number, bytes(32), bytes(32), bytes(64))
    return EntryRecord(Entry(header, body))


def records(count: int, body: bytes = b"body") -> list[Record]:
    return [ENTERED, *(entry_record(i, body) for i in range(1, count))]


def open_wal(
    directory: Path, segment_bytes: int = 2**26
) -> tuple[Wal, list[Record], Damage | None]:
    return Wal.open(directory, binding=BINDING, segment_bytes=segment_bytes)


def read(directory: Path) -> tuple[list[Record], Damage | None]:
    wal, found, damage = open_wal(directory)
    wal.close()
    return found, damage


def write(directory: Path, items: list[Record], segment_bytes: int = 2**26) -> None:
    """Append one record at a time, so that small segments rotate."""
    wal, _, damage = open_wal(directory, segment_bytes)
    assert damage is None
    for item in items:
        wal.append([item])
    wal.sync()
    wal.close()


def segment(directory: Path, number: int = 1) -> Path:
    return segment_path(directory, number)
