"""One figure per replica and quantity; the median of the replicas, whatever f of them say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_replica.core.modes.reach import Link, Reach, median, reach


def links(*rtts: int | None) -> list[Link]:
    return [Link(rtt_us=rtt) for rtt in rtts]


@pytest.mark.parametrize(
    ("rtts", "n", "expected"),
    [
        ((1000, 2000, 90_000), 4, 2000),  # a quorum of 4 is 3: me and the two nearest
        ((1000, 2000, None), 4, 2000),
        ((1000, None, None), 4, None),
        ((1, 2, 3, 4, 5, 6), 7, 4),
        ((), 1, None),
    ],
)
def test_the_link_that_completes_a_quorum_counts(
    rtts: tuple[int | None, ...], n: int, expected: int | None
) -> None:
    assert reach(links(*rtts), n).rtt_us == expected


def test_of_rates_the_highest_complete_a_quorum() -> None:
    rates = [Link(rate_bps=rate) for rate in (10**9, 5 * 10**9, 10**6)]
    assert reach(rates, 4).rate_bps == 10**9


def test_crash_trust_needs_a_majority_only() -> None:
    assert reach(links(7, 9), 3, "Crash").rtt_us == 7


def test_what_nobody_knows_stays_unknown() -> None:
    assert reach([Link()] * 3, 4) == Reach()
    assert median([Reach()] * 4, 4) == Reach()


def test_fewer_than_a_quorum_of_reports_decide_nothing() -> None:
    said = Reach(rtt_us=5)
    assert median([said] * 2, 4).rtt_us is None
    assert median([said] * 3, 4).rtt_us == 5


@given(st.data())
def test_f_liars_can_not_move_the_median_past_the_honest(data: st.DataObject) -> None:
    f = data.draw(st.integers(1, 4))
    n = 3 * f + 1
    q = 2 * f + 1
    numbers = st.integers(0, 10**6)
    liars = data.draw(st.lists(numbers, min_size=f, max_size=f))
    honest = data.draw(st.lists(numbers, min_size=q - f, max_size=n - f))
    found = median([Reach(rtt_us=v) for v in liars + honest], n).rtt_us
    assert found is not None
    assert min(honest) <= found <= max(honest)
