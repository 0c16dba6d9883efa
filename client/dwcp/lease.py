"""A lease that lives as long as a block of code runs."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from dwcp import errors

if TYPE_CHECKING:
    from dwcp.calls import Calls

RENEWALS_PER_TTL: Final = 3

_log = logging.getLogger("dwcp")


class KeptLease:
    """Granted on entry, renewed three times in its time, revoked on exit.

    `lost` is set when the lease ended without being asked to: its keys are gone.
    """

    def __init__(self, calls: Calls, ttl_s: int) -> None:
        self.id = 0
        self.ttl_s = ttl_s
        self.lost = asyncio.Event()
        self._calls = calls
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        granted = await self._calls.lease_grant(self.ttl_s)
        self.id, self.ttl_s = granted.id, granted.ttl_s
        self._task = asyncio.create_task(self._keep(), name=f"dwcp-lease-{self.id}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None, "entered"
        self._ended.set()
        await self._task
        if self.lost.is_set():
            return
        try:
            await self._calls.lease_revoke(self.id, timeout_ms=self.ttl_s * 1000)
        except errors.DWCPError as refused:
            _log.warning("lease %d was not revoked and ends by itself: %s", self.id, refused)

    async def _keep(self) -> None:
        every_s = self.ttl_s / RENEWALS_PER_TTL
        while not await self._ends_within(every_s):
            try:
                kept = await self._calls.lease_keep_alive(self.id, timeout_ms=int(every_s * 1000))
            except errors.DWCPError as failed:
                _log.warning("lease %d was not kept alive, trying again: %s", self.id, failed)
                continue
            if kept.ttl_s == 0:
                _log.warning("lease %d has ended", self.id)
                self.lost.set()
                return

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True
