"""Predictions: the floors in message delays, the best leader, and what makes no sense."""

from __future__ import annotations

import pytest

from dwcp_replica.core.modes.predict import Costs, Matrix, predict, ranking


def uniform(n: int, delay_ms: float = 1.0) -> Matrix:
    return [[0.0 if i == j else delay_ms for j in range(n)] for i in range(n)]


@pytest.mark.parametrize("n", [4, 7, 10, 13])
@pytest.mark.parametrize(
    ("protocol", "trust", "delays"),
    [("pbft", "Byzantine", 5), ("raft", "Byzantine", 7), ("raft", "Crash", 4)],
)
def test_the_floor_in_one_way_delays(n: int, protocol: str, trust: str, delays: int) -> None:
    found = predict(protocol, 0, uniform(n), trust=trust, client_ms=[1.0] * n)  # type: ignore[arg-type]
    assert found.answer_ms == delays


def test_one_far_member_costs_nothing_and_two_cost_their_distance() -> None:
    def away(*far: int) -> Matrix:
        return [
            [0.0 if i == j else 100.0 if i in far or j in far else 1.0 for j in range(4)]
            for i in range(4)
        ]

    assert predict("pbft", 0, away(3)).commit_ms == predict("pbft", 0, uniform(4)).commit_ms
    assert predict("pbft", 0, away(2, 3)).commit_ms > 200


def test_the_best_leader_sits_in_the_middle() -> None:
    places = [0, 40, 45, 50]
    delay_ms = [[abs(a - b) / 1 for b in places] for a in places]
    for protocol in ("pbft", "raft"):
        best = ranking(protocol, delay_ms)  # type: ignore[arg-type]
        assert best[0].leader in {1, 2}
        assert best[-1].leader == 0
        assert [p.commit_ms for p in best] == sorted(p.commit_ms for p in best)


def test_disks_and_handling_cost_as_many_rounds_as_there_are() -> None:
    dear = predict("pbft", 0, uniform(4, 0.0), costs=Costs(persist_ms=1.0))
    assert dear.commit_ms == 2.0, "a prepare and a commit, each written down first"
    dear = predict("raft", 0, uniform(4, 0.0), costs=Costs(persist_ms=1.0))
    assert dear.commit_ms == 2.0, "an ack and a cert-ack"


@pytest.mark.parametrize(
    ("matrix", "client", "words"),
    [
        ([[0.0, 1.0], [1.0]], None, "2 rows of 2"),
        ([[0.0, -1.0], [1.0, 0.0]], None, "negative"),
        (uniform(4), [1.0], "1 delays for 4"),
    ],
)
def test_delays_that_make_no_sense_are_refused(
    matrix: Matrix, client: list[float] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        predict("pbft", 0, matrix, client_ms=client)


def test_pbft_is_not_offered_under_crash_trust() -> None:
    with pytest.raises(ValueError, match="use raft"):
        predict("pbft", 0, uniform(3), trust="Crash")
