"""When a leader hands over to one that is nearer to a quorum, and whom it does not believe."""

from __future__ import annotations

import pytest

from dwcp_replica.core.modes.placement import LEAST_US, better_leader

FAR = {1: 80_000, 2: 81_000, 3: 82_000}
"""I stand apart; the others stand together, 2 ms from each other."""
TRUE = {1: 2_000, 2: 2_000, 3: 2_000}


@pytest.mark.parametrize(
    ("mine_us", "links_us", "claims_us", "best"),
    [
        (81_000, FAR, TRUE, 1),
        (81_000, FAR, TRUE | {1: None}, 2),
        (None, FAR, TRUE, None),
        (81_000, FAR, {}, None),
        (81_000, FAR, dict.fromkeys(FAR, 60_000), None),
        (81_000, FAR, TRUE | {3: 50_000, 2: 55_000, 1: 56_000}, 3),
        (1_900, dict.fromkeys((1, 2, 3), 1_900), dict.fromkeys((1, 2, 3), 100), None),
        (81_000, FAR | {1: None}, TRUE, 2),
    ],
    ids=[
        "a far leader", "who says nothing", "nothing measured", "no reports", "not much better",
        "the best of them", "near enough", "a link that is not known",
    ],
)  # fmt: skip
def test_the_better_leader(
    mine_us: int | None, links_us: dict[int, int | None], claims_us: dict[int, int | None],
    best: int | None,
) -> None:  # fmt: skip
    assert better_leader(mine_us, links_us, claims_us) == best


def test_a_liar_that_is_far_away_does_not_get_the_lead_by_a_small_number() -> None:
    """I am in the middle of the others; it is 200 ms away from all of us, and says 0."""
    links = {1: 10_000, 2: 12_000, 3: 200_000}
    assert better_leader(12_000, links, {1: 14_000, 2: 15_000, 3: 0}) is None
    near = {1: 10_000, 2: 12_000, 3: 11_000}
    believed = better_leader(12_000, near, {1: 14_000, 2: 15_000, 3: 0})
    assert believed == 3, "who may be near can not be disproved: the caller hands over rarely"


def test_a_leader_does_not_move_for_less_than_it_costs() -> None:
    links = dict.fromkeys((1, 2, 3), 6_000)
    assert better_leader(6_000, links, dict.fromkeys(links, 6_000 - LEAST_US)) is None
