"""One queue of wake-ups into one worker per cluster, and how old the oldest round is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from prometheus_client import Gauge

from dwcp_operator.act.api import ApiError, Kind, KubeApi
from dwcp_operator.act.metrics import OperatorMetrics

ROUNDS_MAX: Final = 8
"""Rounds that run at the same time: the API server is not flooded after a restart."""
ERROR_S_MIN: Final = 0.5
ERROR_S_MAX: Final = 10.0
LIST_EVERY_S: Final = 30.0

_log = logging.getLogger(__name__)

Name = tuple[str, str]
"""Namespace and name of a resource."""


class Loop(Protocol):
    """What is run for one resource: a Reconciler."""

    def touch(self) -> None:
        """Read everything in the next round."""
        ...

    async def round(self) -> float | None:
        """One round; seconds until the next, or None when the resource is gone."""
        ...


class _Worker:
    """What wakes one cluster's rounds, and when the last one ended."""

    def __init__(self, now: float) -> None:
        self.woken = asyncio.Event()
        self.beat = now

    async def pause(self, seconds: float) -> bool:
        """Wait to be woken, at most so long; True when woken."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        finally:
            self.woken.clear()
        return True


class Dispatcher:
    """Runs a loop per resource, as long as the resource is there."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        make: Callable[[str, str], Loop],
        metrics: OperatorMetrics,
        clock: Callable[[], float] = time.monotonic,
        count: Gauge | None = None,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._make = make
        self._metrics = metrics
        self._count = count or metrics.clusters
        self._slots = asyncio.Semaphore(ROUNDS_MAX)
        self._workers: dict[Name, _Worker] = {}
        self._lister = self._clock()

    def wake(self, namespace: str, name: str) -> None:
        """Something has happened to this resource or to what belongs to it."""
        worker = self._workers.get((namespace, name))
        if worker is not None:
            worker.woken.set()
            return
        self._workers[namespace, name] = worker = _Worker(self._clock())
        self._count.set(len(self._workers))
        self._tasks.create_task(self._work((namespace, name), worker))

    def age_s(self) -> float:
        """Seconds since the slowest worker's last round ended, done or failed."""
        beats = [self._lister + LIST_EVERY_S, *(w.beat for w in self._workers.values())]
        return max(0.0, self._clock() - min(beats))

    async def list_for_ever(self, api: KubeApi, kind: Kind, namespaces: tuple[str, ...]) -> None:
        """Look for resources of which no event has come."""
        while True:
            try:
                for namespace in namespaces or (None,):
                    for found in await api.list(kind, namespace):
                        self._find(found["metadata"]["namespace"], found["metadata"]["name"])
            except ApiError as error:
                _log.warning("list-failed", extra={"detail": str(error)})
            self._lister = self._clock()
            await asyncio.sleep(LIST_EVERY_S)

    def _find(self, namespace: str, name: str) -> None:
        if (namespace, name) not in self._workers:
            self.wake(namespace, name)

    async def _work(self, name: Name, worker: _Worker) -> None:
        reconciler, gone, errors = self._make(*name), 0, 0
        while gone < 2:
            delay_s, errors = await self._round(name, reconciler, errors)
            worker.beat = self._clock()
            if delay_s is None:
                # Deleted, or another one of this name: that begins without what was remembered.
                reconciler, gone = self._make(*name), gone + 1
                continue
            gone = 0
            if await worker.pause(delay_s):
                reconciler.touch()
        del self._workers[name]
        self._count.set(len(self._workers))
        if worker.woken.is_set():
            self.wake(*name)

    async def _round(self, name: Name, reconciler: Loop, errors: int) -> tuple[float | None, int]:
        """The delay until the next round, and the number of failed ones in a row."""
        async with self._slots:
            try:
                return await reconciler.round(), 0
            except ApiError as error:
                reason = error.reason if error.status else "NoAnswer"
                self._metrics.errors.labels(reason[:64]).inc()
                where = "/".join(name)
                _log.warning("round-failed", extra={"cluster": where, "detail": str(error)})
                reconciler.touch()
                return min(ERROR_S_MIN * 2 ** min(errors, 6), ERROR_S_MAX), errors + 1
