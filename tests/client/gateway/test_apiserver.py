"""A kube-apiserver whose only store is DWCP: four replica processes behind `dwcp gateway`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.test_processes import cluster
from dwcp.calls import prefix_end
from dwcp.client import Client
from replica.harness import Processes
from replica.ports import free_port
from replica.waiting import until
from sandbox.binaries import ensure
from sandbox.layout import default_cache

pytestmark = [pytest.mark.kube]

OBJECTS: Final = 200
AT_ONCE: Final = 20
READY_S: Final = 60
WATCH_S: Final = 30
MAPS: Final = "/api/v1/namespaces/default/configmaps"
PREFIX: Final = "/registry/configmaps/default/"
TOKEN: Final = "test-only"  # of a server that lives as long as the test, on a loopback


@asynccontextmanager
async def program(log: Path, *command: str | Path) -> AsyncIterator[None]:
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def api_server(binary: Path, place: Path, port: int, store: str) -> list[str | Path]:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    account = place / "account.key"
    account.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    tokens = place / "tokens.csv"
    tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    return [
        binary, f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1",
        f"--cert-dir={place / 'certificates'}", f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={account}", f"--service-account-signing-key-file={account}",
        "--endpoint-reconciler-type=none", "--profiling=false",
    ]  # fmt: skip


class Api:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def ready(self) -> bool:
        try:
            async with self.http.get("/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def call(self, method: str, path: str, body: object = None) -> Any:
        async with self.http.request(method, path, json=body) as answer:
            found = await answer.json()
            assert answer.status < 300, found
            return found

    async def all(self, method: str, body: Any = None, *, named: bool) -> None:
        """The same for every object, some at a time."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with limit:
                name = f"map-{number:03}"
                path = f"{MAPS}/{name}" if named else MAPS
                made = body and {**body, "metadata": {"name": name}}
                await self.call(method, path, made)

        await asyncio.gather(*(one(number) for number in range(OBJECTS)))

    async def watch(self, version: str, kind: str, seen: list[str]) -> None:
        """Until as many events of this kind as there are objects have come; no other may."""
        where = f"{MAPS}?watch=1&resourceVersion={version}"
        async with asyncio.timeout(WATCH_S), self.http.get(where) as answer:
            async for line in answer.content:
                event = json.loads(line)
                assert event["type"] == kind, event
                seen.append(event["object"]["metadata"]["name"])
                if len(seen) == OBJECTS:
                    return


async def use(api: Api, processes: Processes) -> None:
    """Create, watch, lose a replica, delete."""
    names = [f"map-{number:03}" for number in range(OBJECTS)]
    version = (await api.call("GET", MAPS))["metadata"]["resourceVersion"]
    added: list[str] = []
    watching = asyncio.create_task(api.watch(version, "ADDED", added))
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"colour": "blue" * 64}}
    making = asyncio.create_task(api.all("POST", body, named=False))
    await until(lambda: len(added) > OBJECTS // 4, what="some are there")
    processes.kill(processes.places[0])
    await making
    await watching
    assert sorted(added) == names
    listed = await api.call("GET", MAPS)
    assert sorted(item["metadata"]["name"] for item in listed["items"]) == names
    gone: list[str] = []
    version = listed["metadata"]["resourceVersion"]
    watching = asyncio.create_task(api.watch(version, "DELETED", gone))
    await api.all("DELETE", named=True)
    await watching
    assert sorted(gone) == names
    assert (await api.call("GET", MAPS))["items"] == []


@pytest.mark.timeout(600)  # the programs may have to be built
def test_a_kube_apiserver_has_no_other_store(tmp_path: Path) -> None:
    binary = ensure(default_cache()) / "kube-apiserver"

    async def scenario(processes: Processes, directory: Path) -> None:
        grpc, port = f"127.0.0.1:{free_port()}", free_port()
        gateway = [
            sys.executable, "-c", "from dwcp.cli import main; main()", "gateway", "--data",
            directory, "--grpc", grpc, "--listen", f"127.0.0.1:{free_port()}",
        ]  # fmt: skip
        server = api_server(binary, tmp_path, port, f"http://{grpc}")
        async with (
            program(tmp_path / "gateway.log", *gateway),
            program(tmp_path / "apiserver.log", *server),
            aiohttp.ClientSession(
                f"https://127.0.0.1:{port}",
                connector=aiohttp.TCPConnector(ssl=False),
                headers={"Authorization": f"Bearer {TOKEN}"},
            ) as http,
        ):
            api = Api(http)
            async with asyncio.timeout(READY_S):
                while not await api.ready():  # noqa: ASYNC110 another program: it is asked
                    await asyncio.sleep(0.2)
            await use(api, processes)
        async with Client.from_directory(directory) as client:
            left = await client.range(PREFIX, prefix_end(PREFIX), count_only=True)
            stored = await client.range("/registry/", prefix_end("/registry/"), count_only=True)
        # kube-root-ca.crt is the controller manager's, which does not run
        assert left.count == 0
        assert stored.count > 100
        print(f"{stored.count} keys of Kubernetes at revision {stored.header.revision}")

    cluster(tmp_path, scenario)
