"""`dwcp admin replace`, `add`, `remove` and `dwcp scale`: real members change under load."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cli.test_up import MANIFEST, Local
from dwcp import Client

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

WRITERS = 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Local]:
    local = Local(tmp_path / "d")
    local.ok("up", "-f", str(MANIFEST), "--detach")
    yield local
    local.ok("down")


class Load:
    """Writers that count up under keys of their own; what was acknowledged must stay."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.counts = [0] * WRITERS
        self.stop = threading.Event()

    async def run(self) -> None:
        async with Client.from_directory(self.root) as client:
            await asyncio.gather(*(self._write(client, n) for n in range(WRITERS)))

    async def _write(self, client: Client, n: int) -> None:
        while not self.stop.is_set():
            await client.put(f"k{n}", str(self.counts[n] + 1))
            self.counts[n] += 1

    async def check(self) -> None:
        """A new client finds what was acknowledged last, written once and no more."""
        async with Client.from_directory(self.root) as client:
            for n, count in enumerate(self.counts):
                found = await client.get(f"k{n}")
                assert found is not None
                assert (found.value, found.version) == (str(count).encode(), count)


@contextmanager
def loaded(cluster: Local) -> Iterator[Load]:
    """Load while the block runs; then everything is checked."""
    load = Load(cluster.root)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, load.run())
        try:
            cluster.wait("the load to begin", lambda: min(load.counts) > 5 or running.done())
            yield load
            before = load.counts.copy()
            cluster.wait("writes after the change", lambda: load.counts > before or running.done())
        finally:
            load.stop.set()
        running.result(30)
    asyncio.run(load.check())


def names(cluster: Local) -> list[str]:
    return [member["name"] for member in cluster.status()["members"]]


def test_members_are_replaced_under_load_and_none_is_lost(cluster: Local) -> None:
    first = names(cluster)
    with loaded(cluster):
        cluster.ok("admin replace", first[1])
        assert names(cluster) == [first[0], "quickstart-4", first[2], first[3]]
        assert cluster.status()["epoch"] == 1
    assert not (cluster.root / "members" / first[1] / "identity.key").exists()
    cluster.wait("the old one to end", lambda: cluster.status()["learners"] == [])


def test_a_member_changes_its_key_under_load(cluster: Local) -> None:
    first = names(cluster)
    key = cluster.root / "members" / first[1] / "identity.key"
    before = key.read_bytes()
    with loaded(cluster):
        said = cluster.ok("admin rotate-key", first[1])
        assert f"{first[1]} has erased its old key" in said
        assert names(cluster) == first
        assert cluster.status()["epoch"] == 1
    assert key.read_bytes() != before
    assert {file.name for file in key.parent.glob("identity.*")} == {"identity.key"}
    done = cluster.dwcp("admin rotate-key", "quickstart-9")
    assert (done.returncode, "is no member of epoch 1" in done.stderr) == (1, True)


def test_a_member_that_lost_its_volume_comes_back_as_another(cluster: Local) -> None:
    first = names(cluster)
    cluster.ok("put", "k", "v")
    shutil.rmtree(cluster.root / "members" / first[0])
    psutil.Process(cluster.pids()[first[0]]).kill()
    cluster.wait(
        "the loss to be seen", lambda: cluster.condition("Degraded")["reason"] == "VolumeLost"
    )
    cluster.ok("admin replace", first[0])
    assert names(cluster) == ["quickstart-4", *first[1:]]
    assert cluster.condition("Degraded")["status"] == "False"
    assert "v" in cluster.ok("get", "k").split()


def test_four_become_seven_and_four_again_under_load(cluster: Local) -> None:
    first = names(cluster)
    with loaded(cluster):
        cluster.ok("scale", "--replicas", "7")
        assert names(cluster) == [*first, "quickstart-4", "quickstart-5", "quickstart-6"]
        cluster.ok("scale", "--replicas", "4")
        assert names(cluster) == first
    for refused, sentence in (
        (("scale", "--replicas", "5"), "5 members do not do"),
        (("admin add", "1"), "5 members do not do"),
        (("admin remove", first[0]), "3 members do not do"),
        (("admin replace", "quickstart-6"), "is no member of epoch 2"),
    ):
        done = cluster.dwcp(*refused)
        assert done.returncode == 1
        assert sentence in done.stderr


def test_a_change_is_refused_where_it_could_not_be_agreed_on(cluster: Local) -> None:
    members = names(cluster)
    for name, pid in cluster.pids().items():
        if name in members[2:]:
            assert pid is not None
            psutil.Process(pid).suspend()
    try:
        done = cluster.dwcp("admin replace", members[2])
    finally:
        for name, pid in cluster.pids().items():
            if name in members[2:]:
                assert pid is not None
                psutil.Process(pid).resume()
    assert done.returncode == 1
    assert "2 of 4 members vote, and 3 must agree on a change" in done.stderr
    assert cluster.status()["learners"] == []
