"""One file of the write-ahead log: its header, its records, and how damage in it is told.

A segment is a header and records. The header binds the file to a cluster and a member, numbers
it, and says which record comes first. Each record carries a marker and is checked by CRCs that
start from the segment's random salt: bytes that a client wrote *inside* a record can therefore
not pass for a record when the file is searched after damage. Records are numbered through the
whole log (`ordinal`), which the CRC of the payload covers, so that a record moved, repeated or
left out shows. All numbers are big-endian.

header: magic 8 | segment 8 | first ordinal 8 | binding 32 | salt 16 | CRC of all before 4
record: marker 4 | payload length 4 | ordinal 8 | payload CRC 4 | CRC of all before 4 | payload
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from mmap import mmap
from typing import Final

MAGIC: Final = b"DWCPLOG\x01"
"""The last byte is the format's version."""
BINDING_BYTES: Final = 32
SALT_BYTES: Final = 16
PAYLOAD_BYTES_MAX: Final = 2**31

_HEADER: Final = struct.Struct(f">8sQQ{BINDING_BYTES}s{SALT_BYTES}s")
_FRAME: Final = struct.Struct(">4sIQI")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
FRAME_BYTES: Final = _FRAME.size + _CRC.size


class HeaderError(Exception):
    """The header is not one of this log's; the message says how."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The start of a segment: which one it is, whose, and the ordinal of its first record."""

    segment: int
    first: int
    binding: bytes
    salt: bytes

    def encode(self) -> bytes:
        """The header's bytes."""
        assert len(self.binding) == BINDING_BYTES, "a binding is a SHA-256 digest"
        assert len(self.salt) == SALT_BYTES, "a salt has a fixed size"
        data = _HEADER.pack(MAGIC, self.segment, self.first, self.binding, self.salt)
        return data + _CRC.pack(zlib.crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> SegmentHeader:
        """Read the header at the start of a segment. Raises HeaderError."""
        if len(data) < HEADER_BYTES:
            raise HeaderError("its header is short")
        if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
            raise HeaderError("its header's CRC does not match")
        magic, segment, first, binding, salt = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise HeaderError(f"its format is {magic!r}, this program reads {MAGIC!r}")
        return cls(segment, first, binding, salt)

    @property
    def marker(self) -> bytes:
        """What every record of this segment starts with: 4 bytes."""
        return self.salt[:4]

    @property
    def seed(self) -> int:
        """What CRCs of this segment start from."""
        return zlib.crc32(self.salt)


class Finding(Enum):
    """Why reading a segment stopped."""

    END = "end"
    SHORT = "short"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Scan:
    """The good records of a segment, where they end, and what stopped the reading there."""

    payloads: list[bytes]
    end: int
    finding: Finding


def encode_record(header: SegmentHeader, ordinal: int, payload: bytes) -> bytes:
    """A record's bytes."""
    assert len(payload) <= PAYLOAD_BYTES_MAX, f"a record of {len(payload)} bytes"
    crc = _payload_crc(header, ordinal, payload)
    frame = _FRAME.pack(header.marker, len(payload), ordinal, crc)
    return b"".join((frame, _CRC.pack(zlib.crc32(frame, header.seed)), payload))


def scan_segment(header: SegmentHeader, data: bytes) -> Scan:
    """Read a segment's records up to the first that is not good."""
    payloads: list[bytes] = []
    offset = HEADER_BYTES
    while offset < len(data):
        ordinal = header.first + len(payloads)
        payload = _record_at(header, data, offset)
        if payload is None or payload[0] != ordinal:
            is_short = _is_short(header, data, offset, ordinal)
            return Scan(payloads, offset, Finding.SHORT if is_short else Finding.DAMAGED)
        payloads.append(payload[1])
        offset += FRAME_BYTES + len(payload[1])
    return Scan(payloads, offset, Finding.END)


def each_record(header: SegmentHeader, data: bytes | mmap) -> Iterator[bytes]:
    """The records of a segment that is complete, one at a time. Raises HeaderError."""
    offset, ordinal = HEADER_BYTES, header.first
    while offset < len(data):
        found = _record_at(header, data, offset)
        if found is None or found[0] != ordinal:
            raise HeaderError(f"its record at byte {offset} is damaged")
        yield found[1]
        offset += FRAME_BYTES + len(found[1])
        ordinal += 1


def has_record_after(header: SegmentHeader, data: bytes, offset: int) -> bool:
    """True when a good record starts anywhere above `offset`."""
    while (offset := data.find(header.marker, offset + 1)) != -1:
        if _record_at(header, data, offset) is not None:
            return True
    return False


def _payload_crc(header: SegmentHeader, ordinal: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(ordinal.to_bytes(8, "big"), header.seed))


def _frame_at(
    header: SegmentHeader, data: bytes | mmap, offset: int
) -> tuple[int, int, int] | None:
    """(length, ordinal, payload CRC) of a whole, good frame, or None."""
    if offset + FRAME_BYTES > len(data):
        return None
    frame = data[offset : offset + _FRAME.size]
    (crc,) = _CRC.unpack_from(data, offset + _FRAME.size)
    marker, length, ordinal, payload_crc = _FRAME.unpack(frame)
    if marker != header.marker or crc != zlib.crc32(frame, header.seed):
        return None
    return length, ordinal, payload_crc


def _record_at(header: SegmentHeader, data: bytes | mmap, offset: int) -> tuple[int, bytes] | None:
    """(ordinal, payload) of a whole, good record, or None."""
    if (frame := _frame_at(header, data, offset)) is None:
        return None
    length, ordinal, crc = frame
    start = offset + FRAME_BYTES
    payload = data[start : start + length]
    if len(payload) < length or crc != _payload_crc(header, ordinal, payload):
        return None
    return ordinal, payload


def _is_short(header: SegmentHeader, data: bytes, offset: int, ordinal: int) -> bool:
    """True when what stands at `offset` is the beginning of record `ordinal`, cut off."""
    rest = data[offset:]
    if len(rest) >= FRAME_BYTES:
        frame = _frame_at(header, data, offset)
        return frame is not None and frame[1] == ordinal and len(rest) < FRAME_BYTES + frame[0]
    if not header.marker.startswith(rest[:4]):
        return False
    return len(rest) <= 8 or ordinal.to_bytes(8, "big").startswith(rest[8:16])
