"""etcdctl 3.6.8, as etcd ships it, against the gateway's gRPC port."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client.gateway.running import Running, running
from dwcp.wire.operations import PutRequest
from peers.build import ensure
from replica.ports import free_port

pytestmark = [pytest.mark.slow]
WAIT_S = 15


@pytest.fixture(scope="module")
def etcdctl() -> Path:
    return ensure("etcd") / "etcdctl"


class Etcdctl:
    def __init__(self, program: Path, address: str) -> None:
        self._program = program
        self._address = address

    async def start(self, *words: str, stdin: bytes = b"") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            self._program, "--endpoints", self._address, *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    async def fails(self, *words: str) -> str:
        process = await self.start(*words)
        async with asyncio.timeout(WAIT_S):
            _, problem = await process.communicate()
        assert process.returncode != 0, words
        return problem.decode()

    async def run(self, *words: str, stdin: bytes = b"") -> list[str]:
        process = await self.start(*words, stdin=stdin)
        async with asyncio.timeout(WAIT_S):
            out, problem = await process.communicate()
        assert process.returncode == 0, (words, problem.decode())
        return out.decode().splitlines()

    async def json(self, *words: str) -> Any:
        return json.loads("\n".join(await self.run(*words, "-w", "json")))


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        return (await process.stdout.readline()).decode().strip()


async def end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    async with asyncio.timeout(WAIT_S):
        await process.communicate()


Scenario = Callable[[Etcdctl, Running], Awaitable[None]]


def with_etcdctl(program: Path, scenario: Scenario) -> None:
    async def run() -> None:
        async with running() as found:
            await scenario(Etcdctl(program, found.address), found)

    asyncio.run(run())


def test_keys_transactions_and_compaction(etcdctl: Path) -> None:
    async def scenario(ctl: Etcdctl, _: Running) -> None:
        assert await ctl.run("put", "foo", "bar") == ["OK"]
        assert await ctl.run("put", "foo1", "bar1", "--prev-kv") == ["OK"]
        assert await ctl.run("get", "foo", "--prefix") == ["foo", "bar", "foo1", "bar1"]
        assert await ctl.run("get", "foo", "--print-value-only", "--rev", "2") == ["bar"]
        assert await ctl.run("get", "", "--prefix", "--count-only", "-w", "fields") != []
        done = await ctl.run(
            "txn", stdin=b'value("foo") = "bar"\n\nput foo changed\nget foo1\n\nput foo no\n\n'
        )
        assert done == ["SUCCESS", "", "OK", "", "foo1", "bar1"]
        assert await ctl.run("del", "foo", "--prev-kv") == ["1", "foo", "changed"]
        revision = (await ctl.json("get", "foo"))["header"]["revision"]
        assert await ctl.run("compaction", str(revision)) == [f"compacted revision {revision}"]
        problem = await ctl.fails("get", "foo1", "--rev", "2")
        assert "required revision has been compacted" in problem
        assert "key is not provided" in await ctl.fails("put", "", "x")

    with_etcdctl(etcdctl, scenario)


def test_watch(etcdctl: Path) -> None:
    async def scenario(ctl: Etcdctl, _: Running) -> None:
        await ctl.run("put", "w/1", "one")
        watching = await ctl.start("watch", "w/", "--prefix", "--rev", "2", "--prev-kv")
        assert [await line_of(watching) for _ in range(3)] == ["PUT", "w/1", "one"]
        await ctl.run("put", "other", "x")
        await ctl.run("put", "w/1", "two")
        seen = [await line_of(watching) for _ in range(5)]
        assert seen == ["PUT", "w/1", "one", "w/1", "two"]
        await ctl.run("del", "w/1")
        assert [await line_of(watching) for _ in range(3)] == ["DELETE", "w/1", "two"]
        await end(watching)
        await ctl.run("compaction", "4")
        assert "required revision has been compacted" in await ctl.fails("watch", "w", "--rev", "1")

    with_etcdctl(etcdctl, scenario)


def test_leases(etcdctl: Path) -> None:
    async def scenario(ctl: Etcdctl, _: Running) -> None:
        (granted,) = await ctl.run("lease", "grant", "60")
        lease = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(60s\)", granted)
        assert lease is not None
        await ctl.run("put", "k", "v", "--lease", lease[1])
        (kept,) = await ctl.run("lease", "keep-alive", "--once", lease[1])
        assert kept == f"lease {lease[1]} keepalived with TTL(60)"
        (standing,) = await ctl.run("lease", "timetolive", lease[1], "--keys")
        assert "granted with TTL(60s)" in standing
        assert "attached keys([k])" in standing
        assert await ctl.run("lease", "list") == ["found 1 leases", lease[1]]
        assert await ctl.run("lease", "revoke", lease[1]) == [f"lease {lease[1]} revoked"]
        assert await ctl.run("get", "k") == []
        assert "requested lease not found" in await ctl.fails("lease", "revoke", lease[1])

    with_etcdctl(etcdctl, scenario)


def test_lock_and_elect(etcdctl: Path) -> None:
    async def scenario(ctl: Etcdctl, _: Running) -> None:
        first = await ctl.start("lock", "mutex")
        held = await line_of(first)
        assert held.startswith("mutex/")
        second = await ctl.start("lock", "mutex")
        waiting = asyncio.create_task(line_of(second))
        assert (await ctl.run("get", "mutex", "--prefix", "--keys-only"))[0] == held
        assert not waiting.done()
        await end(first)
        assert (await waiting).startswith("mutex/")
        await end(second)
        leading = await ctl.start("elect", "post", "me")
        key = await line_of(leading)
        assert await line_of(leading) == "me"
        listening = await ctl.start("elect", "--listen", "post")
        assert [await line_of(listening) for _ in range(2)] == [key, "me"]
        await end(listening)
        await end(leading)

    with_etcdctl(etcdctl, scenario)


def test_maintenance_members_and_users(etcdctl: Path, tmp_path: Path) -> None:
    async def scenario(ctl: Etcdctl, found: Running) -> None:
        await ctl.run("put", "kept", "v" * 10_000)
        await ctl.run("put", "kept2", "v")
        (status,) = await ctl.json("endpoint", "status")
        assert (status["Status"]["version"], status["Status"]["header"]["revision"]) == ("3.6.0", 3)
        assert "is healthy" in " ".join(await ctl.run("endpoint", "health"))
        (hashed,) = await ctl.json("endpoint", "hashkv")
        assert hashed["HashKV"]["hash"] > 0
        assert "Finished defragmenting" in (await ctl.run("defrag"))[0]
        assert await ctl.run("alarm", "list") == []
        listed = (await ctl.json("member", "list"))["members"]
        names = [member.name for member in found.client.genesis.members]
        assert [member["name"] for member in listed] == names
        assert "the cluster's resource" in await ctl.fails("member", "remove", "1234")
        assert (await ctl.run("auth", "status"))[0] == "Authentication Status: false"
        clients = [client.name for client in found.client.genesis.clients]
        assert await ctl.run("user", "list") == clients
        assert await ctl.run("user", "get", clients[0]) == [
            f"User: {clients[0]}", f"Roles: {clients[0]} root",
        ]  # fmt: skip

    with_etcdctl(etcdctl, scenario)


def test_etcd_goes_on_from_a_snapshot(etcdctl: Path, tmp_path: Path) -> None:
    """etcd's own tool restores it, and etcd's server has the keys, their revisions, the lease."""
    values = {f"k/{n:04}": "v" * n for n in range(0, 9000, 45)}

    async def scenario(ctl: Etcdctl, found: Running) -> None:
        await found.client.execute(
            *(PutRequest(key.encode(), value.encode()) for key, value in values.items())
        )
        (granted,) = await ctl.run("lease", "grant", "600")
        lease = granted.split()[1]
        await ctl.run("put", "leased", "v", "--lease", lease)
        await ctl.run("put", "gone", "v")
        await ctl.run("del", "gone")
        before = await ctl.json("get", "", "--prefix")
        file = tmp_path / "keys.db"
        await ctl.run("snapshot", "save", str(file))
        async with etcd_from(etcdctl.parent, file, tmp_path) as address:
            etcd = Etcdctl(etcdctl, address)
            after = await etcd.json("get", "", "--prefix")
            assert after["kvs"] == before["kvs"]
            assert after["header"]["revision"] == before["header"]["revision"]
            (standing,) = await etcd.run("lease", "timetolive", lease, "--keys")
            assert "attached keys([leased])" in standing
            await etcd.run("put", "next", "v")

    with_etcdctl(etcdctl, scenario)


@asynccontextmanager
async def etcd_from(programs: Path, snapshot: Path, place: Path) -> AsyncIterator[str]:
    peer, client = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    names = ("--name", "one", "--initial-cluster", f"one={peer}", "--data-dir", str(place / "etcd"))
    restored = await asyncio.create_subprocess_exec(
        programs / "etcdutl", "snapshot", "restore", snapshot, *names,
        "--initial-advertise-peer-urls", peer, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, problem = await restored.communicate()
    assert restored.returncode == 0, problem.decode()
    server = await asyncio.create_subprocess_exec(
        programs / "server", *names, "--listen-peer-urls", peer, "--listen-client-urls", client,
        "--initial-advertise-peer-urls", peer, "--advertise-client-urls", client,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield client
    finally:
        server.terminate()
        await server.wait()
