"""Simulated lives: fixed seeds here, long campaigns by `dwcp sim --count`."""

from __future__ import annotations

import os
import secrets

import pytest

from dwcp_replica.sim.run import Report, Simulation, simulate
from dwcp_replica.sim.strategies import STRATEGIES


@pytest.mark.parametrize(
    "first", [1, 21, *(pytest.param(f, marks=pytest.mark.slow) for f in range(41, 181, 20))]
)
def test_fixed_seeds(first: int) -> None:
    reports = [simulate(seed) for seed in range(first, first + 20)]
    assert all(report.operations == 20 for report in reports)
    assert sum(report.views > 1 for report in reports) > 5, "the faults must bite"
    assert sum(report.crashes > 0 for report in reports) > 5


@pytest.mark.slow
def test_new_seeds() -> None:
    """Lives that nobody has seen: a failure names its seed, and that is the bug report."""
    for _ in range(int(os.environ.get("DWCP_SIM_SEEDS", "200"))):
        seed = secrets.randbits(32)
        print(f"replay: dwcp sim --seed {seed}")
        assert simulate(seed).operations == 20


def test_a_seed_fixes_everything() -> None:
    """Bytes hash differently in every process, so order must never come from a set."""
    first, second = simulate(7), simulate(7)
    assert first == second


@pytest.mark.parametrize("n", [4, 7])
def test_many_operations_cross_checkpoints(n: int) -> None:
    report = simulate(11, n=n, operations=200)
    assert report.operations == 200


def life_with_liars(strategy: str, n: int, seed: int) -> tuple[Report, Simulation]:
    """A life in which the last f members lie in one way."""
    liars = dict.fromkeys(range(n - (n - 1) // 3, n), strategy)
    life = Simulation(seed, n, liars=liars)
    return life.run(), life


@pytest.mark.parametrize("n", [4, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_is_outlived(strategy: str, n: int) -> None:
    for seed in range(3):
        report, _ = life_with_liars(strategy, n, seed)
        assert report.operations == 20


def test_a_client_names_the_member_that_answers_wrongly() -> None:
    _, life = life_with_liars("wrong-replies", 4, 5)
    named = set().union(*(client.session.lies for client in life.clients))
    assert named == {3}
