"""The operator with many clusters on a real API server: kwok runs the Pods, one signer answers.

    go install sigs.k8s.io/kwok/cmd/kwok@v0.7.0
    sudo env PYTHONPATH=tests python -m sandbox up
    sudo env PYTHONPATH=tests python -m sandbox run-in -- \\
        python benchmarks/operator_kwok.py --kwok ~/go/bin/kwok --write docs/operator-scale.md

etcd, API server, controllers and scheduler are Kubernetes' own, in the sandbox. kwok says of one
large node's Pods that they run, and gives them addresses; at all of these one process answers and
signs as the members would. The operator's own loops run in this process. So every round reads,
probes, verifies and plans as it does in earnest, and every write goes through etcd; nothing here
is a replica.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import operator_scale as scale
import psutil
import yaml
from aiohttp import web

from dwcp_operator.act.api import CLUSTER, SECRET, ApiError, KubeApi
from dwcp_operator.act.dispatch import Dispatcher
from dwcp_operator.act.events import Events
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.reconcile import Reconciler, Tools
from dwcp_operator.act.writer import Writer
from dwcp_operator.build.names import CLIENT_PORT, CLUSTER_LABEL
from dwcp_operator.build.pod import PodSettings

NETWORK = "10.99.0.0/16"
"""The Pods' addresses; in the sandbox's namespace all of them are the signer's."""
CLASS = "kwok"
ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 420.0


PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Node": "/api/v1/nodes",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "Namespace": "/api/v1/namespaces",
    "DWCPCluster": "/apis/dwcp.dev/v1alpha1/namespaces/{}/dwcpclusters",
}


class Counted(KubeApi):
    """Counts what the operator asks of the API server."""

    requests = 0

    async def _request(self, method: str, path: str, **parameters: Any) -> dict[str, Any]:
        self.requests += 1
        return await super()._request(method, path, **parameters)


# --- the signer, in a process of its own ----------------------------------------------------------


class Signer:
    """Answers for the Pod whose address is asked; its token is looked up when it is first asked."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._members: dict[str, scale.Member] = {}
        self._pods: dict[str, dict[str, Any]] = {}

    async def follow(self) -> None:
        """Look which Pod has which address, all at once: asked for one by one it would cost more
        than all that the operator asks."""
        while True:
            found = await self._api._request("get", "/api/v1/pods", label_selector=CLUSTER_LABEL)
            self._pods = {pod["status"].get("podIP", ""): pod for pod in found["items"]}
            known = len(self._members)
            await asyncio.sleep(2 if known < len(self._pods) or not known else 30)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        member = self._members.get(address) or await self._find(address)
        if member is None:
            return web.Response(status=503)
        return await scale.answer(member, request)

    async def _find(self, address: str) -> scale.Member | None:
        if (pod := self._pods.get(address)) is None:
            return None
        secrets = [v["secret"] for v in pod["spec"]["volumes"] if "secret" in v]
        where = pod["metadata"]["namespace"]
        held = await self._api.get(SECRET, where, secrets[0]["secretName"]) if secrets else None
        if held is None:
            return None
        member = scale.Member(pod["metadata"]["name"], base64.b64decode(held["data"]["token"]))
        return self._members.setdefault(address, member)


async def be_signer() -> None:
    async with await KubeApi.connect() as api:
        signer, app = Signer(api), web.Application()
        app.router.add_route("*", "/{path:.*}", signer.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", CLIENT_PORT).start()
        print("up", flush=True)
        await signer.follow()


# --- what Kubernetes is given ---------------------------------------------------------------------


def node() -> dict[str, Any]:
    room = {"cpu": "4k", "memory": "4Ti", "pods": "5k"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "kwok",
            "labels": {"kubernetes.io/hostname": "kwok", "type": "kwok"},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"podCIDR": NETWORK, "podCIDRs": [NETWORK]},
        "status": {"capacity": room, "allocatable": room},
    }


def objects(clusters: int) -> Iterator[dict[str, Any]]:
    yield node()
    yield {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }
    for number in range(4 * clusters):
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"kwok-{number}"},
            "spec": {
                "storageClassName": CLASS,
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
            },
        }
    for number in range(clusters):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"s{number}"}}
        made = scale.resource(number)
        metadata = {key: made["metadata"][key] for key in ("name", "namespace")}
        spec = {
            "storage": {"storageClassName": CLASS},
            "placement": {"nodeSelector": {"type": "kwok"}},
        }
        yield {**made, "metadata": metadata, "spec": spec}


async def prepare(api: KubeApi, clusters: int) -> None:
    """Definition, node, volumes, resources."""
    definition = yaml.safe_load((ROOT / "crds" / "dwcpclusters.yaml").read_text())
    for body in (definition, *objects(clusters)):
        path = PATHS[body["kind"]].format(body["metadata"].get("namespace"))
        for _ in range(40):
            try:
                await api._request("post", path, body=body)
                break
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    break
                if not error.is_missing:
                    raise
                await asyncio.sleep(0.5)  # the definition is being served


@contextmanager
def process(*words: str, ready: bool = False) -> Iterator[None]:
    """A process of ours while the block runs: it says "up" when it is ready, or is a quiet one."""
    streams = {"stdout": subprocess.PIPE} if ready else {"stderr": subprocess.DEVNULL}
    started = subprocess.Popen(words, **streams)
    try:
        if ready:
            assert started.stdout is not None
            assert started.stdout.readline() == b"up\n"
        yield
    finally:
        started.kill()
        started.wait()


# --- the operator ---------------------------------------------------------------------------------


async def measure(clusters: int, seconds: float) -> dict[str, float]:
    async with await Counted.connect() as api, await KubeApi.connect() as other:
        assert isinstance(api, Counted)
        await prepare(other, clusters)
        async with aiohttp.ClientSession() as http:
            return await observe((api, other), http, clusters, seconds)


async def observe(
    apis: tuple[Counted, KubeApi], http: aiohttp.ClientSession, clusters: int, seconds: float
) -> dict[str, float]:
    (api, other), metrics = apis, OperatorMetrics()

    def make(namespace: str, name: str) -> Reconciler:
        tools = Tools(
            api=api, http=http, writer=Writer(api, lambda: None), events=Events(api, "scale"),
            metrics=metrics, settings=Settings(PodSettings("dwcp:1")),
        )  # fmt: skip
        return Reconciler(tools, namespace, name)

    began, there = time.monotonic(), 0
    async with asyncio.TaskGroup() as tasks:
        dispatcher = Dispatcher(tasks, make, metrics)
        tasks.create_task(dispatcher.list_for_ever(api, CLUSTER, ()))
        while (there := await scale.available(other)) < clusters:
            assert time.monotonic() - began < PATIENCE_S, f"{there} of {clusters} are available"
            await asyncio.sleep(2)
        made_s = time.monotonic() - began
        await asyncio.sleep(15)  # until the first rounds' haste is over
        metrics.rounds.clear()
        me = psutil.Process()
        before, cpu_s = api.requests, sum(me.cpu_times()[:2])
        await asyncio.sleep(seconds)
        asked, used_s = api.requests - before, sum(me.cpu_times()[:2]) - cpu_s
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
    return {
        "clusters": clusters,
        "available_s": round(made_s, 1),
        "p50_s": scale.quantile(metrics, 0.5),
        "p99_s": scale.quantile(metrics, 0.99),
        "requests_per_cluster_minute": round(asked / clusters / seconds * 60, 1),
        "memory_mib": round(me.memory_info().rss / scale.MIB, 1),
        "cpu_share": round(used_s / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kwok", type=Path, default=Path("kwok"))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--signer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.signer:
        asyncio.run(be_signer())
        return
    route = ["ip", "route", "add", "local", NETWORK, "dev", "lo"]
    subprocess.run(route, check=True)
    with ExitStack() as running:
        chosen = "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"
        running.enter_context(process(str(options.kwok), chosen, f"--cidr={NETWORK}"))
        running.enter_context(process(sys.executable, __file__, "--signer", ready=True))
        row = asyncio.run(measure(options.clusters, options.seconds))
    print(row, flush=True)
    if options.write is not None:
        options.write.write_text(scale.page([row], options.seconds, __doc__ or ""))


if __name__ == "__main__":
    main()
