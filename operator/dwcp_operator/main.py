"""The operator process: take the lease, watch, and bring every cluster to what it should be."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from dataclasses import dataclass
from typing import Final

import aiohttp

from dwcp_operator.act.api import BACKUP, CLUSTER, ApiError, KubeApi
from dwcp_operator.act.backups import BackupReconciler
from dwcp_operator.act.dispatch import Dispatcher
from dwcp_operator.act.events import Events
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.health import Health, HealthServer
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.reconcile import Reconciler, Tools
from dwcp_operator.act.watch import Wakes, watch
from dwcp_operator.act.writer import Writer
from dwcp_operator.elector import Elector, LeaseLostError

LEASE_NAME: Final = "dwcp-operator"
EXIT_STOPPED: Final = 0
EXIT_LEASE_LOST: Final = 75
SERVED_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How the process was started. No `namespaces` means all of them."""

    identity: str
    lease_namespace: str
    namespaces: tuple[str, ...]
    http_host: str
    http_port: int
    settings: Settings


class Operator:
    """One operator process."""

    def __init__(self, options: Options, api: KubeApi, http: aiohttp.ClientSession) -> None:
        self._options = options
        self._api = api
        self._http = http
        self._metrics = OperatorMetrics()
        self._elector = Elector(api, options.lease_namespace, LEASE_NAME, options.identity)
        self._dispatcher: Dispatcher | None = None
        self._backups: Dispatcher | None = None
        self._health = HealthServer(self.health, self._metrics)
        self._stop = asyncio.Event()

    def health(self) -> Health:
        """What is so now."""
        return Health(
            leads=self._elector.held,
            age_s=self._age_s(),
            contact_age_s=time.monotonic() - self._elector.contact_at,
        )

    def _age_s(self) -> float | None:
        if self._dispatcher is None or self._backups is None:
            return None
        return max(self._dispatcher.age_s(), self._backups.age_s())

    async def run(self) -> int:
        """Work until SIGTERM or SIGINT; the exit code. Raises what ends a task."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._health.start(self._options.http_host, self._options.http_port)
        work, stop = asyncio.create_task(self._work()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return self._ended(work)
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.wait({work, stop})
            await self._health.close()
        await self._elector.release()
        _log.info("stopped")
        return EXIT_STOPPED

    def _ended(self, work: asyncio.Task[None]) -> int:
        """Work ends only by an error: a lost lease is one that happens."""
        error = work.exception()
        assert error is not None, "work goes on for ever"
        if isinstance(error, BaseExceptionGroup) and error.split(LeaseLostError)[1] is None:
            _log.error("lease-lost", extra={"detail": str(error.exceptions[0])})
            return EXIT_LEASE_LOST
        raise error

    async def _work(self) -> None:
        await self._elector.acquire()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._elector.hold())
            await self._wait_served()
            self._dispatcher = Dispatcher(tasks, self._reconciler, self._metrics)
            self._backups = Dispatcher(
                tasks, self._backup_reconciler, self._metrics, count=self._metrics.backups
            )
            namespaces = self._options.namespaces
            tasks.create_task(self._dispatcher.list_for_ever(self._api, CLUSTER, namespaces))
            tasks.create_task(self._backups.list_for_ever(self._api, BACKUP, namespaces))
            wakes = Wakes(self._dispatcher.wake, self._backups.wake)
            tasks.create_task(watch(wakes, namespaces, self._options.identity))

    async def _wait_served(self) -> None:
        """Wait until the resource's definition is installed: kopf looks for it only once."""
        told = False
        while True:
            try:
                if await self._api.serves(CLUSTER) and await self._api.serves(BACKUP):
                    return
                if not told:
                    _log.error(
                        "definition-missing",
                        extra={"detail": "install the chart dwcp-crds: this waits for it"},
                    )
                    told = True
            except ApiError as error:
                _log.warning("api-unreachable", extra={"detail": str(error)})
            await asyncio.sleep(SERVED_EVERY_S)

    def _reconciler(self, namespace: str, name: str) -> Reconciler:
        tools = Tools(
            api=self._api,
            http=self._http,
            writer=Writer(self._api, self._elector.require),
            events=Events(self._api, self._options.identity),
            metrics=self._metrics,
            settings=self._options.settings,
        )
        return Reconciler(tools, namespace, name)

    def _backup_reconciler(self, namespace: str, name: str) -> BackupReconciler:
        writer = Writer(self._api, self._elector.require)
        return BackupReconciler(writer, self._options.settings, namespace, name)


async def run(options: Options) -> int:
    """Run the operator; the exit code."""
    async with await KubeApi.connect() as api, aiohttp.ClientSession() as http:
        return await Operator(options, api, http).run()
