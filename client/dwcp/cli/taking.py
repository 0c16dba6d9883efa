"""Taking backups from replicas that are not trusted: what `dwcp backup` and `recover` share."""

from __future__ import annotations

import base64
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from dwcp.directory import Trust, pinned
from dwcp.epochs import RecordChain
from dwcp.identity import Ed25519Signer
from dwcp.wire.backup import BackupDamagedError, Permit
from dwcp.wire.records import EpochRecord, Member, Origin

if TYPE_CHECKING:
    from dwcp_replica.store.backup import Importer

PERMIT_HEADER: Final = "DWCP-Permit"
PERMIT_MS: Final = 900_000
SUFFIX: Final = ".dwcpbackup"
PIECE_BYTES: Final = 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=30.0)


class NotTakenError(Exception):
    """A member gave no backup, or none that holds; says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was checked. `revision` is that of the keys, `records` of the state."""

    path: Path
    origin: Origin
    revision: int
    records: int
    size_bytes: int

    def row(self) -> dict[str, object]:
        """As it is printed."""
        return {
            "file": str(self.path),
            "genesis": self.origin.genesis.hex(),
            "epoch": self.origin.epoch,
            "index": self.origin.index,
            "revision": self.revision,
            "records": self.records,
            "bytes": self.size_bytes,
        }


def make_permit(genesis: EpochRecord, admin: Ed25519Signer) -> bytes:
    """A permit that is good for a quarter of an hour."""
    unsigned = Permit(int(time.time() * 1000) + PERMIT_MS, bytes(64))
    sig = admin.sign(unsigned.signing_bytes(genesis.hash()))
    return msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))


def check(path: Path, genesis: bytes) -> Taken:
    """Check a whole backup of the cluster whose genesis has this hash.

    Raises NotTakenError with what is wrong.
    """
    from dwcp_replica.node.restoring import read_backup
    from dwcp_replica.store.backup import BackupFaultError
    from dwcp_replica.store.records import MemoryRecords

    try:
        found: Importer = read_backup(path, MemoryRecords(), os.environ.get("DWCP_MACHINE"))
        size_bytes = path.stat().st_size
    except (BackupFaultError, BackupDamagedError) as error:
        raise NotTakenError(f"{path} does not hold: {error}") from None
    except OSError as error:
        raise NotTakenError(f"{path} can not be read: {error.strerror}") from None
    assert found.origin is not None, "a whole backup was read"
    if found.origin.genesis != genesis:
        raise NotTakenError(
            f"{path} is of the cluster with genesis {found.origin.genesis.hex()}, "
            f"not of {genesis.hex()}"
        )
    return Taken(path, found.origin, found.revision, found.count, size_bytes)


async def take(
    http: aiohttp.ClientSession, genesis: EpochRecord, member: Member, permit: bytes, path: Path,
    trust: Trust = pinned,
) -> Taken:  # fmt: skip
    """Take a backup from one member into a file, checked and synced. Raises NotTakenError."""
    making = path.with_name(path.name + ".tmp")
    try:
        await _download(http, member, permit, making, trust)
        taken = check(making, genesis.hash())
        making.replace(path)
    except OSError as error:
        raise NotTakenError(f"{path} can not be written: {error.strerror}") from None
    finally:
        making.unlink(missing_ok=True)
    return Taken(path, taken.origin, taken.revision, taken.records, taken.size_bytes)


async def _download(
    http: aiohttp.ClientSession, member: Member, permit: bytes, path: Path, trust: Trust
) -> None:
    url = f"{member.client.rstrip('/')}/dwcp/v1/backup"
    headers = {PERMIT_HEADER: base64.b64encode(permit).decode()}
    try:
        async with http.get(url, headers=headers, ssl=trust(member), timeout=_TIMEOUT) as response:
            if response.status != 200:
                said = (await response.content.read(2000)).decode("utf-8", "replace")
                raise NotTakenError(f"{member.name} answers {response.status}: {said}")
            with path.open("wb") as file:
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
    except (aiohttp.ClientError, ssl.SSLError, TimeoutError) as error:
        what = str(error) or type(error).__name__
        raise NotTakenError(f"{member.name} does not answer: {what}") from None


def members_of(chain: RecordChain) -> list[Member]:
    """Whom to ask: the present members first, then those of genesis."""
    named = {m.name: m for m in (*chain.current.members, *chain.genesis.members)}
    return list(named.values())


def file_name(cluster: str) -> str:
    """A backup's name: files of one cluster sort by time."""
    return f"{cluster}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{SUFFIX}"


def prune(directory: Path, cluster: str, keep: int) -> list[Path]:
    """Remove all but the newest `keep` backups of a cluster; what was removed."""
    found = sorted(directory.glob(f"{cluster}-????????T??????Z{SUFFIX}"))
    old = found[:-keep]
    for path in old:
        path.unlink(missing_ok=True)
    return old
