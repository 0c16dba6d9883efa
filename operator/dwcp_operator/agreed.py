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
from dwcp.wire.strategies import StrategyRule

AGAIN_S: Final = 5.0
LOOK_AGAIN_S: Final = 300.0
TIMEOUT_MS: Final = 5_000

Rules = tuple[StrategyRule, ...]


class AgreedStrategies:
    """The strategies of one cluster; `want` never waits. `close` it when it is needed no more."""

    def __init__(self, connect: Callable[[], Client], tell: Callable[[str], None]) -> None:
        """`connect` makes a client with an administrator's rights; raises BadCluster, OSError."""
        self._connect = connect
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._held: Rules | None = None
        self._next_s = 0.0
        self.problem = ""

    def want(self, rules: Rules | None) -> None:
        """These rules are to hold; None: the resource says nothing of them."""
        if rules is None or (self._task is not None and not self._task.done()):
            return
        if self._held != rules or time.monotonic() >= self._next_s:
            if self.problem and time.monotonic() < self._next_s:
                return
            self._task = asyncio.create_task(self._apply(rules))

    async def close(self) -> None:
        """Stop what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _apply(self, rules: Rules) -> None:
        try:
            async with self._connect() as client:
                if await client.strategies(timeout_ms=TIMEOUT_MS) != rules:
                    await client.set_strategies(rules, timeout_ms=TIMEOUT_MS)
                    self._tell(f"strategies of documents: {len(rules)} agreed")
        except (errors.DWCPError, OSError) as error:
            problem = f"the strategies of documents could not be agreed: {error}"
            if problem != self.problem:
                self._tell(problem)
            self.problem, self._next_s = problem, time.monotonic() + AGAIN_S
            return
        self._held, self.problem = rules, ""
        self._next_s = time.monotonic() + LOOK_AGAIN_S
