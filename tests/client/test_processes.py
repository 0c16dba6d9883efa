"""The client against four real replica processes: one killed, one lying."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from dwcp import errors
from dwcp.client import Client
from dwcp.waiting import Limits
from dwcp.wire.operations import PutRequest
from dwcp.wire.records import Parameters
from replica.harness import Http, Operator, Place, Processes
from replica.waiting import until

pytestmark = [pytest.mark.processes]

LENIENT = Parameters(checkpoint_interval=10, request_timeout_ms=500)
LIE = ("--test-strategy", "wrong-replies")

Scenario = Callable[[Processes, Path], Awaitable[None]]


def cluster(tmp_path: Path, scenario: Scenario, liar: int | None = None) -> None:
    """Run a scenario with four replicas and a directory as `dwcp up` makes it."""

    async def run(processes: Processes) -> None:
        async with Http() as http:
            operator = Operator(http, [processes.client])
            genesis = await operator.bootstrap(processes.places, LENIENT)
        directory = tmp_path / "cluster"
        directory.mkdir()
        (directory / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
        processes.client.save(directory / "client.key")
        await scenario(processes, directory)

    with Processes(tmp_path) as processes:
        for number, place in enumerate(processes.places):
            if number == liar:
                processes.start(place, *LIE, DWCP_ALLOW_TEST_STRATEGIES="1")
            else:
                processes.start(place)
        asyncio.run(run(processes))


async def dwcp(directory: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run the command line as a process: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from dwcp.cli import main; main()",
        *arguments[0].split(),
        "--data",
        str(directory),
        *arguments[1:],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONDEVMODE": "1"},
    )
    out, problems = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out, problems.decode()


async def primary_of(processes: Processes, client: Client) -> Place:
    await client.put("which", "primary")
    return processes.places[client._core.primary]


def test_the_command_line(tmp_path: Path) -> None:
    async def scenario(_: Processes, directory: Path) -> None:
        assert await dwcp(directory, "put", "colour", "blue") == (0, b"OK\n", "")
        assert await dwcp(directory, "get", "colour") == (0, b"colour\nblue\n", "")
        assert await dwcp(directory, "get", "nothing") == (0, b"", "")
        raw = bytes(range(256))
        assert (await dwcp(directory, "put", "colour/raw", "-", stdin=raw))[0] == 0
        assert await dwcp(directory, "get", "colour/raw") == (0, b"colour/raw\n" + raw + b"\n", "")
        code, out, _ = await dwcp(directory, "get", "colour", "--prefix", "-o", "json")
        found = msgspec.json.decode(out)
        assert (code, found["count"], found["kvs"][0]["key"]) == (0, 2, "Y29sb3Vy")
        assert found["header"]["revision"] == 3
        assert await dwcp(directory, "del", "colour", "--prefix") == (0, b"2\n", "")
        code, _, problem = await dwcp(directory, "put", "", "no key")
        assert (code, problem) == (1, "Error: etcdserver: key is not provided\n")

    cluster(tmp_path, scenario)


def test_a_killed_primary_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async def scenario(processes: Processes, directory: Path) -> None:
        limits = Limits(in_flight_max=4, envelope_operations_max=8)
        async with Client.from_directory(directory, limits=limits) as client:
            primary = await primary_of(processes, client)
            writes = [asyncio.create_task(client.put(f"k{i}", str(i))) for i in range(400)]
            await until(lambda: sum(w.done() for w in writes) > 40, what="it is under way")
            assert not all(w.done() for w in writes), "nothing is left to lose"
            processes.kill(primary)
            done = await asyncio.gather(*writes)
            assert len({d.revision for d in done}) == 400
            everything = await client.range("k", "l")
            assert everything.count == 400
            assert {kv.version for kv in everything.kvs} == {1}
            assert sorted(kv.mod_revision for kv in everything.kvs) == sorted(
                d.revision for d in done
            )
            assert not client.liars

    cluster(tmp_path, scenario)


def test_a_liar_is_outvoted_and_named(tmp_path: Path) -> None:
    async def scenario(processes: Processes, directory: Path) -> None:
        async with Client.from_directory(directory) as client:
            for i in range(5):
                await client.put("a", str(i))
            kv = await client.get("a")
            assert kv is not None
            assert (kv.value, kv.version) == (b"4", 5)
            await until(lambda: client.liars, what="the liar is named")
            assert list(client.liars) == [processes.places[2].name]
        warned = "warning: replica test-2 lied"
        for _ in range(20):
            code, out, problems = await dwcp(directory, "get", "a")
            assert (code, out) == (0, b"a\n4\n")
            if warned in problems:
                return
        raise AssertionError("its lies always came later than the answer")

    cluster(tmp_path, scenario, liar=2)


def test_without_a_quorum_the_error_says_what_is_known(tmp_path: Path) -> None:
    async def scenario(processes: Processes, directory: Path) -> None:
        async with Client.from_directory(directory) as client:
            await client.put("a", "1")
            for place in processes.places[:2]:
                processes.signal(place, signal.SIGSTOP)
            with pytest.raises(errors.NotEnoughReplies, match="0 of the 2 matching replies"):
                await client.put("a", "2", timeout_ms=1500)
            for place in processes.places[:2]:
                processes.signal(place, signal.SIGCONT)
            assert (await client.put("a", "3")).revision >= 3
            kv = await client.get("a")
            assert kv is not None
            assert kv.value == b"3"

    cluster(tmp_path, scenario)


def test_operations_sent_together_keep_their_order(tmp_path: Path) -> None:
    async def scenario(_: Processes, directory: Path) -> None:
        async with Client.from_directory(directory) as client:
            await client.execute(*[PutRequest(b"n", b"%d" % i) for i in range(100)])
            kv = await client.get("n")
            assert kv is not None
            assert (kv.value, kv.version) == (b"99", 100)

    cluster(tmp_path, scenario)


def test_a_watch_outlives_a_killed_primary_and_sees_a_lease_end(tmp_path: Path) -> None:
    """Nobody asks for anything while the lease ends; one member is gone for good by then."""

    async def scenario(processes: Processes, directory: Path) -> None:
        async with Client.from_directory(directory) as client, client.watch("k") as watch:
            lease = await client.lease_grant(2)
            await client.put("k", "0", lease=lease.id)
            primary = await primary_of(processes, client)
            processes.kill(primary)
            async with asyncio.timeout(60):
                first, second = await anext(watch), await anext(watch)
            assert [event.type for event in (*first.events, *second.events)] == ["PUT", "DELETE"]
            for i in range(5):
                await client.put("k", str(i))
            async with asyncio.timeout(60):
                news = [await anext(watch) for _ in range(5)]
            assert [int(n.events[0].kv.value) for n in news] == list(range(5))
            assert [n.revision - news[0].revision for n in news] == list(range(5))

    cluster(tmp_path, scenario)


def test_the_command_line_keeps_leases_and_watches(tmp_path: Path) -> None:
    async def scenario(processes: Processes, directory: Path) -> None:
        code, out, problems = await dwcp(directory, "lease grant", "60")
        assert (code, problems) == (0, "")
        name = out.decode().split()[1]
        assert out.decode() == f"lease {name} granted with TTL(60s)\n"
        code, out, _ = await dwcp(directory, "put", "a/k", "v", "--lease", name)
        assert (code, out) == (0, b"OK\n")
        code, out, _ = await dwcp(directory, "lease timetolive", name, "--keys")
        assert b"attached keys([a/k])" in out
        code, out, _ = await dwcp(directory, "lease revoke", name, "-o", "json")
        assert code == 0
        code, out, _ = await dwcp(
            directory, "watch", "a/", "--prefix", "--rev", "1", "--count", "2"
        )
        assert (code, out) == (0, b"PUT\na/k\nv\nDELETE\na/k\n\n")

    cluster(tmp_path, scenario)
