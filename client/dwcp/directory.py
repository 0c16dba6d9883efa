"""What a user's directory holds of a cluster: genesis, client key, authority, documents."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from dwcp import errors
from dwcp.certificates import FollowedAuthority
from dwcp.epochs import read_records
from dwcp.identity import Ed25519Signer, Ed25519Verifier, KeyFileError
from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.records import EpochRecord, Member, SignedGenesis, check_genesis, is_complete

CLIENT_KEY_FILE: Final = "client.key"
GENESIS_FILE: Final = "genesis.msgpack"
AUTHORITY_FILE: Final = "ca.crt"
DOCUMENTS_FILE: Final = "documents.db"
EPOCHS_FILE: Final = "epochs.msgpack"

_decode_genesis: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)


@dataclass(frozen=True, slots=True)
class Found:
    """What a client needs of a directory. `records` are those of later epochs, unchecked: members
    may have changed since genesis."""

    genesis: SignedGenesis
    key: Ed25519Signer
    authority: ssl.SSLContext | None
    documents: Path
    records: tuple[CertifiedRecord, ...]


def read_directory(directory: Path) -> Found:
    """What lies there. Raises BadCluster."""
    try:
        data = (directory / GENESIS_FILE).read_bytes()
        key = Ed25519Signer.load(directory / CLIENT_KEY_FILE)
        genesis = _decode_genesis(data)
        authority = _authority(directory / AUTHORITY_FILE)
        records = stored_records(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.BadCluster(
            f"no cluster in {directory}: start one with `dwcp up --data {directory}`, "
            "or name the right directory"
        ) from None
    except (msgspec.DecodeError, KeyFileError, OSError) as error:
        raise errors.BadCluster(f"the cluster in {directory} can not be read: {error}") from None
    return Found(genesis, key, authority, directory / DOCUMENTS_FILE, records)


def stored_records(directory: Path) -> tuple[CertifiedRecord, ...]:
    """The records of later epochs that lie there, unchecked.

    Raises msgspec.DecodeError, OSError.
    """
    file = directory / EPOCHS_FILE
    return read_records(file.read_bytes()) if file.exists() else ()


def _authority(path: Path) -> ssl.SSLContext | None:
    """What the file's certificates vouch for; None without the file. Raises ssl.SSLError."""
    return FollowedAuthority.follow(path) if path.exists() else None


Trust = Callable[[Member], aiohttp.Fingerprint | ssl.SSLContext]
"""What a member's TLS certificate is held against."""


def pinned(member: Member) -> aiohttp.Fingerprint:
    """The certificate that the member's record names."""
    return aiohttp.Fingerprint(member.certificate)


def trust_in(directory: Path) -> Trust:
    """The authority that lies there, or else the members' records. Raises BadCluster."""
    try:
        authority = _authority(directory / AUTHORITY_FILE)
    except OSError as error:
        raise errors.BadCluster(f"ca.crt in {directory} can not be used: {error}") from None
    return pinned if authority is None else lambda _member: authority


def checked(signed: SignedGenesis) -> EpochRecord:
    """The record of a complete genesis whose signatures hold. Raises BadCluster."""
    problem = check_genesis(signed, Ed25519Verifier())
    if problem is None and not is_complete(signed):
        problem = "not every member has signed the genesis yet: wait until the cluster has started"
    if problem is not None:
        raise errors.BadCluster(problem)
    return signed.record
