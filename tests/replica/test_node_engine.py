"""Durable first: what the shell promises about disks that are slow, full or broken.

Real replicas in this event loop; only the disk of one of them is made to misbehave.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dwcp.wire.envelope import Reply
from dwcp_replica.durable import DiskFailure
from dwcp_replica.node import engine
from dwcp_replica.node.running import StateDivergedError
from replica.harness import Place, Tasks
from replica.waiting import in_loop, until

SYNC = os.fdatasync
WRITE = os.write


def _on(fd: int, place: Place) -> bool:
    return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(place.data)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@in_loop
async def test_nothing_is_sent_before_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary's disk stands still: no backup may see what it proposes meanwhile."""
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        primary = cluster.places[0]
        held, release = threading.Event(), threading.Event()

        def slow(fd: int) -> None:
            if _on(fd, primary):
                held.set()
                assert release.wait(20)
            SYNC(fd)

        monkeypatch.setattr(os, "fdatasync", slow)
        before = await cluster.http.status(cluster.places[1])
        posts = [
            asyncio.create_task(cluster.http.post(primary, client.put(b"k%d" % n)))
            for n in range(3)
        ]
        await until(held.is_set, what="the primary's disk at work")
        core = cluster.running[primary.name].running
        assert core is not None
        # it goes on stepping: the proposals are made, and wait for the disk
        await until(lambda: core.engine.standing.last > before["lastIndex"], what="proposed")
        await cluster.http.status(primary)
        for place in cluster.places[1:]:
            status = await cluster.http.status(place)
            assert status["lastIndex"] == before["lastIndex"], place.name
        assert not core.engine.idle
        release.set()
        replies = await asyncio.gather(*posts)
        assert all(isinstance(reply, Reply) for reply in replies)


@in_loop
async def test_one_sync_serves_all_that_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        primary = cluster.places[0]
        gate, syncs = threading.Semaphore(0), []

        def counted(fd: int) -> None:
            if _on(fd, primary):
                syncs.append(fd)
                assert gate.acquire(timeout=20)
            SYNC(fd)

        before = await cluster.http.metric(primary, "dwcp_executed_requests_total")
        monkeypatch.setattr(os, "fdatasync", counted)
        posts = [
            asyncio.create_task(cluster.http.post(primary, client.put(b"k%d" % n)))
            for n in range(64)
        ]
        await until(lambda: syncs, what="the first sync")
        core = cluster.running[primary.name].running
        assert core is not None
        await until(lambda: core.engine.standing.pending == 64, what="all submitted")
        gate.release(1000)
        await asyncio.gather(*posts)
        assert await cluster.http.metric(primary, "dwcp_executed_requests_total") == before + 64
        assert len(syncs) < 30


@in_loop
async def test_a_failed_sync_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        backup = cluster.places[2]

        def failing(fd: int) -> None:
            if _on(fd, backup):
                raise OSError(errno.EIO, "planted")
            SYNC(fd)

        monkeypatch.setattr(os, "fdatasync", failing)
        assert isinstance(await cluster.http.post(cluster.places[0], client.put(b"k")), Reply)
        with pytest.raises(BaseExceptionGroup) as caught:
            await asyncio.wait_for(cluster.ended(backup), 10)
        assert [type(error) for error in _leaves(caught.value)] == [DiskFailure]
        assert isinstance(await cluster.http.post(cluster.places[0], client.put(b"k2")), Reply)


@in_loop
async def test_a_full_disk_stops_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DISK_FULL_RETRY_S", 0.01)
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        backup = cluster.places[1]
        running = cluster.running[backup.name].running
        assert running is not None

        def full(fd: int, data: bytes) -> int:
            if _on(fd, backup):
                raise OSError(errno.ENOSPC, "planted")
            return WRITE(fd, data)

        monkeypatch.setattr(os, "write", full)
        envelope = client.put(b"k")
        assert isinstance(await cluster.http.post(cluster.places[0], envelope), Reply)
        await until(lambda: running.engine.disk_full, what="noticed")
        assert (await cluster.http.status(backup))["reason"] == "the disk is full"
        assert await cluster.http.metric(backup, "dwcp_disk_full") == 1
        code, _, headers = await _post_code(cluster, backup, client.put(b"k2"))
        assert (code, headers["Retry-After"]) == (503, "1")
        monkeypatch.setattr(os, "write", WRITE)
        await until(lambda: not running.engine.disk_full, what="recovered")
        assert isinstance(await cluster.http.post(backup, client.put(b"k3")), Reply)
        assert await cluster.http.is_ready(backup)


async def _post_code(
    cluster: Tasks, place: Place, envelope: object
) -> tuple[int, bytes, dict[str, str]]:
    body = msgspec.msgpack.encode(envelope)
    return await cluster.http.call("POST", f"{place.url}/dwcp/v1/envelopes", body)


@in_loop
async def test_a_replica_whose_state_differs_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        odd = cluster.places[3]
        running = cluster.running[odd.name].running
        assert running is not None
        monkeypatch.setattr(running.store, "digest", _other(running.store.digest))
        for n in range(12):
            await cluster.http.post(cluster.places[0], client.put(b"k%d" % n))
        with pytest.raises(BaseExceptionGroup) as caught:
            await asyncio.wait_for(cluster.ended(odd), 10)
        (error,) = _leaves(caught.value)
        assert isinstance(error, StateDivergedError)
        assert str(odd.data) in str(error)
        assert isinstance(await cluster.http.post(cluster.places[0], client.put(b"k")), Reply)


def _other(digest: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: bytes(byte ^ 1 for byte in digest())
