"""`dwcp gateway` as a process, over four replica processes, one of them killed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from client.gateway.test_tls import credentials_of
from client.gateway.test_watches import Stream
from client.test_processes import cluster
from dwcp.cli.group import dwcp as command
from dwcp.gateway.proto import rpc_pb2 as pb
from replica.authority import Authority
from replica.harness import Processes
from replica.ports import free_port

pytestmark = [pytest.mark.processes]


def call(url: str, **fields: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=json.dumps(fields).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def start(
    directory: Path, port: int, *options: str, scheme: str = "http"
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from dwcp.cli import main; main()",
        "gateway",
        "--data",
        str(directory),
        "--listen",
        f"127.0.0.1:{port}",
        "--grpc",
        "127.0.0.1:0",
        *options,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDEVMODE": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    assert line == f"etcd's JSON API on {scheme}://127.0.0.1:{port}/v3\n".encode()
    return process


def test_two_gateways_serve_one_truth_through_a_crash(tmp_path: Path) -> None:
    async def scenario(processes: Processes, directory: Path) -> None:
        ports = [free_port(), free_port()]
        gateways = [await start(directory, port) for port in ports]
        first, second = (f"http://127.0.0.1:{port}/v3/kv" for port in ports)
        key, value = (base64.b64encode(word).decode() for word in (b"k", b"v"))
        assert (await asyncio.to_thread(call, f"{first}/put", key=key, value=value))[0] == 200
        processes.kill(processes.places[0])
        code, found = await asyncio.to_thread(call, f"{second}/range", key=key)
        assert (code, found["kvs"][0]["value"]) == (200, value)
        code, found = await asyncio.to_thread(call, f"{second}/put")
        assert (code, found["message"]) == (400, "etcdserver: key is not provided")
        for gateway in gateways:
            gateway.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gateway.wait(), 10) == 0

    cluster(tmp_path, scenario)


async def rpc_port(gateway: asyncio.subprocess.Process) -> int:
    """The gRPC port, from the second line that it prints."""
    assert gateway.stdout is not None
    line = await asyncio.wait_for(gateway.stdout.readline(), 20)
    return int(line.decode().rsplit(":", 1)[1])


async def watched(stream: Stream, count: int) -> list[tuple[int, bytes]]:
    """The next events: revision and value."""
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        response = await stream.next()
        found += [(e.kv.mod_revision, e.kv.value) for e in response.events]
    return found


def test_a_watch_goes_on_at_another_gateway_when_its_own_is_killed(tmp_path: Path) -> None:
    """Each event once: what the first had told, and from the next revision what it had not."""

    async def scenario(_: Processes, directory: Path) -> None:
        files = replace(Authority(tmp_path).issue("gateway"), authority=tmp_path / "ca.crt")
        options = [
            *("--tls-certificate", str(files.certificate), "--tls-key", str(files.key)),
            *("--tls-client-authority", str(files.authority)),
        ]
        gateways = [await start(directory, free_port(), *options, scheme="https") for _ in range(2)]
        ports = [await rpc_port(gateway) for gateway in gateways]
        trust = credentials_of(tmp_path / "ca.crt", files)
        first, second = (grpc.aio.secure_channel(f"127.0.0.1:{p}", trust) for p in ports)
        put = second.unary_unary("/etcdserverpb.KV/Put")

        async def write(*values: bytes) -> None:
            for value in values:
                await put(pb.PutRequest(key=b"k", value=value).SerializeToString(), timeout=20)

        stream = Stream(first)
        assert (await stream.create(b"k")).created
        await write(b"1", b"2", b"3")
        events = await watched(stream, 3)
        gateways[0].kill()
        await asyncio.wait_for(gateways[0].wait(), 10)
        await write(b"4", b"5")
        with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
            await stream.next()
        resumed = Stream(second)
        assert (await resumed.create(b"k", start_revision=events[-1][0] + 1)).created
        await write(b"6")
        events += await watched(resumed, 3)
        assert [value for _, value in events] == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert [revision for revision, _ in events] == list(range(events[0][0], events[0][0] + 6))
        await asyncio.gather(first.close(), second.close())
        gateways[1].send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateways[1].wait(), 10) == 0

    cluster(tmp_path, scenario)


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_probes_say_whether_it_can_serve(tmp_path: Path) -> None:
    """Alive without its replicas, ready only with enough of them."""

    async def scenario(processes: Processes, directory: Path) -> None:
        probes = free_port()
        gateway = await start(directory, free_port(), "--probes", f"127.0.0.1:{probes}")
        await rpc_port(gateway)
        url = f"http://127.0.0.1:{probes}"
        assert (await asyncio.to_thread(get, f"{url}/readyz"))[0] == 200
        assert b"dwcp_gateway_replicas_connected" in (
            await asyncio.to_thread(get, f"{url}/metrics")
        )[1]  # fmt: skip
        for place in processes.places:
            processes.kill(place)
        code, body = await asyncio.to_thread(get, f"{url}/readyz")
        assert (code, json.loads(body)["ready"]) == (503, False)
        assert (await asyncio.to_thread(get, f"{url}/livez"))[0] == 200
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.wait(), 15) == 0

    cluster(tmp_path, scenario)


def test_tls_that_can_not_be_is_refused_at_the_start(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("gateway")
    certificate = ["gateway", "--tls-certificate", str(files.certificate)]
    found = CliRunner().invoke(command, certificate)
    assert (found.exit_code, "--tls-key" in found.output) == (2, True)
    found = CliRunner().invoke(command, [*certificate, "--tls-key", str(files.certificate)])
    assert (found.exit_code, "can not be used" in found.output) == (2, True)


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    async def run() -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from dwcp.cli import main; main()", "gateway",
            "--data", str(tmp_path), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, problem = await process.communicate()
        return process.returncode, problem

    code, problem = asyncio.run(run())
    assert code == 3
    assert b"start one with `dwcp up" in problem
