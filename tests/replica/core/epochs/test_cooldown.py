"""How often automatic switches may happen: the worst case is counted, not argued."""

from __future__ import annotations

import pytest

from dwcp_replica.core.epochs.cooldown import FORGIVEN_AFTER_MS, Cooldown

DAY_MS = 24 * 3600 * 1000
RAFT_LIVES_MS = 5000


def test_the_first_switch_waits_for_nothing_and_the_next_one_for_30_s() -> None:
    first = Cooldown()
    assert first.allows(0)
    after = first.switched(1000)
    assert not after.allows(30_999)
    assert after.allows(31_000)


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(1, 60), (2, 120), (3, 240), (11, 61_440), (12, 86_400), (40, 86_400)]
)
def test_fail_overs_double_the_wait_up_to_a_day(failures: int, wait_s: int) -> None:
    state = Cooldown()
    for _ in range(failures):
        state = state.failed(0)
    assert state.wait_ms() == wait_s * 1000


def test_24_healthy_hours_forgive_and_waiting_is_not_health() -> None:
    state = Cooldown()
    for _ in range(5):
        state = state.failed(0)
    wait_ms = state.wait_ms()
    assert state.failed(wait_ms + FORGIVEN_AFTER_MS - 1).failures == 6
    assert state.failed(wait_ms + FORGIVEN_AFTER_MS).failures == 1


def test_a_leader_that_always_fails_causes_few_switches_in_30_days() -> None:
    """Raft is tried as soon as it may be, and given up 5 s later, for 30 days."""
    now_ms, switches, state = 0, 0, Cooldown()
    while now_ms < 30 * DAY_MS:
        switches += 1
        state = state.failed(now_ms)
        now_ms += state.wait_ms() + RAFT_LIVES_MS
    assert switches == 40
    assert 30 * DAY_MS // (60_000 + RAFT_LIVES_MS) > 39_000, "with a fixed wait"


def test_the_worst_adversary_causes_at_most_210_switches_in_30_days() -> None:
    """It fails so many times, then behaves until it is forgiven, and begins anew."""

    def switches(failures: int) -> int:
        now_ms, count, state = 0, 0, Cooldown()
        while now_ms < 30 * DAY_MS:
            count += 1
            state = state.failed(now_ms)
            now_ms += state.wait_ms() + RAFT_LIVES_MS
            if state.failures == failures:
                now_ms += FORGIVEN_AFTER_MS
        return count

    counts = [switches(failures) for failures in range(1, 20)]
    assert max(counts) <= 210, counts
    assert max(counts) > 100, "the adversary must bite"
