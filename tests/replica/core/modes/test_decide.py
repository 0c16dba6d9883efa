"""The brief's thresholds as a table; hysteresis, dwell, cool-down, force and pin."""

from __future__ import annotations

from random import Random

import pytest

from dwcp_replica.core.modes.decide import (
    Decision,
    Mode,
    Rules,
    Switch,
    classify,
    consider,
    force,
    settle,
    switched,
)
from dwcp_replica.core.modes.reach import Reach, median

GBPS = 1_000_000_000
RULES = Rules()


@pytest.mark.parametrize(
    ("rtt_ms", "rate_gbps", "expected"),
    [
        (1, 10, Mode.DATACENTER),
        (9.999, 1, Mode.DATACENTER),
        (10, 1, Mode.HYBRID),
        (50, 1, Mode.HYBRID),
        (50.001, 10, Mode.INTERNET),
        (1, 0.999, Mode.INTERNET),
        (25, 0.5, Mode.INTERNET),
        (1, None, None),  # near, but nobody knows how wide: no data centre yet
        (25, None, Mode.HYBRID),
        (120, None, Mode.INTERNET),
        (None, 10, None),
        (None, 0.1, Mode.INTERNET),
        (None, None, None),
    ],
)
def test_the_thresholds(
    rtt_ms: float | None, rate_gbps: float | None, expected: Mode | None
) -> None:
    assert classify(network(rtt_ms, rate_gbps), RULES) is expected


def network(rtt_ms: float | None, rate_gbps: float | None = 10) -> Reach:
    return Reach(
        rtt_us=None if rtt_ms is None else round(rtt_ms * 1000),
        rate_bps=None if rate_gbps is None else round(rate_gbps * GBPS),
    )


@pytest.mark.parametrize(
    ("present", "rtt_ms", "expected"),
    [
        (Mode.DATACENTER, 10.9, Mode.DATACENTER),
        (Mode.DATACENTER, 11.2, Mode.HYBRID),
        (Mode.HYBRID, 9.2, Mode.HYBRID),
        (Mode.HYBRID, 9.0, Mode.DATACENTER),
        (Mode.HYBRID, 55, Mode.HYBRID),
        (Mode.INTERNET, 46, Mode.INTERNET),
        (Mode.INTERNET, 45, Mode.HYBRID),
        (Mode.INTERNET, None, Mode.INTERNET),
    ],
)
def test_the_present_mode_stays_within_the_hysteresis(
    present: Mode, rtt_ms: float | None, expected: Mode
) -> None:
    assert settle(present, network(rtt_ms), RULES) is expected


def test_a_switch_waits_for_the_dwell_and_then_for_the_cool_down() -> None:
    decision = Decision(Mode.INTERNET)
    decision, switch = consider(decision, network(1), 1_000, RULES)
    assert switch is None
    decision, switch = consider(decision, network(1), 20_999, RULES)
    assert switch is None
    decision, switch = consider(decision, network(1), 21_000, RULES)
    assert switch == Switch(Mode.DATACENTER, "network", network(1))
    decision = switched(decision, Mode.DATACENTER, 21_000)
    decision, _ = consider(decision, network(120), 22_000, RULES)
    decision, switch = consider(decision, network(120), 50_999, RULES)
    assert switch is None, "the cool-down is not over"
    decision, switch = consider(decision, network(120), 51_000, RULES)
    assert switch is not None
    assert switch.to is Mode.INTERNET


def test_one_dissenting_round_starts_the_dwell_anew() -> None:
    decision = Decision(Mode.INTERNET)
    for now_ms, rtt_ms in ((0, 1), (10_000, 120), (15_000, 1), (30_000, 1)):
        decision, switch = consider(decision, network(rtt_ms), now_ms, RULES)
        assert switch is None
    _, switch = consider(decision, network(1), 35_000, RULES)
    assert switch is not None


def test_a_forced_mode_is_honoured_at_once_and_until_it_is_released() -> None:
    decision = force(Decision(Mode.DATACENTER, switched_ms=0), Mode.INTERNET)
    decision, switch = consider(decision, network(1), 1, RULES)
    assert switch == Switch(Mode.INTERNET, "forced", network(1))
    decision = switched(decision, Mode.INTERNET, 1)
    for now_ms in range(10_000, 1_000_000, 10_000):  # lost on the next detection, once
        decision, switch = consider(decision, network(1), now_ms, RULES)
        assert switch is None
    decision = force(decision, None)
    decision, _ = consider(decision, network(1), 1_000_000, RULES)
    _, switch = consider(decision, network(1), 1_020_000, RULES)
    assert switch == Switch(Mode.DATACENTER, "network", network(1))


def test_a_back_off_after_a_fail_over_binds_automatic_switches() -> None:
    decision = Decision(Mode.INTERNET, switched_ms=0, cooldown_ms=120_000)
    decision, _ = consider(decision, network(1), 10_000, RULES)
    decision, switch = consider(decision, network(1), 119_999, RULES)
    assert switch is None
    _, switch = consider(decision, network(1), 120_000, RULES)
    assert switch is not None


def test_a_pinned_cluster_never_switches() -> None:
    decision = force(Decision(Mode.INTERNET, pinned=True), Mode.DATACENTER)
    for now_ms in range(0, 100_000, 10_000):
        decision, switch = consider(decision, network(1), now_ms, RULES)
        assert switch is None


@pytest.mark.parametrize("threshold_ms", [10, 50])
@pytest.mark.parametrize("seed", range(20))
def test_noise_at_a_threshold_does_not_make_the_mode_flap(threshold_ms: int, seed: int) -> None:
    """+-20% noise, for an hour of rounds every 10 s: the mode settles and stays."""
    rng = Random(seed)
    decision, switches = Decision(Mode.HYBRID), 0
    for now_ms in range(0, 3_600_000, 10_000):
        reports = [network(threshold_ms * rng.uniform(0.8, 1.2)) for _ in range(4)]
        decision, switch = consider(decision, median(reports, 4), now_ms, RULES)
        if switch is not None:
            switches += 1
            decision = switched(decision, switch.to, now_ms)
    assert switches <= 1, f"seed {seed}: {switches} switches in an hour at {threshold_ms} ms"


@pytest.mark.parametrize(
    "wrong", [{"rtt_low_us": 60_000}, {"hysteresis": 1.0}, {"dwell_ms": -1}, {"rtt_low_us": 0}]
)
def test_rules_that_make_no_sense_say_what_to_write(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"make|use"):
        Rules(**wrong)  # type: ignore[arg-type]
