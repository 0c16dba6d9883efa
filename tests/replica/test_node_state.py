"""Real replicas: their logs are cut, and who is left behind or has lost its state fetches it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp.wire.operations import RangeRequest, RangeResponse
from dwcp_replica.durable.archive import read_archive
from replica.harness import Place, RawClient, Tasks
from replica.waiting import in_loop

LOG_BYTES = 60_000


async def write(cluster: Tasks, client: RawClient, places: list[Place], count: int) -> None:
    """So many entries, each answered by all of these."""
    for number in range(count):
        key = b"k%d" % (number % 11)
        replies = await cluster.http.post_all(places, client.put(key, bytes([number % 256]) * 300))
        client.agreed(replies)


async def value(cluster: Tasks, client: RawClient, places: list[Place], key: bytes) -> bytes:
    replies = await cluster.http.post_all(places, client.envelope(RangeRequest(key)))
    (result,) = client.agreed(replies)
    assert isinstance(result, RangeResponse)
    return result.kvs[0].value


async def all_at(cluster: Tasks, places: list[Place]) -> None:
    """Wait until all have executed the same."""

    async def equal() -> bool:
        found = [await cluster.http.status(place) for place in places]
        return len({status["appliedIndex"] for status in found}) == 1

    await cluster.http.eventually(equal, what="all have executed the same")


async def until_cut(cluster: Tasks, client: RawClient, place: Place) -> dict[str, Any]:
    """Write until this member has cut its log on disk."""
    for _ in range(60):
        await write(cluster, client, cluster.places, 10)
        status = await cluster.http.status(place)
        if status["snapshotIndex"] and status["logBytes"] < LOG_BYTES // 2:
            return status
    raise AssertionError(f"the log was never cut: {status}")


def segments(place: Place) -> list[str]:
    return sorted(path.name for path in (place.data / "wal").glob("*.seg"))


@pytest.mark.slow
@in_loop
async def test_the_log_is_cut_and_a_restart_needs_only_what_is_left(tmp_path: Path) -> None:
    async with Tasks(tmp_path, log_bytes=LOG_BYTES) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[2]
        status = await until_cut(cluster, client, place)
        assert segments(place)[0] != f"{1:016d}.seg"
        assert status["logBase"] > 0
        archived = read_archive(place.data / "archive")
        kept = [header.index for one in archived for header in one.headers]
        assert set(range(1, status["snapshotIndex"] - 20)) <= set(kept), "headers stay as evidence"
        before = await value(cluster, client, cluster.places, b"k3")
        await cluster.stop(place)
        cluster.start(place)
        await cluster.http.all_ready([place])
        await all_at(cluster, cluster.places)
        assert await value(cluster, client, cluster.places, b"k3") == before
        assert await cluster.http.metric(place, 'dwcp_state_transfers_total{reason="behind"}') == 0


@pytest.mark.slow
@in_loop
async def test_after_the_machine_stopped_it_goes_on_from_the_snapshot(tmp_path: Path) -> None:
    async with Tasks(tmp_path, log_bytes=LOG_BYTES) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[1]
        await until_cut(cluster, client, place)
        await write(cluster, client, cluster.places, 5)
        await cluster.stop(place)
        state = place.data / "state" / "state.json"
        other = {**msgspec.json.decode(state.read_bytes()), "boot_id": "other", "is_synced": False}
        state.write_bytes(msgspec.json.encode(other))
        cluster.start(place)
        await cluster.http.all_ready([place])
        await all_at(cluster, cluster.places)
        await write(cluster, client, cluster.places, 25)
        lost = 'dwcp_state_transfers_total{reason="state-lost"}'
        assert await cluster.http.metric(place, lost) == 0


@in_loop
async def test_a_member_that_was_away_fetches_the_state(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        away, others = cluster.places[3], cluster.places[:3]
        await write(cluster, client, cluster.places, 3)
        await cluster.stop(away)
        await write(cluster, client, others, 60)
        cluster.start(away)
        await cluster.http.all_ready([away])
        await all_at(cluster, cluster.places)
        assert await cluster.http.metric(away, 'dwcp_state_transfers_total{reason="behind"}') >= 1
        assert await cluster.http.metric(away, "dwcp_state_transfer_received_bytes_total") > 0
        await write(cluster, client, cluster.places, 25)
        stable = [(await cluster.http.status(p))["stableState"] for p in cluster.places]
        assert len(set(stable)) == 1


@pytest.mark.slow
@in_loop
async def test_a_lost_state_is_fetched_while_a_source_lies(tmp_path: Path) -> None:
    async with Tasks(tmp_path, liars={0: "lying-state"}, log_bytes=LOG_BYTES) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[3]
        await until_cut(cluster, client, place)
        await cluster.stop(place)
        shutil.rmtree(place.data / "state")
        cluster.start(place)
        await cluster.http.all_ready([place])
        await all_at(cluster, cluster.places)
        lost = 'dwcp_state_transfers_total{reason="state-lost"}'
        assert await cluster.http.metric(place, lost) == 1
        await write(cluster, client, cluster.places, 25)
        status = await cluster.http.status(place)
        assert status["mute"] is None
        assert status["stateTransfer"] is None
