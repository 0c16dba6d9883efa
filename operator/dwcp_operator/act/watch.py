"""kopf watches; every event is a wake-up and nothing more.

kopf runs in a thread and an event loop of its own: when it stops it cancels every task of its
loop, and a handler of ours must never hold up a watch. No create or update handlers: those keep
their progress in annotations of the resource. Nothing is posted and no finalizer is set.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import kopf

from dwcp_operator import backups
from dwcp_operator.build.gateway import GATEWAY_LABEL
from dwcp_operator.build.names import CLUSTER_LABEL
from dwcp_operator.resources import GROUP, PLURAL, VERSION

WORKERS_MAX: Final = 16

Wake = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Wakes:
    """What an event of a cluster, and one of a backup, calls with namespace and name."""

    cluster: Wake
    backup: Wake


class WatchEndedError(Exception):
    """kopf stopped watching by itself: this process would miss what happens."""


def settings() -> kopf.OperatorSettings:
    """Time-outs that end a watch which has gone silent, and no more writes than none."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 30
    chosen.watching.inactivity_timeout = 70
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 30
    chosen.queueing.worker_limit = WORKERS_MAX
    chosen.execution.default_backoff = 2
    return chosen


def registry(wakes: Wakes) -> kopf.OperatorRegistry:
    """What is watched: the resources, and the Pods and claims that bear a cluster's label."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made)
    async def resource(namespace: str | None, name: str, **_: Any) -> None:
        assert namespace is not None, "the resource is namespaced"
        wakes.cluster(namespace, name)

    @kopf.on.event(GROUP, VERSION, backups.PLURAL, registry=made)
    async def backup(namespace: str | None, name: str, **_: Any) -> None:
        assert namespace is not None, "the resource is namespaced"
        wakes.backup(namespace, name)

    @kopf.on.event("", "v1", "pods", labels={CLUSTER_LABEL: kopf.PRESENT}, registry=made)
    @kopf.on.event(
        "", "v1", "persistentvolumeclaims", labels={CLUSTER_LABEL: kopf.PRESENT}, registry=made
    )
    async def part(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        assert namespace is not None, "Pods and claims are namespaced"
        wakes.cluster(namespace, labels[CLUSTER_LABEL])

    @kopf.on.event("", "v1", "pods", labels={GATEWAY_LABEL: kopf.PRESENT}, registry=made)
    async def gateway(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        assert namespace is not None, "Pods are namespaced"
        wakes.cluster(namespace, labels[GATEWAY_LABEL])

    return made


async def watch(wakes: Wakes, namespaces: tuple[str, ...], identity: str) -> None:
    """Watch until cancelled; `wakes` are called in the caller's loop.

    Raises WatchEndedError, or what kopf raised.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def here(wake: Wake) -> Wake:
        def wake_here(namespace: str, name: str) -> None:
            loop.call_soon_threadsafe(wake, namespace, name)

        return wake_here

    def run() -> None:
        kopf.run(
            registry=registry(Wakes(here(wakes.cluster), here(wakes.backup))),
            settings=settings(),
            # Else kopf asks for the user's name, and a user id alone has none.
            identity=identity,  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )

    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kopf")
    try:
        await loop.run_in_executor(executor, run)
        raise WatchEndedError("kopf stopped watching: its log says why")
    finally:
        stop.set()
        # A process that must end at once does not wait for watches to be closed.
        executor.shutdown(wait=False)
