"""A backup: a cluster's genesis, its chain of epoch records, a certified state and entries above.

A backup is a sequence of parts, each with its length before it (4 bytes, big endian):

    BackupHead, BackupRecords ..., BackupEntries ..., BackupEnd

It proves itself. The genesis is signed by all members, each record by a quorum of the members
before, the state by the digest in a stable checkpoint's certificate, the entries above it by the
hash chain up to a certificate or to the start of an epoch. So it does not matter who made it, who
kept it, or where; whoever reads it must know one hash, that of the genesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.chain import Certificate, Entry
from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.records import SignedGenesis
from dwcp.wire.signing import ZERO_HASH, Count, Scope, Signature

FORMAT: Final = 1
PART_BYTES_MAX: Final = 32 * 1024 * 1024
PERMIT_MS_MAX: Final = 3_600_000
"""A permit is made for at most an hour."""
_LENGTH_BYTES: Final = 4


class BackupHead(Struct, frozen=True, array_like=True, tag="backup-head"):
    """Where the backup comes from.

    Without a `checkpoint` the state before the entries is the one that the cluster began with:
    empty, or what its genesis' origin names.

    `body` is that of the checkpoint's entry.
    """

    format: Count
    genesis: SignedGenesis
    records: tuple[CertifiedRecord, ...]
    checkpoint: Certificate | None
    body: bytes


class BackupRecords(Struct, frozen=True, array_like=True, tag="backup-records"):
    """Records of the state at the checkpoint, in any order: keys with their values."""

    pairs: tuple[tuple[bytes, bytes], ...]


class BackupEntries(Struct, frozen=True, array_like=True, tag="backup-entries"):
    """Log entries above the checkpoint, in order."""

    entries: tuple[Entry, ...]


class BackupEnd(Struct, frozen=True, array_like=True, tag="backup-end"):
    """What shows that the last entry is final.

    Without a certificate the last entry is the checkpoint's, or the one at which an epoch starts.
    """

    certificate: Certificate | None


BackupPart = BackupHead | BackupRecords | BackupEntries | BackupEnd

_encoder: Final = msgspec.msgpack.Encoder()
_decode: Callable[[bytes], BackupPart] = decoder_of(BackupPart)


class BackupDamagedError(Exception):
    """The bytes are no backup, or not all of one; says what is wrong."""


def framed(part: BackupPart) -> bytes:
    """A part as it stands in a backup."""
    body = _encoder.encode(part)
    assert len(body) <= PART_BYTES_MAX, f"a part of {len(body)} bytes"
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def parts_of(pieces: Iterable[bytes]) -> Iterator[BackupPart]:
    """The parts in a backup's bytes, which come in pieces of any size.

    Raises BackupDamagedError. The end of a backup is its BackupEnd; nothing may follow it.
    """
    held = bytearray()
    ended = False
    for piece in pieces:
        held += piece
        while len(held) >= _LENGTH_BYTES:
            size = int.from_bytes(held[:_LENGTH_BYTES], "big")
            if size > PART_BYTES_MAX:
                raise BackupDamagedError(f"a part of {size} bytes: this is no backup of DWCP")
            if len(held) < _LENGTH_BYTES + size:
                break
            if ended:
                break
            part = _decoded(bytes(held[_LENGTH_BYTES : _LENGTH_BYTES + size]))
            del held[: _LENGTH_BYTES + size]
            ended = isinstance(part, BackupEnd)
            yield part
    if held and ended:
        raise BackupDamagedError("something follows the backup's end")
    if not ended:
        raise BackupDamagedError("the backup is cut short")


def _decoded(body: bytes) -> BackupPart:
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BackupDamagedError(f"a part can not be read: {error}") from None


class Permit(Struct, frozen=True, array_like=True):
    """The admin's leave to read everything, until `expires_ms` (Unix milliseconds)."""

    expires_ms: Count
    sig: Signature

    def signing_bytes(self, genesis: bytes) -> bytes:
        """What the admin signs; `genesis` is the hash of the genesis record."""
        return Scope(genesis, ZERO_HASH).signing_bytes(
            "backup-permit", self.expires_ms.to_bytes(8, "big")
        )
