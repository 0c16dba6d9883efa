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
from pathlib import Path
from typing import Any

import pytest

from client.test_processes import cluster
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


async def start(directory: Path, port: int) -> asyncio.subprocess.Process:
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
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDEVMODE": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    assert line == f"etcd's JSON API on http://127.0.0.1:{port}/v3\n".encode()
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
