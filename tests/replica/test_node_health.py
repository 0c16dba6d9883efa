"""Who is healthy, and who is suspected: a table."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from dwcp.wire.peer import Status
from dwcp_replica.core.effects import Tick
from dwcp_replica.core.standing import Standing
from dwcp_replica.node.health import PATIENCE_TIMEOUTS, SILENT_MS_MAX, Contact, illness, suspicion
from replica.core.conversation import Conversation

STATUS = Status(epoch=0, view=1, active=True, last=1, prepared=1, final=1, stable=0)


def standing(*, requests: int = 0) -> Standing:
    """Of a backup whose primary is cut off from it, so that requests wait."""
    talk = Conversation(timeout_ms=400)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.isolate(1)
    for value in range(requests):
        talk.submit(1, "b", str(value))
    talk.replicas[1].step(Tick(talk.now_ms + 1, 1_700_000_000_000))
    return talk.replicas[1].standing()


PATIENCE_MS = PATIENCE_TIMEOUTS * 400


@pytest.mark.parametrize(
    ("requests", "later_ms", "unable_ms", "commit_age_ms", "said"),
    [
        (0, 10**9, None, None, None),
        (0, 10**9, None, 10**9, None),
        (0, 0, PATIENCE_MS, 0, None),
        (0, 0, PATIENCE_MS + 1, 0, "without a view that works for 1.2 s"),
        (1, 100, None, None, None),
        (1, PATIENCE_MS + 1000, None, 10, None),
        (1, PATIENCE_MS + 1000, None, 10**9, "1 requests wait, and none was final for 2.2 s"),
        (2, PATIENCE_MS + 1000, None, None, "2 requests wait, and none was final for 2.2 s"),
    ],
    ids=[
        "idle since the start", "idle for long", "a view changes", "views fail",
        "a request came just now", "others commit", "nothing is committed", "nor ever was",
    ],
)  # fmt: skip
def test_healthy_is_who_commits_or_is_idle_and_able_to(
    requests: int, later_ms: int, unable_ms: int | None, commit_age_ms: int | None, said: str | None
) -> None:
    seen = standing(requests=requests)
    now_ms = (seen.waits_since_ms or 0) + later_ms
    assert illness(seen, now_ms, unable_ms, commit_age_ms) == said


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Contact(STATUS, 10), None),
        (Contact(None, None), "unheard"),
        (Contact(None, 10), "unheard"),
        (Contact(STATUS, SILENT_MS_MAX + 1), "silent"),
        (Contact(STATUS, 10, lied=True), "lied"),
        (Contact(msgspec.structs.replace(STATUS, mute=True), 10), "mute"),
    ],
)
def test_a_suspicion_has_a_reason(other: Contact, said: str | None) -> None:
    assert suspicion(standing(), other) == said


def test_a_member_of_an_old_epoch_and_one_that_lags_are_suspected() -> None:
    mine = standing()
    later = msgspec.structs.replace(mine.record, epoch=2)
    assert (
        suspicion(dataclasses.replace(mine, epoch=2, record=later), Contact(STATUS, 10))
        == "old-epoch"
    )
    ahead = dataclasses.replace(mine, final=102)
    assert suspicion(ahead, Contact(STATUS, 10)) == "lagging"
    assert suspicion(dataclasses.replace(mine, final=101), Contact(STATUS, 10)) is None
