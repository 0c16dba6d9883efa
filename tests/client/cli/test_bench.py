"""The bench counts what was answered, within one hundredth, and says what failed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from client.loopback import Loopback
from client.test_processes import cluster, dwcp
from dwcp import errors
from dwcp.cli import bench
from dwcp.cli.bench import Latencies, Load
from dwcp.client import Client
from dwcp.waiting import Limits
from replica.harness import Processes
from replica.waiting import until


def test_percentiles_are_right_within_one_hundredth() -> None:
    dice = random.Random(7)
    exact = sorted(dice.uniform(0.0001, 2.0) for _ in range(5000))
    found = Latencies()
    for seconds in exact:
        found.add(seconds)
    for percent in (1, 50, 99, 100):
        right_ms = exact[-(-len(exact) * percent // 100) - 1] * 1000
        got_ms = found.percentile_ms(percent)
        assert got_ms is not None
        assert abs(got_ms - right_ms) <= right_ms * 0.011
    assert Latencies().percentile_ms(50) is None


@pytest.mark.parametrize("kind", ["write", "read", "mixed"])
def test_a_load_counts_every_answer_in_its_time(kind: str) -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            members = loopback.members
            async with Client.connect(members.genesis, members.client) as client:
                load = Load(kind, 8, 32, 0.3, 0.0, 50, serializable=False)
                taken_s = await load.run(client)
                report = load.report(taken_s)
            assert report["errors"] == 0
            assert 0 < load.latencies.count <= loopback.operations()
            assert report["ops_per_second"] == round(load.latencies.count / 0.3, 1)

    asyncio.run(run())


def test_what_fails_late_is_an_error_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered after the start: no operation, and an error for each client."""
    monkeypatch.setattr(bench, "OPERATION_MS_MAX", 400)

    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            members = loopback.members
            limits = Limits(retry_ms=100)
            async with Client.connect(members.genesis, members.client, limits=limits) as client:
                await client.put("warm", "up")
                load = Load("write", 4, 8, 0.1, 0.0, 5, serializable=False)
                running = asyncio.create_task(load.run(client))
                await until(lambda: load.latencies.count, what="the first answer")
                for node in loopback.nodes:
                    node.deaf = True
                await running
            assert load.report(0.1)["errors"] == 4

    asyncio.run(run())


def test_a_cluster_that_is_down_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OPERATION_MS_MAX", 100)

    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            members = loopback.members
            for node in loopback.nodes:
                node.deaf = True
            async with Client.connect(members.genesis, members.client) as client:
                load = Load("write", 1, 1, 0.1, 0.0, 1, serializable=False)
                with pytest.raises(errors.DWCPError):
                    await load.run(client)

    asyncio.run(run())


@pytest.mark.processes
def test_the_command(tmp_path: Path) -> None:
    async def scenario(_: Processes, directory: Path) -> None:
        code, out, _ = await dwcp(
            directory, "bench", "mixed", "--clients", "16", "--seconds", "1", "-o", "json"
        )
        found = json.loads(out)
        assert (code, found["errors"]) == (0, 0)
        assert found["operations"] > 0
        assert found["p50_ms"] <= found["p99_ms"]
        assert (found["replicas"], found["equal_replies_needed"]) == (4, 2)

    cluster(tmp_path, scenario)
