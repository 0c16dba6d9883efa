"""Modes in the simulator, 4 to 13 members, f of whose reporters lie, under load."""

from __future__ import annotations

from random import Random

import pytest

from dwcp.wire.records import ModePolicy
from dwcp_replica.core.modes.decide import Mode
from dwcp_replica.core.quorum import faults
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.moding import LIES, ModingLife, scenario

JOURNEY = ((1, Mode.DATACENTER), (25, Mode.HYBRID), (120, Mode.INTERNET), (1, Mode.DATACENTER))
SMALL = [(4, seed) for seed in range(3)]
LARGE = [pytest.param(n, n, marks=pytest.mark.slow) for n in (7, 10, 13)]


def lies_of(n: int, seed: int) -> dict[int, str]:
    dice = Random(f"{seed}/lies")
    return {m: dice.choice(sorted(LIES)) for m in dice.sample(range(n), faults(n))}


@pytest.mark.parametrize(("n", "seed"), [*SMALL, *LARGE])
def test_modes_settle_under_load_whatever_f_reporters_say(n: int, seed: int) -> None:
    """Round trips of 1, 25, 120 and 1 ms: one switch each, and every promise is kept."""
    lies = lies_of(n, seed)
    operations = 300 if n < 10 else 150
    life = ModingLife(scenario(seed, n, operations, think_ms=180_000 // operations), 1, lies)
    with hashes_remembered():
        for turn, (rtt_ms, mode) in enumerate(JOURNEY, 1):
            life.move(rtt_ms)
            assert life.settle(mode), f"{mode} at {rtt_ms} ms, where {lies} lie"
            assert {host.store.modes.state.switches for host in life.hosts} == {turn}
            last = life.hosts[0].store.modes.state.last
            assert last is not None
            assert (last.after, last.network.rtt_us) == (mode, rtt_ms * 1000)
        life.stop_measuring()
        report = life.end_well()
    assert report.epochs == 4, "Raft, and PBFT, and Raft again"
    assert report.operations == operations
    print(f"{n} members, lies {sorted(lies.values())}: {report.virtual_ms / 1000:.0f} s")


@pytest.mark.parametrize(
    ("n", "threshold_ms", "rounds"),
    [
        (4, 50, 50),
        pytest.param(4, 10, 50, marks=pytest.mark.slow),
        pytest.param(13, 50, 20, marks=pytest.mark.slow),
        pytest.param(13, 10, 10, marks=pytest.mark.slow),
    ],
)
def test_noise_at_a_threshold_makes_no_mode_flap(n: int, threshold_ms: int, rounds: int) -> None:
    """+-20 % in every measurement and f liars."""
    policy = ModePolicy(detect=True)
    life = ModingLife(
        scenario(threshold_ms, n, operations=30, think_ms=10_000, policy=policy),
        threshold_ms, lies_of(n, threshold_ms), noise=0.2,
    )  # fmt: skip
    with hashes_remembered():
        life.world.run(rounds * policy.measure_ms, lambda: False)
        switches = {host.store.modes.state.switches for host in life.hosts}
        life.stop_measuring()
        life.end_well()
    # a cluster begins in Internet: it may go to the one side of the threshold, once
    allowed = ({0}, {1}) if threshold_ms == 50 else ({1}, {2})
    assert switches in allowed, f"{switches} switches in {rounds} rounds"
