"""The log as a way for edits: deadlines that follow it, and peace while it is in trouble."""

from __future__ import annotations

from dwcp.logway import AGAIN_MS_MAX, DEADLINE_MS_MAX, DEADLINE_MS_MIN, LogWay


def test_the_deadline_follows_how_long_the_log_takes() -> None:
    way = LogWay()
    assert way.deadline_ms == DEADLINE_MS_MAX
    for _ in range(60):
        way.confirmed(5)
    assert way.deadline_ms == DEADLINE_MS_MIN
    for _ in range(60):
        way.confirmed(60)
    assert 230 <= way.deadline_ms <= 240
    for _ in range(60):
        way.confirmed(5_000)
    assert way.deadline_ms == DEADLINE_MS_MAX


def test_after_a_miss_edits_go_by_gossip_until_the_log_is_tried_again() -> None:
    way, now_ms = LogWay(), 10_000
    pauses = []
    for _ in range(8):
        assert way.is_open(now_ms)
        way.begun(now_ms)
        way.missed(now_ms)
        missed_ms = now_ms
        while not way.is_open(now_ms):
            now_ms += 100
        pauses.append(now_ms - missed_ms)
    assert pauses[:4] == [1_000, 2_000, 4_000, 8_000]
    assert pauses[-1] == AGAIN_MS_MAX
    way.begun(now_ms)
    assert not way.is_open(now_ms), "one edit tries it"
    way.confirmed(10)
    assert way.is_open(now_ms)


def test_while_the_log_is_well_edits_go_beside_each_other() -> None:
    way = LogWay()
    way.begun(0)
    assert way.is_open(0)
