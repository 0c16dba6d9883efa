"""Replicas as processes: kill -9, SIGTERM, wrong directories, damaged logs."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dwcp.wire.envelope import Reply
from dwcp.wire.operations import RangeRequest, RangeResponse
from dwcp.wire.records import Parameters
from replica.harness import Http, Operator, Place, Processes, RawClient
from replica.waiting import in_loop

pytestmark = pytest.mark.processes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


async def _bootstrap(
    http: Http, cluster: Processes, parameters: Parameters | None = None
) -> RawClient:
    cluster.start_all()
    operator = Operator(http, [cluster.client])
    genesis = await operator.bootstrap(cluster.places, parameters or Parameters(10, 1000))
    client = RawClient(genesis.record, cluster.client)
    replies = await http.post_all(cluster.places, client.opening())
    client.agreed(replies)
    client.opened(replies[0])
    return client


async def _values(http: Http, places: list[Place], client: RawClient) -> list[bytes]:
    """The values of the keys that start with k, as all replicas agree on them."""
    replies = await http.post_all(places, client.envelope(RangeRequest(b"k", b"l")))
    (result,) = client.agreed(replies)
    assert isinstance(result, RangeResponse)
    return [kv.value for kv in result.kvs]


def _events(cluster: Processes, place: Place) -> list[dict[str, object]]:
    lines = cluster.log(place).read_text().splitlines()
    return [json.loads(line) for line in lines]


@in_loop
async def test_kill_9_and_restart_keep_everything(cluster: Processes) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster)
        for n in range(5):
            client.agreed(await http.post_all(cluster.places, client.put(b"k%d" % n, b"%d" % n)))
        killed = cluster.places[2]
        cluster.kill(killed)
        rest = [place for place in cluster.places if place is not killed]
        for n in range(5, 15):
            client.agreed(await http.post_all(rest, client.put(b"k%d" % n, b"%d" % n)))
        cluster.start(killed)
        await http.eventually(lambda: http.is_ready(killed), what="ready again")
        expected = sorted((b"k%d" % n, b"%d" % n) for n in range(15))
        assert await _values(http, cluster.places, client) == [value for _, value in expected]
        for place in cluster.places:
            cluster.kill(place)
        cluster.start_all()
        await http.all_ready(cluster.places)
        assert await _values(http, cluster.places, client) == [value for _, value in expected]
        states = {(await http.status(place))["revision"] for place in cluster.places}
        assert states == {16}


@in_loop
async def test_sigterm_hands_over_and_leaves_in_time(cluster: Processes) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster)
        primary = cluster.places[0]
        assert (await http.status(primary))["role"] == "primary"
        began = time.monotonic()
        cluster.signal(primary, signal.SIGTERM)
        assert await asyncio.to_thread(cluster.wait, primary) == 0
        assert time.monotonic() - began < 5
        for place in cluster.places[1:]:
            status = await http.status(place)
            assert (status["view"], status["primary"]) == (2, "test-1")
        client.agreed(await http.post_all(cluster.places[1:], client.put(b"k", b"v")))
        events = [event["event"] for event in _events(cluster, primary)]
        assert events[-1] == "stopped"
        assert "handed-over" in events
        backup = cluster.places[3]
        began = time.monotonic()
        cluster.signal(backup, signal.SIGINT)
        assert await asyncio.to_thread(cluster.wait, backup) == 0
        assert time.monotonic() - began < 2


@in_loop
async def test_a_lone_replica_leaves_in_time_too(cluster: Processes) -> None:
    async with Http() as http:
        await _bootstrap(http, cluster)
        for place in cluster.places[1:]:
            cluster.kill(place)
        began = time.monotonic()
        cluster.signal(cluster.places[0], signal.SIGTERM)
        assert await asyncio.to_thread(cluster.wait, cluster.places[0]) == 0
        assert time.monotonic() - began < 5


@in_loop
async def test_the_primary_dies_and_the_rest_goes_on(cluster: Processes) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster, Parameters(10, 300))
        primary = cluster.places[0]
        cluster.kill(primary)
        rest = cluster.places[1:]
        client.agreed(await http.post_all(rest, client.put(b"k", b"v")))
        changes = 0.0
        for place in rest:
            for reason in ("timeout", "silent", "joined"):
                name = f'dwcp_view_changes_total{{reason="{reason}"}}'
                changes += await http.metric(place, name)
        assert changes >= 3
        cluster.start(primary)
        await http.eventually(lambda: http.is_ready(primary), what="ready again")
        assert await _values(http, cluster.places, client) == [b"v"]


@in_loop
async def test_a_directory_serves_one_process(cluster: Processes) -> None:
    async with Http() as http:
        place = cluster.places[0]
        cluster.start(place)
        await http.eventually(lambda: http.is_up(place), what="up")
        code, said = await asyncio.to_thread(cluster.run, place)
        event = json.loads(said)
        assert code == 75
        assert (event["event"], event["reason"]) == ("start-refused", "locked")
        assert "in use by process" in event["detail"]
        assert await http.is_up(place)
        assert await http.metric(place, "dwcp_data_directory_refusals") == 1


@pytest.mark.parametrize(
    ("spoil", "reason"), [("foreign", "foreign"), ("missing", "missing"), ("key", "lost-identity")]
)
@in_loop
async def test_a_wrong_directory_is_refused(cluster: Processes, spoil: str, reason: str) -> None:
    async with Http() as http:
        place = cluster.places[0]
        cluster.start(place)
        await http.eventually(lambda: http.is_up(place), what="up")
        cluster.signal(place, signal.SIGTERM)
        assert await asyncio.to_thread(cluster.wait, place) == 0
        match spoil:
            case "foreign":
                place.data = cluster.places[1].data
                (place.data / "notes.txt").write_text("mine")
            case "missing":
                place.data = cluster.directory / "nowhere"
            case "key":
                (place.data / "identity.key").unlink()
        code, said = await asyncio.to_thread(cluster.run, place)
        event = json.loads(said)
        assert code == 78
        assert (event["event"], event["reason"]) == ("start-refused", reason)
        cluster.start(place, DWCP_STAY_ON_REFUSAL="1")
        await http.eventually(lambda: http.is_up(place), what="up, refusing")
        code, body, _ = await http.call("GET", f"{place.url}/readyz")
        assert (code, msgspec.json.decode(body)["reason"]) == (503, event["detail"])
        assert await http.metric(place, f'dwcp_start_refused{{reason="{reason}"}}') == 1
        status = await http.status(place)
        assert (status["phase"], status["ready"]) == ("Refused", False)
        assert status["reason"] == event["detail"]
        for path in ("identity", "connect"):
            code, _, _ = await http.call("GET", f"{place.url}/dwcp/v1/{path}")
            assert code == 503
        cluster.signal(place, signal.SIGTERM)
        assert await asyncio.to_thread(cluster.wait, place) == 0


@in_loop
async def test_another_members_directory_is_refused(cluster: Processes) -> None:
    async with Http() as http:
        await _bootstrap(http, cluster)
        place, other = cluster.places[0], cluster.places[1]
        cluster.kill(place)
        cluster.kill(other)
        place.data = other.data
        code, said = await asyncio.to_thread(cluster.run, place)
        assert (code, json.loads(said)["reason"]) == (78, "foreign")


def _segment(place: Place) -> Path:
    (segment,) = (place.data / "wal").glob("*.seg")
    return segment


@pytest.mark.parametrize("kind", ["tail", "middle"])
@in_loop
async def test_a_damaged_log_makes_mute(cluster: Processes, kind: str) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster)
        for n in range(12):
            client.agreed(await http.post_all(cluster.places, client.put(b"k%d" % n, b"v")))
        place = cluster.places[3]
        cluster.kill(place)
        segment = _segment(place)
        content = bytearray(segment.read_bytes())
        content[-20 if kind == "tail" else len(content) // 2] ^= 0xFF
        segment.write_bytes(content)
        for start in range(2):
            cluster.start(place)
            await http.eventually(lambda: http.is_up(place), what="up")

            async def caught_up() -> bool:
                first, mine = [await http.status(p) for p in (cluster.places[0], place)]
                return bool(mine["appliedIndex"] == first["appliedIndex"])

            async def voting_again() -> bool:
                """The others end the epoch for it; above that it may sign (epochs.md)."""
                mine = await http.status(place)
                return mine["mute"] is None and mine["epoch"] >= 1

            await http.eventually(caught_up, what="learned the rest")
            if kind == "tail":
                await http.eventually(voting_again, what="votes in a later epoch")
                assert await http.metric(place, "dwcp_muted") == 0
            else:
                status = await http.status(place)
                assert (status["mute"], status["ready"]) == (f"damaged {kind}", False)
                assert status["reason"] == f"mute: damaged {kind}"
                assert await http.metric(place, "dwcp_muted") == 1
                # it executes and answers, and the others do without its votes
                client.agreed(await http.post_all(cluster.places, client.put(b"m%d" % start)))
            found = await http.metric(place, f'dwcp_wal_damage_total{{kind="{kind}"}}')
            assert found == (start == 0 or kind == "middle"), "a healed tail is damage no more"
            cluster.kill(place)


@in_loop
async def test_an_unfinished_write_is_harmless(cluster: Processes) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster)
        client.agreed(await http.post_all(cluster.places, client.put(b"k", b"v")))
        place = cluster.places[3]
        cluster.kill(place)
        segment = _segment(place)
        segment.write_bytes(segment.read_bytes()[:-3])
        cluster.start(place)
        await http.eventually(lambda: http.is_ready(place), what="ready")
        assert await http.metric(place, 'dwcp_wal_damage_total{kind="unfinished"}') == 1
        assert await _values(http, cluster.places, client) == [b"v"]


@in_loop
async def test_a_full_disk_recovers_without_a_restart(cluster: Processes) -> None:
    async with Http() as http:
        client = await _bootstrap(http, cluster)
        place = cluster.places[1]
        pid = (await http.status(place))["pid"]
        # its files may grow no further: the kernel says EFBIG, which is one kind of full
        size = _segment(place).stat().st_size
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, unlimited))
        rest = [p for p in cluster.places if p is not place]
        client.agreed(await http.post_all(rest, client.put(b"k", b"v")))

        async def is_full() -> bool:
            return bool(await http.metric(place, "dwcp_disk_full"))

        await http.eventually(is_full, what="the full disk noticed")
        assert not await http.is_ready(place)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        await http.eventually(lambda: http.is_ready(place), what="ready again")
        assert await _values(http, cluster.places, client) == [b"v"]


@in_loop
async def test_a_port_in_use_ends_with_a_fault(cluster: Processes) -> None:
    async with Http() as http:
        first, second = cluster.places[:2]
        cluster.start(first)
        await http.eventually(lambda: http.is_up(first), what="up")
        second.client_port = first.client_port
        code, said = await asyncio.to_thread(cluster.run, second)
        assert code == 70
        fault = json.loads(said.splitlines()[-1])
        assert fault["event"] == "fault"
        assert "address already in use" in fault["detail"].lower()


@in_loop
async def test_plain_asyncio_on_request(cluster: Processes) -> None:
    async with Http() as http:
        place = cluster.places[0]
        cluster.start(place, DWCP_NO_UVLOOP="1")
        await http.eventually(lambda: http.is_up(place), what="up")
        cluster.signal(place, signal.SIGTERM)
        assert await asyncio.to_thread(cluster.wait, place) == 0
        assert _events(cluster, place)[0]["event"] == "uvloop-off"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--client-listen", "nowhere"], "is not HOST:PORT"),
        (["--client-listen", "127.0.0.1:70000"], "is not HOST:PORT"),
        (["--log-format", "xml"], "'xml' is not one of"),
        (["--token-file", "/nonexistent"], "does not exist"),
        (["--no-such-option"], "No such option"),
        (["--test-strategy", "lie"], "DWCP_ALLOW_TEST_STRATEGIES=1"),
    ],
)
def test_bad_arguments(cluster: Processes, more: list[str], says: str) -> None:
    code, said = cluster.run(cluster.places[0], *more)
    assert code == 78
    assert says in said


def test_an_unknown_test_strategy(cluster: Processes) -> None:
    more = ("--test-strategy", "no-such")
    code, said = cluster.run(cluster.places[0], *more, DWCP_ALLOW_TEST_STRATEGIES="1")
    assert code == 78
    assert "there is no test strategy 'no-such'" in said


def test_assertions_are_not_optional(cluster: Processes) -> None:
    code, said = cluster.run(cluster.places[0], options=["-O"])
    assert code == 78
    assert "without -O" in said


@in_loop
async def test_one_liar_changes_no_answer(cluster: Processes) -> None:
    async with Http() as http:
        liar = cluster.places[3]
        for place in cluster.places[:3]:
            cluster.start(place)
        allowed = {"DWCP_ALLOW_TEST_STRATEGIES": "1"}
        cluster.start(liar, "--test-strategy", "wrong-replies", **allowed)
        operator = Operator(http, [cluster.client])
        genesis = await operator.bootstrap(cluster.places)
        client = RawClient(genesis.record, cluster.client)
        replies = await http.post_all(cluster.places, client.opening())
        client.agreed(replies[:3])
        client.opened(replies[0])
        await http.post_all(cluster.places, client.put(b"k", b"true"))
        answers = await http.post_all(cluster.places, client.envelope(RangeRequest(b"k")))
        client.agreed(answers[:3])
        assert isinstance(answers[3], Reply)
        assert answers[3].results != answers[0].results
