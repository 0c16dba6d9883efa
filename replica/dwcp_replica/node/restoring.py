"""A member's first state, taken from a backup where the genesis names one.

Before it votes, once: fetch the backup, check every part, and have the state that comes of it in a
synced snapshot. A file says that this is done; until then a start begins again. A member that
joins later has no backup to read: it gets the state from the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from dwcp.identity import Ed25519Verifier
from dwcp.wire.backup import BackupDamagedError, parts_of
from dwcp.wire.records import Origin, SignedGenesis
from dwcp_replica.durable import DataDirectory
from dwcp_replica.durable.faults import DiskFull
from dwcp_replica.durable.files import replace_file
from dwcp_replica.durable.state import StateDirectory
from dwcp_replica.node.machines import load_machine
from dwcp_replica.store.backup import BackupFaultError, Importer
from dwcp_replica.store.records import StateRecords

DONE: Final = "restored.json"
FETCHED: Final = "restore.tmp"
AGAIN_S: Final = 2.0
READ_BYTES: Final = 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=30.0)

_log = logging.getLogger(__name__)


class RestoreError(Exception):
    """The backup could not be taken in; says why. It is tried again."""


def is_due(directory: DataDirectory, signed: SignedGenesis) -> bool:
    """True while the state that the genesis names was not taken in, and no log is above it."""
    if signed.origin is None or (directory.path / DONE).exists():
        return False
    return not any(directory.wal_path.iterdir())


async def restore(
    directory: DataDirectory, signed: SignedGenesis, source: str, machine: str | None
) -> None:
    """Fetch the backup at `source`, a path or an http URL, and take it in. Raises RestoreError."""
    path = Path(source)
    fetched = directory.path / FETCHED
    try:
        if source.startswith(("http://", "https://")):
            await _fetch(source, fetched)
            path = fetched
        await asyncio.to_thread(_take_in, directory, signed, path, machine)
    except (BackupFaultError, BackupDamagedError) as error:
        raise RestoreError(f"{source}: {error}") from None
    except (OSError, DiskFull, aiohttp.ClientError, TimeoutError) as error:
        what = str(error) or type(error).__name__
        raise RestoreError(f"{source} can not be read, or its state not be kept: {what}") from None
    finally:
        fetched.unlink(missing_ok=True)


async def _fetch(url: str, path: Path) -> None:
    """Download a backup; what it says is checked when it is taken in."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(url) as response:
        response.raise_for_status()
        with path.open("wb") as file:
            async for piece in response.content.iter_chunked(READ_BYTES):
                await asyncio.to_thread(file.write, piece)


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's bytes, some at a time. Raises OSError."""
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


def read_backup(path: Path, records: StateRecords, machine: str | None = None) -> Importer:
    """Take a whole backup into records, every part checked.

    Raises OSError, BackupDamagedError, BackupFaultError.
    """
    importer = Importer(records, Ed25519Verifier(), load_machine(machine))
    for part in parts_of(pieces_of(path)):
        importer.take(part)
    return importer


def _take_in(
    directory: DataDirectory, signed: SignedGenesis, path: Path, machine: str | None
) -> None:
    state = StateDirectory.open(directory.state_path)
    try:
        if state.records.target is None:
            # what an earlier try has taken in is nothing yet, and is not read again
            for key in [key for key, _ in state.records.scan(b"")]:
                state.records.remove(key)
        importer = read_backup(path, state.records, machine)
        _check_origin(signed.origin, importer.origin)
        importer.settle(signed.record)
        state.snapshot(signed.record.start_index)
    finally:
        state.close()
    assert signed.origin is not None, "due"
    replace_file(directory.path / DONE, msgspec.json.encode(signed.origin))
    extra = {"index": signed.origin.index, "revision": importer.revision, "records": importer.count}
    _log.info("restored", extra=extra)


def _check_origin(wanted: Origin | None, found: Origin | None) -> None:
    assert wanted is not None, "due"
    assert found is not None, "a whole backup was read"
    if found != msgspec.structs.replace(wanted, loss=""):
        raise BackupFaultError(
            f"it proves entry {found.index} of genesis {found.genesis.hex()[:16]}, and this "
            f"cluster begins from entry {wanted.index} of {wanted.genesis.hex()[:16]}"
        )
