"""Keeps the log short: a snapshot of the state, synced, and a log that begins anew beside it.

    enough log --> the log begins anew (records that stand for all before, a segment of their own)
               --> a snapshot of the committed state, which is at or above where those lead
               --> the segments before are removed, their headers archived

The state that is committed when the log begins anew is the newest stable one, and the records
reach down to it; the snapshot is copied later, so it stands there or above. A crash anywhere in
between leaves the older snapshot with the longer log, or both. How much log is enough grows with
the state, so that copying costs a constant share of what is written.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from dwcp_replica.core.effects import Record
from dwcp_replica.durable import DiskFull, Wal
from dwcp_replica.durable.state import StateDirectory
from dwcp_replica.node.config import LOG_BYTES_MIN
from dwcp_replica.store import Store

_log = logging.getLogger(__name__)


class LogKeeper:
    """Decides when the log begins anew, and does what follows beside the engine's work."""

    def __init__(
        self, wal: Wal | None, state: StateDirectory, archive: Path, log_bytes: int = LOG_BYTES_MIN
    ) -> None:
        self._wal = wal
        self._state = state
        self._archive = archive
        self._log_bytes = log_bytes
        self._kept_bytes = 0
        self._wanted: tuple[int, int] | None = None
        self._asked = asyncio.Event()
        self._copies = ThreadPoolExecutor(1, "dwcp-snapshot")

    def forgive(self) -> None:
        """The damage of the log no longer matters: its replica may sign again."""
        if self._wal is not None:
            self._wal.forgive()

    @property
    def log_bytes(self) -> int:
        """Bytes of log on disk."""
        return 0 if self._wal is None else self._wal.total_bytes

    @property
    def snapshot_index(self) -> int:
        """Where the newest snapshot stands; 0 before the first."""
        return self._state.snapshot_index

    def is_due(self, store: Store) -> bool:
        """True when there is enough log, no snapshot is being made, and the state is one."""
        if self._wal is None or self._wanted is not None or store.target is not None:
            return False
        enough = max(self._log_bytes, self._state.snapshot_bytes)
        return self._wal.total_bytes - self._kept_bytes >= enough

    async def begin_anew(self, records: list[Record], saved: int, disk: Executor) -> None:
        """Let the log begin with these records, and have `run` do what follows.

        The committed state stands at `saved` or above. A full disk puts it off.
        """
        assert self._wal is not None, "only a log that is written begins anew"
        loop = asyncio.get_running_loop()
        try:
            segment = await loop.run_in_executor(disk, self._wal.begin_anew, records)
        except DiskFull as error:
            self._put_off(error)
        else:
            self._wanted = (segment, saved)
            self._asked.set()

    async def run(self, disk: Executor) -> None:
        """Make snapshots as they are asked for, until cancelled."""
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                assert self._wanted is not None, "asked for"
                await self._save(*self._wanted, disk)
                self._wanted = None
        finally:
            self._copies.shutdown()  # waits for a copy that is under way

    async def _save(self, segment: int, saved: int, disk: Executor) -> None:
        assert self._wal is not None, "begun anew"
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._copies, self._state.snapshot, saved)
            before = self._wal.total_bytes
            await loop.run_in_executor(disk, self._wal.remove_before, segment, self._archive)
        except DiskFull as error:
            self._put_off(error)
            return
        self._kept_bytes = self._wal.total_bytes
        extra = {"index": saved, "removed_bytes": before - self._wal.total_bytes}
        _log.info("log-cut", extra=extra)

    def _put_off(self, error: DiskFull) -> None:
        """Try again after as much log again."""
        assert self._wal is not None, "a log that is written"
        self._kept_bytes = self._wal.total_bytes
        _log.warning("snapshot-put-off", extra={"detail": str(error)})
