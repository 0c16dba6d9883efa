"""The operator with many clusters: length of rounds, requests to the API server, memory.

    python benchmarks/operator_scale.py --clusters 200 --seconds 60 --write docs/operator-scale.md

The operator's own loops run here, for as many DWCPClusters of four members. The API server is the
tests' stand-in, in a process of its own, and beside it one signer answers for all Pods, each under
a loopback address of its own: so nothing here is a replica or Kubernetes, but every round reads,
probes, verifies and plans as it does there. What a real API server needs for its part is not shown.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import itertools
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
from aiohttp import web
from kubernetes.aio.client import Configuration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dwcp.identity import Ed25519Signer
from dwcp.wire.records import (
    Identity,
    SignedGenesis,
    genesis_signing_bytes,
    is_complete,
    scope_of,
)
from dwcp_operator.act.api import CLUSTER, ApiError, KubeApi
from dwcp_operator.act.dispatch import Dispatcher
from dwcp_operator.act.events import Events
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.reconcile import Reconciler, Tools
from dwcp_operator.act.writer import Writer
from dwcp_operator.build.names import CLIENT_PORT
from dwcp_operator.build.pod import PodSettings
from kube.apiserver import ApiServer, now

API_PORT = 7419
MIB = 1024 * 1024


# --- the world: an API server, a kubelet and a signer, in a process of their own ------------------


class Member:
    """One Pod's replica: a key, and the genesis that it was given."""

    def __init__(self, name: str, token: bytes) -> None:
        self.name = name
        self._token = token
        self._signer = Ed25519Signer.generate()
        self._signed: SignedGenesis | None = None

    def identity(self) -> bytes:
        unsigned = Identity(
            self.name, self._signer.public_key, hashlib.sha256(self.name.encode()).digest(),
            bytes(64), bytes(32),
        )  # fmt: skip
        claim = unsigned.claim()
        mac = hmac.digest(self._token, claim, hashlib.sha256)
        shown = msgspec.structs.replace(unsigned, proof=self._signer.sign(claim), mac=mac)
        return msgspec.json.encode(shown)

    def offered(self, body: bytes) -> bytes:
        offer = msgspec.msgpack.decode(body, type=SignedGenesis)
        number = offer.record.member_named(self.name)
        assert number is not None
        sigs = list(offer.member_sigs)
        sigs[number] = self._signer.sign(genesis_signing_bytes(offer.record))
        self._signed = msgspec.structs.replace(offer, member_sigs=tuple(sigs))
        return msgspec.msgpack.encode(self._signed)

    @property
    def genesis(self) -> SignedGenesis | None:
        found = self._signed
        return found if found is not None and is_complete(found) else None

    def status(self, nonce: bytes) -> tuple[bytes, bytes | None]:
        signed = self.genesis
        if signed is None:
            return b"{}", None
        record = signed.record
        names = [member.name for member in record.members]
        body = msgspec.json.encode(
            {
                "name": self.name, "id": names.index(self.name), "phase": "Running",
                "mode": "Internet", "epoch": 0, "view": 1, "active": True, "primary": names[0],
                "role": "backup", "finalIndex": 7, "appliedIndex": 7, "stableCheckpoint": 0,
                "stableState": None, "ready": True, "mute": None, "evidence": [],
            }
        )  # fmt: skip
        message = scope_of(record, record).signing_bytes("status", nonce + body)
        return body, self._signer.sign(message)


async def answer(member: Member, request: web.Request) -> web.Response:
    """What the client API of this member says."""
    match request.path.removeprefix("/dwcp/v1/"):
        case "identity":
            return web.Response(body=member.identity())
        case "status":
            body, sig = member.status(bytes.fromhex(request.query["nonce"]))
            headers = {"DWCP-Signature": base64.b64encode(sig).decode()} if sig else {}
            return web.Response(body=body, headers=headers)
        case "genesis" if request.method == "PUT":
            return web.Response(body=member.offered(await request.read()))
        case "genesis" if member.genesis is not None:
            return web.Response(body=msgspec.msgpack.encode(member.genesis))
    return web.Response(status=404)


class World:
    """Pods get an address and run as soon as they are made."""

    def __init__(self) -> None:
        self._servers: dict[str, ApiServer] = {}
        self.requests = 0
        self._members: dict[str, Member] = {}
        self._addresses = itertools.count(1)

    async def api(self, request: web.Request) -> web.Response:
        if request.path == "/count":
            return web.json_response({"requests": self.requests})
        self.requests += 1
        parts = request.path.split("/")
        if "namespaces" not in parts:
            found = [o for s in self._servers.values() for k, o in s.objects.items()
                     if k[0] == parts[-1]]  # fmt: skip
            return web.json_response({"kind": "List", "items": found})
        # a stand-in for each namespace: its lists take as long as it has objects
        where = parts[parts.index("namespaces") + 1]
        server = self._servers.setdefault(where, ApiServer())
        answer = await server.handle(request)
        if request.method == "POST" and request.path.endswith("/pods"):
            for (kind, _, _), pod in list(server.objects.items()):
                if kind == "pods" and "status" not in pod:
                    self._run(server, pod)
        return answer

    def _run(self, server: ApiServer, pod: dict[str, Any]) -> None:
        number = next(self._addresses)
        address = f"127.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
        name, where = pod["metadata"]["name"], pod["metadata"]["namespace"]
        (secret,) = (v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v)
        held = server.objects["secrets", where, secret]["data"]["token"]
        self._members[address] = Member(name, base64.b64decode(held))
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
        pod["status"] = {"phase": "Running", "podIP": address, "conditions": [ready]}

    async def member(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        member = self._members[request.transport.get_extra_info("sockname")[0]]
        return await answer(member, request)


async def be_world() -> None:
    world = World()
    for handler, host, port in (
        (world.api, "127.0.0.1", API_PORT),
        (world.member, "0.0.0.0", CLIENT_PORT),
    ):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
    print("up", flush=True)
    await asyncio.Event().wait()


# --- the operator -------------------------------------------------------------------------------


def resource(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "dwcp.dev/v1alpha1",
        "kind": "DWCPCluster",
        "metadata": {
            "name": f"c{number}",
            "namespace": f"s{number}",
            "generation": 1,
            "uid": str(uuid.uuid4()),
        },
        "spec": {},
    }


def quantile(metrics: OperatorMetrics, share: float) -> float:
    """The upper bound of the bucket that holds this share of all rounds: seconds."""
    buckets: dict[float, float] = {}
    for metric in metrics.rounds.collect():
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                at = float(sample.labels["le"])
                buckets[at] = buckets.get(at, 0.0) + sample.value
    total = max(buckets.values())
    return min(at for at, count in sorted(buckets.items()) if count >= share * total)


async def measure(clusters: int, seconds: float) -> dict[str, float]:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{API_PORT}"
    async with KubeApi(configuration) as api, aiohttp.ClientSession() as http:
        metrics = OperatorMetrics()

        def make(namespace: str, name: str) -> Reconciler:
            tools = Tools(
                api=api, http=http, writer=Writer(api, lambda: None), events=Events(api, "scale"),
                metrics=metrics, settings=Settings(PodSettings("dwcp:1")),
            )  # fmt: skip
            return Reconciler(tools, namespace, name)

        for number in range(clusters):
            await api.create(resource(number))
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            dispatcher = Dispatcher(tasks, make, metrics)
            tasks.create_task(dispatcher.list_for_ever(api, CLUSTER, ()))
            while await available(api) < clusters:
                await asyncio.sleep(1)
            made_s = time.monotonic() - began
            await asyncio.sleep(15)  # until the first rounds' haste is over
            found = await steady(http, metrics, clusters, seconds)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
    return {"clusters": clusters, "available_s": round(made_s, 1), **found}


async def available(api: KubeApi) -> int:
    """Clusters whose members all vote and of which every status says so."""
    try:
        found = await api.list(CLUSTER, None)
    except ApiError:
        return 0
    return sum((c.get("status") or {}).get("ready") == "4/4" for c in found)


async def steady(
    http: aiohttp.ClientSession, metrics: OperatorMetrics, clusters: int, seconds: float
) -> dict[str, float]:
    metrics.rounds.clear()
    me = psutil.Process()
    before, cpu_s = await count(http), me.cpu_times()
    await asyncio.sleep(seconds)
    asked, used = await count(http) - before, me.cpu_times()
    spent_s = used.user + used.system - cpu_s.user - cpu_s.system
    return {
        "p50_s": quantile(metrics, 0.5),
        "p99_s": quantile(metrics, 0.99),
        "requests_per_cluster_minute": round(asked / clusters / seconds * 60, 1),
        "memory_mib": round(me.memory_info().rss / MIB, 1),
        "cpu_share": round(spent_s / seconds, 2),
    }


async def count(http: aiohttp.ClientSession) -> int:
    async with http.get(f"http://127.0.0.1:{API_PORT}/count") as response:
        return int((await response.json())["requests"])


def page(rows: list[dict[str, float]], seconds: float, about: str = __doc__ or "") -> str:
    head = about.rsplit("\n\n", maxsplit=1)[-1].strip()
    keys = list(rows[0])
    lines = [
        "# The operator with many clusters",
        "",
        f"<!-- Written by benchmarks/{Path(sys.argv[0]).name}: repeat it, never change it. -->",
        "",
        head,
        "",
        f"Steady state, {seconds:g} s each, two cores shared by all of it. `p50_s` and `p99_s` are",
        "upper bounds of the histogram's buckets, over rounds that only ask members and those that",
        "read everything; `available_s` is the time until all clusters were made and available;",
        "`cpu_share` is the operator's share of one core.",
        "",
        f"| {' | '.join(keys)} |",
        "|" + "---|" * len(keys),
        *(f"| {' | '.join(str(row[key]) for key in keys)} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--world", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.world:
        asyncio.run(be_world())
        return
    rows = []
    for clusters in options.clusters:
        world = subprocess.Popen([sys.executable, __file__, "--world"], stdout=subprocess.PIPE)
        try:
            assert world.stdout is not None
            assert world.stdout.readline() == b"up\n"
            rows.append(asyncio.run(measure(clusters, options.seconds)))
        finally:
            world.kill()
            world.wait()
        print(rows[-1], flush=True)
    if options.write is not None:
        options.write.write_text(page(rows, options.seconds))


if __name__ == "__main__":
    main()
