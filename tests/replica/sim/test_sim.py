"""Simulated lives: fixed seeds here, long campaigns by `dwcp sim campaign`."""

from __future__ import annotations

import os
import secrets
import time

import pytest

from dwcp.wire.records import Protocol
from dwcp_replica.sim.campaign import Failed, Summary, campaign, write_summary
from dwcp_replica.sim.page import marks
from dwcp_replica.sim.planting import Setting
from dwcp_replica.sim.registry import LIARS, LIARS_OF
from dwcp_replica.sim.run import Report, Simulation, simulate
from dwcp_replica.sim.scenario import (
    Alarmed,
    Amnesia,
    Crash,
    Cut,
    Fault,
    Full,
    Lose,
    Refresh,
    Replace,
    Resize,
    Rot,
    Slow,
    Switch,
    derive,
)


@pytest.mark.parametrize(
    "first", [1, *(pytest.param(f, marks=pytest.mark.slow) for f in (41, *range(100, 400, 25)))]
)
def test_fixed_seeds(first: int) -> None:
    reports = [simulate(seed) for seed in range(first, first + 25)]
    assert all(report.operations == 20 for report in reports)
    assert sum(report.views > 1 for report in reports) > 15, "the faults must bite"
    assert sum(report.crashes > 0 for report in reports) > 15


@pytest.mark.parametrize(
    "seed",
    [
        *(9, 5197, 3439004223, 2592473921, 621630155, 3104582126, 43895082, 2374473205),
        *(1477546461, 1477543784, 1477549554),
        pytest.param(4147393888, marks=pytest.mark.slow),
    ],
)
def test_lives_that_once_failed(seed: int) -> None:
    """9, 5197: the state at the stable checkpoint was shown no more, while others waited for it.
    3439004223: a member whose log and state were damaged caught up, and asked for no state.
    2592473921: new members fetched a state of the ended epoch that nobody kept any more.
    621630155: a primary that never saw the new members kept the admin's order back for ever.
    3104582126: a read asked of four members was answered by as many as may lie among seven.
    43895082: a liar that claimed a checkpoint was asked for it again with every answer, at once.
    4147393888: a mute member executed first what a record made final, and the checker objected.
    2374473205: the checker counted a vote that stood in memory, and nothing rested on yet.
    1477546461: a history that had begun anew above the state that a restart found was executed on.
    1477543784, 1477549554: restarted in an epoch's first view, beside a checkpoint that stood for
    what came before, a member took no part in it; three of them waited for ever."""
    assert simulate(seed).operations == 20


@pytest.mark.slow
def test_a_campaign_of_lives_that_nobody_has_seen() -> None:
    """A failure names its seed, and that is the bug report."""
    seconds = float(os.environ.get("DWCP_SIM_SECONDS", "60"))
    began_s = time.monotonic()
    failures: list[Failed] = []
    summary = campaign(
        secrets.randbits(32), lambda _: time.monotonic() - began_s > seconds, failures.append
    )
    print(f"{summary.runs} lives, {summary.recovered_ms_max} virtual ms at most to recover")
    assert not failures, [f"{failed.what}\nreplay: {failed.replay}" for failed in failures]
    assert summary.with_crash_or_view_change > 0.9 * summary.runs


def test_a_seed_fixes_everything() -> None:
    """Bytes hash differently in every process, so order must never come from a set."""
    assert simulate(7) == simulate(7)


def test_every_seed_has_a_crash_or_a_silent_primary() -> None:
    for seed in range(200):
        assert isinstance(derive(seed).faults[0], Crash | Cut)


def test_every_lie_and_fault_is_drawn_and_never_more_than_f_are_faulty() -> None:
    lives = [derive(seed) for seed in range(800)]
    assert {lie for life in lives for lie in life.liars.values()} == set(LIARS)
    assert {life.n for life in lives} == {1, 3, 4, 5, 7, 10, 13}
    kinds = {type(fault) for life in lives for fault in life.faults}
    assert kinds == {
        *(Crash, Cut, Slow, Full, Lose, Rot, Amnesia),
        *(Refresh, Replace, Resize, Switch, Alarmed),
    }
    assert all(len(life.faulty) <= (life.n - 1) // 3 for life in lives)
    assert {(life.protocol, life.trust) for life in lives} == {
        ("pbft", "Byzantine"),
        ("raft", "Byzantine"),
        ("raft", "Crash"),
    }
    assert not any(life.faulty for life in lives if life.trust == "Crash")


def test_leaving_a_fault_out_changes_no_other_choice() -> None:
    assert derive(5).faults == derive(5, operations=3).faults
    assert derive(5).liars == derive(5, operations=3).liars


@pytest.mark.parametrize("n", [4, 7])
def test_many_operations_cross_checkpoints(n: int) -> None:
    life = Setting(n=n, operations=200, interval=10).scenario(11)
    report = Simulation(life).run()
    assert report.operations == 200
    assert report.executed >= 100


@pytest.mark.parametrize("n", [10, pytest.param(13, marks=pytest.mark.slow)])
def test_larger_clusters(n: int) -> None:
    assert simulate(3, n=n, operations=6).operations == 6


def life_with_liars(
    strategy: str, n: int, seed: int, protocol: Protocol = "pbft"
) -> tuple[Report, Simulation]:
    """A life in which the last f members lie in one way, or the first."""
    f = (n - 1) // 3
    first = 0 if seed % 2 else n - f
    liars = dict.fromkeys(range(first, first + f), strategy)
    life = Simulation(Setting(n=n, liars=liars, protocol=protocol).scenario(seed))
    return life.run(), life


@pytest.mark.parametrize("n", [4, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("protocol", "strategy"),
    [(protocol, lie) for protocol in ("pbft", "raft") for lie in sorted(LIARS_OF[protocol])],
)
def test_every_strategy_is_outlived(protocol: Protocol, strategy: str, n: int) -> None:
    for seed in range(3):
        report, _ = life_with_liars(strategy, n, seed, protocol)
        assert report.operations == 20


@pytest.mark.parametrize("n", [1, 3, 5])
def test_members_that_trust_each_other(n: int) -> None:
    for seed in range(5):
        report = Simulation(Setting(n=n, protocol="raft").scenario(seed)).run()
        assert (report.trust, report.operations) == ("Crash", 20)


def test_a_two_faced_leader_is_convicted_and_nobody_else() -> None:
    found = [life_with_liars("two-faced-leader", 4, seed, "raft")[1] for seed in (7, 9, 11)]
    convicted = {
        proof.member
        for life in found
        for host in life.hosts
        if host.honest
        for proof in host.core.standing().evidence
    }
    assert convicted == {0}


def test_a_client_names_the_member_that_answers_wrongly() -> None:
    _, life = life_with_liars("wrong-replies", 4, 6)
    named = set().union(*(client.session.lies for client in life.clients))
    assert named == {3}


def test_an_equivocator_is_convicted_and_nobody_else() -> None:
    found = [life_with_liars("equivocate", 4, seed)[1] for seed in (7, 9, 11)]
    convicted = {
        proof.member
        for life in found
        for host in life.hosts
        if host.honest
        for proof in host.core.standing().evidence
    }
    assert convicted == {0}


@pytest.mark.parametrize("tail", [True, False])
def test_a_damaged_log_makes_a_replica_mute_until_it_can_not_have_voted(tail: bool) -> None:
    faults: tuple[Fault, ...] = (Rot(2, 500, 100, tail=tail),)
    life = Simulation(Setting(n=4, liars={}, faults=faults).scenario(4))
    life.run()
    standing = life.hosts[2].core.standing()
    if tail:  # it asked for an epoch in which it can not have voted, and speaks again
        assert standing.mute is None
        assert standing.epoch > 0
    else:
        assert standing.mute == "damaged middle", "what it can not write down it must not say"
    assert standing.applied == life.hosts[0].core.standing().applied > 0


def test_a_member_without_its_volume_does_not_come_back() -> None:
    life = Simulation(Setting(n=4, liars={}, faults=(Amnesia(0, 300),)).scenario(4))
    assert life.run().operations == 20
    assert not life.hosts[0].up


def test_a_campaign_is_written_between_its_marks() -> None:
    lived: list[int] = []
    summary = campaign(5, lambda count: lived.append(count) or count == 3, lambda _: None)  # type: ignore[func-returns-value]
    begin, end = marks("campaign")
    page = write_summary(f"a\n{begin}\nold\n{end}\nb\n", summary, 6.0, "abc1234")
    assert "3 lives in 6 s (30 a minute), 0 violations, first seed 5, at commit abc1234" in page
    assert f"| operations answered | {summary.operations} |" in page
    assert "old" not in page
    assert page.endswith("b\n")


def test_a_failed_life_is_written_with_its_replay() -> None:
    summary = Summary(1, runs=1, violations=1)
    summary.failures.append(Failed(1, "Violation: agreement: ...", "dwcp sim --seed 1"))
    page = write_summary("\n".join(marks("campaign")), summary, 1.0, "abc1234")
    assert "1 violations" in page
    assert "`dwcp sim --seed 1`" in page
