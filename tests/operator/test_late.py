"""For how long members have been failing, by the status and by what has been seen since."""

from __future__ import annotations

from dataclasses import replace

from dwcp_operator.conditions import Situation, situation
from dwcp_operator.late import GRACE_S, failing_since, with_failing
from dwcp_operator.plan import Desired, GenesisHeld, MemberObserved, Observed, Report, Volume
from dwcp_operator.resources import ClusterStatus, Condition, MemberStatus

NAMES = tuple(f"demo-{i}" for i in range(4))
THEN, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def report(applied: int) -> Report:
    return Report(
        epoch=0, view=1, active=True, primary="demo-0", mode="Internet", role="backup",
        final_index=500, applied_index=applied, stable_checkpoint=0, stable_state="", ready=True,
        mute=None, evidence=(), seen_at="",
    )  # fmt: skip


def seen(*, down: int = 0, lags: bool = False, **changes: bool) -> Situation:
    """The last `down` members do not answer; the first one lags or does not."""
    members = tuple(
        MemberObserved(
            name=name,
            volume=Volume.PRESENT,
            running=True,
            report=report(10 if lags and not i else 500) if i < 4 - down else None,
        )
        for i, name in enumerate(NAMES)
    )
    held = GenesisHeld(b"g" * 32, dict.fromkeys(NAMES, b"k"), frozenset(NAMES), published=True)
    observed = Observed(keys=True, genesis=held, members=members)
    desired = replace(Desired(cluster="demo", members=NAMES), **changes)  # type: ignore[arg-type]
    return situation(desired, observed, ())


def status(lost_since: str | None = None, **since: str) -> ClusterStatus:
    available = Condition(
        type="Available", status="False" if lost_since else "True", reason="x", message="",
        observed_generation=1, last_transition_time=lost_since or THEN,
    )  # fmt: skip
    return ClusterStatus(
        conditions=(available,),
        members=tuple(
            MemberStatus(
                name=name, id=i, role="backup", endpoint="", ready=True,
                failing_since=since.get(name.replace("-", "_")),
            )
            for i, name in enumerate(NAMES)
        )
    )  # fmt: skip


def test_a_member_fails_since_it_was_first_seen_to() -> None:
    assert failing_since(seen(down=1), status(), LATER) == {"demo-3": LATER}
    assert failing_since(seen(down=1), status(demo_3=THEN), LATER) == {"demo-3": THEN}
    assert failing_since(seen(lags=True), None, LATER) == {"demo-0": LATER}
    assert failing_since(seen(), status(demo_3=THEN), LATER) == {}


def test_time_without_a_quorum_or_on_purpose_does_not_count() -> None:
    known = status(demo_3=THEN)
    assert failing_since(seen(down=2), status(THEN, demo_3=THEN), LATER) == {}
    assert failing_since(seen(down=1, paused=True), known, LATER) == {}
    assert failing_since(seen(down=1, hibernate=True), known, LATER) == {}


def test_a_change_of_the_view_starts_no_time_anew() -> None:
    """For a moment nobody votes in the same view: who has been gone for long is so still."""
    kept = {"demo-3": THEN}
    assert failing_since(seen(down=2), status(demo_3=THEN), LATER) == kept
    assert failing_since(seen(down=2), status(LATER, demo_3=THEN), LATER) == kept
    assert failing_since(seen(down=2), None, LATER) == {}


def failing_ms(watched_s: float, joining: tuple[MemberObserved, ...] = ()) -> list[int]:
    observed = replace(seen(down=1).observed, joining=joining)
    found = with_failing(observed, status(demo_3=THEN), LATER, watched_s)
    return [member.failing_for_ms for member in found.members]


def test_what_is_remembered_counts_once_it_was_watched_for_a_while() -> None:
    assert failing_ms(GRACE_S) == [0, 0, 0, 3_600_000]
    assert failing_ms(GRACE_S - 1) == [0, 0, 0, 59_000]
    assert failing_ms(0) == [0, 0, 0, 0]


def test_a_change_that_has_begun_goes_on_under_another_operator() -> None:
    assert failing_ms(0, (MemberObserved(name="demo-4"),)) == [0, 0, 0, 3_600_000]
