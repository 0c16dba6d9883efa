"""Protocols forced under load: real members, and no operation lost or repeated."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from cli.steady import Steady
from cli.test_up import MANIFEST, Local, cluster  # noqa: F401 - a fixture
from dwcp.client import Client

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

PAUSE_S_MAX = 5.0
"""Far above what is measured (docs/switching.md): a machine that tests may be busy."""


def test_a_mode_is_forced_and_released_under_load(cluster: Local) -> None:  # noqa: F811
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    assert cluster.status()["mode"] == "Internet"
    asyncio.run(under_load(cluster))
    said = order(cluster, "anchor")
    assert '"epoch":3' in said


def order(cluster: Local, command: str, *arguments: str) -> str:  # noqa: F811
    """`dwcp admin`."""
    whole = [*cluster.command, "admin", command, "--data", str(cluster.root), *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=True).stdout


async def under_load(cluster: Local) -> None:  # noqa: F811
    async with Client.from_directory(Path(cluster.root)) as client:
        load = Steady(client, 16, "test")
        load.begin()
        for mode, runs in (("Datacenter", "Datacenter"), ("Internet", "Internet")):
            said = await asyncio.to_thread(order, cluster, "force-mode", mode)
            assert f"{mode} is held until it is released" in said
            tree = await asyncio.to_thread(cluster.status)
            assert tree["mode"] == runs
        said = await asyncio.to_thread(order, cluster, "force-mode", "release")
        assert "nothing is held" in said
        await load.end()
        assert load.operations > 100
        assert not load.errors
        assert await load.amiss() == (0, 0)
        assert load.pause_s(load.answers[0], load.answers[-1]) < PAUSE_S_MAX
