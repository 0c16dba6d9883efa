"""What is predicted and what the engine takes: within 15% at the median."""

from __future__ import annotations

from random import Random

import pytest

from dwcp.wire.records import Protocol
from dwcp_replica.sim.calibration import Case, compare, deal, error_at_median

SIZES = (4, 7, 10, 13)
CASES = {4: 6, 7: 4, 10: 2, 13: 1}


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_predictions_are_within_15_percent_at_the_median(protocol: Protocol) -> None:
    dice = Random(protocol)
    found = [
        compare(deal(dice, n, protocol), seed)
        for n in SIZES
        for seed in range(CASES[n])
    ]  # fmt: skip
    off = error_at_median(found)
    worst = max(found, key=lambda one: one.error)
    print(
        f"{protocol}: off by {off:.1%} at the median of {len(found)} cases, {worst.error:.1%} at "
        f"worst ({worst.predicted_ms:.0f} ms for {worst.measured_ms:.0f} ms)"
    )
    assert off <= 0.15


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_the_leader_that_is_predicted_to_be_quickest_is_quicker_than_the_slowest(
    protocol: Protocol,
) -> None:
    sites = ("Frankfurt", "Frankfurt", "Virginia", "Sydney")
    turns = [Case(protocol, sites[k:] + sites[:k], "Frankfurt") for k in range(4)]
    by_place = {case.answer_ms()[1]: case for case in turns}
    best, worst = compare(by_place[min(by_place)], 1), compare(by_place[max(by_place)], 1)
    assert best.measured_ms < worst.measured_ms
    assert best.predicted_ms < worst.predicted_ms
