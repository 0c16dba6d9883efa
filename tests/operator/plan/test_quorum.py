from __future__ import annotations

from itertools import combinations

import pytest

from dwcp_operator.plan import faulty_max, quorum


@pytest.mark.parametrize(
    ("n", "f", "q"), [(1, 0, 1), (4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (10, 3, 7), (13, 4, 9)]
)
def test_known_values(n: int, f: int, q: int) -> None:
    assert (faulty_max(n), quorum(n)) == (f, q)


@pytest.mark.parametrize("n", range(4, 10))
def test_any_two_quorums_share_more_members_than_may_lie(n: int) -> None:
    quorums = [set(q) for q in combinations(range(n), quorum(n))]
    shared = min(len(a & b) for a in quorums for b in quorums)
    assert shared >= faulty_max(n) + 1
    smaller = [set(q) for q in combinations(range(n), quorum(n) - 1)]
    assert min(len(a & b) for a in smaller for b in smaller) < faulty_max(n) + 1


@pytest.mark.parametrize("f", range(1, 10))
def test_a_quorum_remains_without_the_faulty(f: int) -> None:
    assert quorum(3 * f + 1) == 2 * f + 1
