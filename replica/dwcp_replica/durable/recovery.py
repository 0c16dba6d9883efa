"""Reading a log back and judging what is wrong with it; wal.py has the theory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from dwcp_replica.durable.files import replace_file, sync_directory
from dwcp_replica.durable.segment import (
    Finding,
    HeaderError,
    Scan,
    SegmentHeader,
    has_record_after,
    scan_segment,
)

STATE: Final = "state.json"
SYNC_FAILED: Final = "sync-failed"


class DamageKind(StrEnum):
    """What is wrong with a log; a metric label."""

    UNFINISHED = "unfinished"
    TAIL = "tail"
    MIDDLE = "middle"


class Damage(Struct, frozen=True):
    """What is wrong with a log. Unless `harmless`, the replica must sign nothing.

    `dropped` is the file, in the log's directory, that keeps what was cut off.
    """

    kind: DamageKind
    harmless: bool
    detail: str
    dropped: str | None = None

    def __str__(self) -> str:
        return f"log damage ({self.kind}): {self.detail}"


class LogState(Struct, frozen=True):
    """What the log's directory remembers besides its segments (state.json).

    boot_id: of the machine when the log was last opened. segment: the highest that was begun,
    0 before the first. damage: a tail that was lost, at any time. first: the segment with which
    the log begins; those before it are needless, and removed.
    """

    boot_id: str
    segment: int = 0
    damage: Damage | None = None
    first: int = 1


@dataclass(slots=True)
class Recovered:
    """What was read: good payloads in order, and where the next record goes.

    `header` and `end` are those of the last segment; None for an empty log. A log that is not
    `is_writable` is damaged in the middle.
    """

    state: LogState
    payloads: list[bytes] = field(default_factory=list)
    header: SegmentHeader | None = None
    end: int = 0
    next_ordinal: int = 1
    total_bytes: int = 0
    damage: Damage | None = None
    is_writable: bool = True


def segment_path(directory: Path, number: int) -> Path:
    """The file of a segment."""
    return directory / f"{number:016d}.seg"


def store_state(directory: Path, state: LogState) -> None:
    """Store the log's state atomically. Raises OSError.

    Nothing is written when it stands there already: a full disk must not keep a replica from
    starting again.
    """
    path, data = directory / STATE, msgspec.json.encode(state)
    if not path.exists() or path.read_bytes() != data:
        replace_file(path, data)


def recover(directory: Path, binding: bytes, boot_id: str) -> Recovered:
    """Read all segments; cut off a bad tail, after keeping a copy. Raises OSError."""
    numbers = _segment_numbers(directory)
    state = _read_state(directory, numbers)
    if isinstance(state, Damage):
        return _middle(Recovered(LogState(boot_id)), state.detail)
    found = Recovered(msgspec.structs.replace(state, boot_id=boot_id), damage=state.damage)
    is_same_boot = state.boot_id == boot_id
    highest = max(state.segment, *numbers) if numbers else state.segment
    for needless in [number for number in numbers if number < state.first]:
        segment_path(directory, needless).unlink()  # a crash came between
    for number in range(state.first, highest + 1):
        if number not in numbers:
            return _middle(found, f"segment {number} of {highest} is missing")
        if not _read_segment(found, directory, number, highest, binding, is_same_boot):
            return found
    found.state = msgspec.structs.replace(found.state, segment=highest)
    return found


def _segment_numbers(directory: Path) -> list[int]:
    names = (path.name for path in directory.iterdir())
    return sorted(
        int(name[:16])
        for name in names
        if len(name) == 20 and name.endswith(".seg") and name[:16].isdecimal()
    )


def _read_state(directory: Path, numbers: list[int]) -> LogState | Damage:
    try:
        data = (directory / STATE).read_bytes()
    except FileNotFoundError:
        if not numbers:
            return LogState("")
        return Damage(DamageKind.MIDDLE, harmless=False, detail=f"{STATE} is missing")
    try:
        return msgspec.json.decode(data, type=LogState)
    except msgspec.DecodeError as error:
        detail = f"{STATE} is damaged: {error}"
        return Damage(DamageKind.MIDDLE, harmless=False, detail=detail)


def _middle(found: Recovered, detail: str) -> Recovered:
    found.is_writable = False
    found.damage = Damage(
        DamageKind.MIDDLE,
        harmless=False,
        detail=f"{detail}; the log is left as it is: replace this member under a new name",
    )
    found.header = None
    return found


def _read_segment(
    found: Recovered,
    directory: Path,
    number: int,
    highest: int,
    binding: bytes,
    is_same_boot: bool,
) -> bool:
    """Add a segment's records; False when the log must not be read further."""
    path = segment_path(directory, number)
    data = path.read_bytes()
    try:
        header = SegmentHeader.decode(data)
    except HeaderError as fault:
        _middle(found, f"segment {number}: {fault}")
        return False
    if header.binding != binding:
        _middle(found, f"segment {number} belongs to another member or cluster")
        return False
    if number == found.state.first:
        found.next_ordinal = header.first
    if header.segment != number or header.first != found.next_ordinal:
        _middle(
            found,
            f"segment {number} says that it is segment {header.segment} from record "
            f"{header.first} on; record {found.next_ordinal} is expected",
        )
        return False
    scan = scan_segment(header, data)
    found.payloads += scan.payloads
    found.total_bytes += scan.end
    found.next_ordinal += len(scan.payloads)
    found.header, found.end = header, scan.end
    if scan.finding is Finding.END:
        return True
    if number < highest or has_record_after(header, data, scan.end):
        _middle(found, f"segment {number} is damaged at byte {scan.end}, before good records")
        return False
    _cut_tail(found, path, data, scan, is_same_boot)
    return True


def _cut_tail(found: Recovered, path: Path, data: bytes, scan: Scan, is_same_boot: bool) -> None:
    """Cut off what follows the last good record: kept aside and remembered unless harmless."""
    bytes_cut = len(data) - scan.end
    where = f"{bytes_cut} bytes at byte {scan.end} of {path.name}"
    if scan.finding is Finding.SHORT and is_same_boot:
        damage = Damage(
            DamageKind.UNFINISHED,
            harmless=True,
            detail=f"{where} are a record that was being written when the process ended",
        )
    else:
        aside = path.with_name(f"{path.stem}-{scan.end}.dropped")
        replace_file(aside, data[scan.end :])
        damage = Damage(
            DamageKind.TAIL,
            harmless=False,
            detail=f"{where} are not a good record and may have held synced votes",
            dropped=aside.name,
        )
        found.state = msgspec.structs.replace(found.state, damage=damage)
        store_state(path.parent, found.state)
    _truncate(path, scan.end)
    if found.damage is None or not damage.harmless:
        found.damage = damage


def _truncate(path: Path, length: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(fd, length)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)
