from __future__ import annotations

from dwcp_operator.act.steady import LOOKS, Steadiness
from dwcp_operator.resources import ClusterStatus, Condition


def status(verdict: str, reason: str) -> ClusterStatus:
    available = Condition(
        type="Available",
        status=verdict,  # type: ignore[arg-type]
        reason=reason,
        message="",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    return ClusterStatus(conditions=(available,))


THERE, LOST = status("True", "QuorumVotes"), status("False", "QuorumLost")


def test_a_quorum_that_one_look_misses_is_not_told_as_lost() -> None:
    steady = Steadiness()
    for _ in range(3):
        assert [steady.doubts(THERE, LOST) for _ in range(LOOKS - 1)] == [True] * (LOOKS - 1)
        assert not steady.doubts(THERE, THERE)


def test_one_that_is_lost_is_told_after_a_few_looks() -> None:
    steady = Steadiness()
    told = [not steady.doubts(THERE, LOST) for _ in range(LOOKS)]
    assert told == [False] * (LOOKS - 1) + [True]
    assert not steady.doubts(LOST, LOST), "what was told is no longer in doubt"


def test_nothing_else_is_held_back() -> None:
    steady = Steadiness()
    assert not steady.doubts(None, LOST)
    assert not steady.doubts(LOST, THERE)
    assert not steady.doubts(THERE, status("False", "Hibernated"))
    assert not steady.doubts(status("False", "Bootstrapping"), LOST)
