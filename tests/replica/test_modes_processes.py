"""Four processes whose network changes under load: 1 ms, 25 ms, 120 ms and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp.client import Client
from dwcp.wire.records import ModePolicy, Parameters
from replica.harness import Http, Operator, Place, Processes
from replica.proxy import Distance, Proxies
from replica.waiting import in_loop

pytestmark = [pytest.mark.processes]

MODES = ModePolicy(
    detect=True, measure_ms=400, dwell_ms=800, cooldown_ms=1000, probe_bytes=65_536,
    rate_bps=1_000_000, rtt_low_us=18_000,
)  # fmt: skip
PARAMETERS = Parameters(checkpoint_interval=50, request_timeout_ms=10_000, modes=MODES)
"""Patient, since a machine that others use too starves processes for seconds: a leader that is
given up is a fail-over, which has a test of its own."""
SETTLES_S = 60.0


async def statuses(http: Http, places: list[Place]) -> list[dict[str, Any]]:
    return [await http.status(place) for place in places]


async def settled(http: Http, places: list[Place], mode: str) -> dict[str, Any]:
    """What one of them says as soon as all run this mode."""
    said: list[dict[str, Any]] = []

    async def all_run_it() -> bool:
        said[:] = await statuses(http, places)
        return all(s["mode"] == s["modes"]["decided"] == mode for s in said)

    try:
        await http.eventually(all_run_it, what=f"{mode} everywhere", seconds=SETTLES_S)
    except AssertionError as error:
        shown = [(s["epoch"], s["mode"], s["modes"]) for s in said]
        raise AssertionError(f"{error}: {json.dumps(shown)}") from None
    return said[0]


class Load:
    """Somebody who writes one key after the other, and counts what was acknowledged."""

    def __init__(self, client: Client) -> None:
        self.acknowledged = 0
        self.revisions: list[int] = []
        self._client = client

    async def run(self) -> None:
        while True:
            put = await self._client.put("counter", str(self.acknowledged))
            self.acknowledged += 1
            self.revisions.append(put.revision)

    async def check(self) -> None:
        """Every acknowledged write was executed once."""
        found = await self._client.range("counter")
        version = found.kvs[0].version
        assert version in (self.acknowledged, self.acknowledged + 1), "the last one was cut off"
        assert len(set(self.revisions)) == self.acknowledged


@in_loop
async def test_the_mode_follows_the_network_and_loses_nothing(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        places, distance = processes.places, Distance(0.0005)
        async with Proxies(places, distance), Http() as http:
            processes.start_all()
            genesis = await Operator(http, [processes.client]).bootstrap(places, PARAMETERS)
            (tmp_path / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
            processes.client.save(tmp_path / "client.key")
            async with Client.from_directory(tmp_path) as client:
                load = Load(client)
                running = asyncio.create_task(load.run())
                seen = []
                for one_way_s, mode in (
                    (0.0005, "Datacenter"), (0.0125, "Hybrid"), (0.06, "Internet"),
                    (0.0005, "Datacenter"),
                ):  # fmt: skip
                    distance.one_way_s = one_way_s
                    status = await settled(http, places, mode)
                    seen.append(status["modes"]["lastSwitch"])
                    before = load.acknowledged
                    await http.eventually(
                        lambda before=before: _grows(load, before), what=f"writes in {mode}"
                    )
                running.cancel()
                await asyncio.wait([running])
                await load.check()
        assert [s["after"] for s in seen] == ["Datacenter", "Hybrid", "Internet", "Datacenter"]
        assert all(s["before"] != s["after"] for s in seen)
        assert {s["reason"] for s in seen} == {"network"}
        rtts_ms = [s["network"]["rttUs"] / 1000 for s in seen]
        assert rtts_ms[0] < 18 < rtts_ms[1] < 50 < rtts_ms[2], "the numbers that led to it"


async def _grows(load: Load, before: int) -> bool:
    return load.acknowledged > before
