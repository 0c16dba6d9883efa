"""Running members measure, report through the log and decide alike; what is news, what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp.wire.modes import NetworkReport
from dwcp.wire.records import ModePolicy, Parameters
from dwcp_replica.core.modes.decide import Mode, mode_in_force
from dwcp_replica.node.config import USUAL, Feature
from dwcp_replica.store.reporting import is_news
from replica.harness import Http, Place, RawClient, Tasks
from replica.proxy import Distance, Proxies
from replica.waiting import in_loop

QUICK_MODES = ModePolicy(
    detect=True, measure_ms=100, probe_bytes=65_536, rate_bps=1_000_000, dwell_ms=200,
    rtt_low_us=1_000_000, rtt_high_us=2_000_000,
)  # fmt: skip
REPORT = NetworkReport(5, 1000, 10, 0, 10**9)


def parameters(modes: ModePolicy) -> Parameters:
    return Parameters(checkpoint_interval=10, request_timeout_ms=2000, modes=modes)


async def decided(http: Http, places: list[Place]) -> list[dict[str, Any]]:
    return [(await http.status(place))["modes"] for place in places]


@in_loop
async def test_members_measure_report_and_decide_alike(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        http, places = cluster.http, cluster.places
        await cluster.operator.bootstrap(places, parameters(QUICK_MODES))

        async def all_say_datacenter() -> bool:
            return all(m["decided"] == "Datacenter" for m in await decided(http, places))

        await http.eventually(all_say_datacenter, what="Datacenter decided by all")
        said = await decided(http, places)
        switches = [m["lastSwitch"] for m in said]
        assert switches[0]["before"] == "Internet"
        assert switches[0]["reason"] == "network"
        assert 0 < switches[0]["network"]["rttUs"] < 1_000_000
        assert switches.count(switches[0]) == 4, "one decision, in the same place of the log"
        assert {m["switches"] for m in said} == {1}
        assert said[0]["reports"] == 4
        assert said[0]["reach"]["rateBps"] > 1_000_000


@in_loop
async def test_what_the_admin_holds_no_measurement_moves(tmp_path: Path) -> None:
    """The network asks for Raft, the epoch record holds PBFT: it stays until it is released."""
    async with Tasks(tmp_path) as cluster:
        http, places, operator = cluster.http, cluster.places, cluster.operator
        genesis = (await operator.bootstrap(places, parameters(QUICK_MODES))).record
        raw = RawClient(genesis, cluster.client)

        async def runs(protocol: str) -> bool:
            said = [await http.status(place) for place in places]
            return all(s["protocol"] == protocol and s["ready"] for s in said)

        async def order(**how: Any) -> None:
            await raw.follow(http, places[0])
            members = raw.records.current.members
            await operator.post(places, "orders", operator.order(raw.records, members, **how))

        await http.eventually(lambda: runs("raft"), what="Raft, as the network asks")
        await order(force="pbft")
        await http.eventually(lambda: runs("pbft"), what="PBFT, as the admin orders")
        stores = [one.running.store for one in cluster.running.values() if one.running is not None]
        since_ms = max(h.at_ms for store in stores for h in store.modes.state.reports)
        later_ms = since_ms + 15 * QUICK_MODES.measure_ms

        async def measured_on() -> bool:
            return all(h.at_ms > later_ms for s in stores for h in s.modes.state.reports)

        await http.eventually(measured_on, what="many rounds of measuring")
        assert await runs("pbft")
        said = await decided(http, places)
        assert {(m["decided"], m["forced"]) for m in said} == {("Datacenter", "Internet")}
        await order(release=True)
        await http.eventually(lambda: runs("raft"), what="Raft, as the network still asks")
        assert {m["forced"] for m in await decided(http, places)} == {None}


@in_loop
async def test_without_detection_links_are_measured_and_nothing_is_reported(tmp_path: Path) -> None:
    modes = ModePolicy(measure_ms=50, probe_bytes=0)
    async with Tasks(tmp_path) as cluster:
        http, places = cluster.http, cluster.places
        await cluster.operator.bootstrap(places, parameters(modes))

        async def measured() -> bool:
            return (await http.status(places[0]))["modes"]["reach"]["rttUs"] is not None

        await http.eventually(measured, what="round trips")
        status = await http.status(places[0])
        assert status["modes"]["reports"] == 0
        assert status["finalIndex"] <= 1, "an idle cluster without detection writes nothing"


@in_loop
async def test_a_member_without_a_feature_does_not_do_it(tmp_path: Path) -> None:
    """One that does not report: three do, and decide; nobody asks for what was decided."""
    features = {0: USUAL - {Feature.REPORT, Feature.SWITCH}}
    others = dict.fromkeys(range(1, 4), USUAL - {Feature.SWITCH})
    async with Tasks(tmp_path, features=features | others) as cluster:
        http, places = cluster.http, cluster.places
        await cluster.operator.bootstrap(places, parameters(QUICK_MODES))

        async def all_say_datacenter() -> bool:
            return all(m["decided"] == "Datacenter" for m in await decided(http, places))

        await http.eventually(all_say_datacenter, what="Datacenter decided by all")
        assert {m["reports"] for m in await decided(http, places)} == {3}
        rounds = cluster.running[places[1].name].running.modes.links
        seen = rounds.rounds

        async def later() -> bool:
            return rounds.rounds >= seen + 5

        await http.eventually(later, what="five rounds more")
        assert [(await http.status(place))["protocol"] for place in places] == ["pbft"] * 4


@in_loop
async def test_a_leader_far_from_the_others_hands_over_to_one_of_them(tmp_path: Path) -> None:
    modes = msgspec.structs.replace(QUICK_MODES, measure_ms=50, first="Datacenter")
    async with Tasks(tmp_path) as cluster:
        http, places = cluster.http, cluster.places
        far = {places[0].name: Distance(0.05)}
        async with Proxies(places, Distance(), far):
            cluster.operator.protocol = "raft"
            await cluster.operator.bootstrap(places, parameters(modes))
            assert (await http.status(places[1]))["primary"] == places[0].name

            async def another_leads() -> bool:
                said = [await http.status(place) for place in places]
                leaders = {status["primary"] for status in said if status["active"]}
                return len(leaders) == 1 and places[0].name not in leaders

            await http.eventually(another_leads, what="a leader that is near the others")
            name = "dwcp_leader_placements_total"
            assert await http.metric(places[0], name) == 1
            status = await http.status(places[0])
            assert (status["protocol"], status["epoch"]) == ("raft", 0), "no fail-over"


@pytest.mark.parametrize(
    ("now", "news"),
    [
        (NetworkReport(9, 1000, 10, 0, 10**9), False),
        (NetworkReport(9, 1099, 90, 5, 10**9), False),
        (NetworkReport(9, 1101, 10, 0, 10**9), True),
        (NetworkReport(9, 1000, 10, 0, 8 * 10**8), True),
        (NetworkReport(9, None, 10, 0, 10**9), True),
        (NetworkReport(9, 1000, 10, None, 10**9), True),
    ],
)
def test_what_is_worth_an_entry_of_the_log(now: NetworkReport, *, news: bool) -> None:
    assert is_news(REPORT, now) is news


@pytest.mark.parametrize(
    ("decides", "protocol", "runs"),
    [
        (Mode.INTERNET, "pbft", Mode.INTERNET),
        (Mode.HYBRID, "raft", Mode.HYBRID),
        (Mode.HYBRID, "pbft", Mode.INTERNET),
        (Mode.DATACENTER, "raft", Mode.DATACENTER),
        (Mode.DATACENTER, "pbft", Mode.INTERNET),
        (Mode.INTERNET, "raft", Mode.DATACENTER),
    ],
)
def test_the_mode_that_runs(decides: Mode, protocol: Any, runs: Mode) -> None:
    assert mode_in_force(decides, protocol) is runs
