"""Brings what the log holds of the resource to what the resource says, as a client of the cluster.

Level-triggered: what is held is read first, and written only where it differs. What was seen to
be so is looked at again now and then, since others may change it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from dwcp import errors
from dwcp.client import Client
from dwcp.wire.strategies import DocumentSettings

AGAIN_S: Final = 5.0
LOOK_AGAIN_S: Final = 300.0
TIMEOUT_MS: Final = 5_000


class AgreedSettings:
    """What holds for documents of one cluster. `want` never waits; `close` it at the end."""

    def __init__(self, connect: Callable[[], Client], tell: Callable[[str], None]) -> None:
        """`connect` makes a client with an administrator's rights; raises BadCluster, OSError."""
        self._connect = connect
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._held: DocumentSettings | None = None
        self._next_s = 0.0
        self.problem = ""

    def want(self, settings: DocumentSettings | None) -> None:
        """These are to hold; None: the resource says nothing of them."""
        if settings is None or (self._task is not None and not self._task.done()):
            return
        if self._held != settings or time.monotonic() >= self._next_s:
            if self.problem and time.monotonic() < self._next_s:
                return
            self._task = asyncio.create_task(self._apply(settings))

    async def close(self) -> None:
        """Stop what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _apply(self, settings: DocumentSettings) -> None:
        try:
            async with self._connect() as client:
                if await client.document_settings(timeout_ms=TIMEOUT_MS) != settings:
                    await client.set_document_settings(settings, timeout_ms=TIMEOUT_MS)
                    self._tell(f"settings of documents agreed: {len(settings.rules)} strategies")
        except (errors.DWCPError, OSError) as error:
            problem = f"the settings of documents could not be agreed: {error}"
            if problem != self.problem:
                self._tell(problem)
            self.problem, self._next_s = problem, time.monotonic() + AGAIN_S
            return
        self._held, self.problem = settings, ""
        self._next_s = time.monotonic() + LOOK_AGAIN_S
