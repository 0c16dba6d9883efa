"""What is kept of a log that was cut: signed headers and election certificates, as evidence.

epochs.md, Checkpoints: they stay below checkpoints at least to the end of the epoch. A header is
some 170 bytes, whatever its entry held. One file for each time the log began anew, written once;
the same header may stand in several.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.peer import AnyElection, Header
from dwcp_replica.core.effects import BranchRecord, ElectionRecord, EntryRecord, Record
from dwcp_replica.durable.faults import ForeignDirectory
from dwcp_replica.durable.files import replace_file, sync_directory
from dwcp_replica.durable.segment import (
    HEADER_BYTES,
    SALT_BYTES,
    HeaderError,
    SegmentHeader,
    each_record,
    encode_record,
)

_SUFFIX: Final = ".kept"


class Archived(Struct, frozen=True, array_like=True):
    """What was kept of the segments that were removed at once."""

    headers: tuple[Header, ...]
    elections: tuple[AnyElection, ...]


_decoder = msgspec.msgpack.Decoder(Record)
_archived = msgspec.msgpack.Decoder(Archived)


def archive_segments(paths: Sequence[Path], archive: Path, binding: bytes) -> None:
    """Keep what counts as evidence in these segments, durably. Raises OSError, ForeignDirectory."""
    headers: dict[Header, None] = {}
    elections: dict[bytes, AnyElection] = {}
    last = 0
    for path in paths:
        for record in _records(path):
            match record:
                case EntryRecord(entry):
                    headers[entry.header] = None
                case BranchRecord(entries):
                    headers.update(dict.fromkeys(entry.header for entry in entries))
                case ElectionRecord(election):
                    elections[election.digest()] = election
        last = int(path.stem)
    if not last:
        return
    kept = Archived(tuple(headers), tuple(elections.values()))
    header = SegmentHeader(last, 1, binding, secrets.token_bytes(SALT_BYTES))
    record_bytes = encode_record(header, 1, msgspec.msgpack.encode(kept))
    if not archive.is_dir():
        archive.mkdir()
        sync_directory(archive.parent)
    replace_file(archive / f"{last:016d}{_SUFFIX}", header.encode() + record_bytes)


def read_archive(archive: Path) -> Iterator[Archived]:
    """What was kept, oldest first. Raises ForeignDirectory for a file that is damaged."""
    for path in sorted(archive.glob(f"*{_SUFFIX}")):
        for payload in _payloads(path):
            yield _archived.decode(payload)


def _records(path: Path) -> Iterator[Record]:
    for payload in _payloads(path):
        yield _decoder.decode(payload)


def _payloads(path: Path) -> Iterator[bytes]:
    """The records of a file that was complete. A damaged one is left as it is, with an error.

    One at a time, from a map: a segment in memory at once would leave a hole of its size there.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            yield from each_record(SegmentHeader.decode(data[:HEADER_BYTES]), data)
        except HeaderError as error:
            raise ForeignDirectory(f"{path} is damaged ({error}): replace this member") from error
