from __future__ import annotations

from typing import Any

import pytest

from dwcp_operator.act.events import RestartReason, restart_reason
from dwcp_operator.act.health import AGE_S_MAX, CONTACT_S_MAX, Health
from dwcp_operator.act.transitions import transitions
from dwcp_operator.resources import ClusterStatus, Condition, MemberStatus


@pytest.mark.parametrize(
    ("terminated", "reason"),
    [
        ({"exitCode": 137}, RestartReason.KILLED),
        ({"exitCode": 137, "reason": "OOMKilled"}, RestartReason.OUT_OF_MEMORY),
        ({"exitCode": 70}, RestartReason.FAULT),
        ({"exitCode": 0}, RestartReason.STOPPED),
        ({}, RestartReason.OTHER),
    ],
)
def test_restarts_have_reasons(terminated: dict[str, Any], reason: RestartReason) -> None:
    assert restart_reason(terminated) is reason


def condition(kind: Any, status: Any) -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason="R",
        message="m",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
    )


def status(view: int, available: str, *, ready: bool = True) -> ClusterStatus:
    member = MemberStatus(name="demo-0", id=0, role="backup", endpoint="http://x", ready=ready)
    return ClusterStatus(
        view=view,
        primary="demo-0",
        members=(member,),
        conditions=(condition("Available", available), condition("Degraded", "False")),
    )


def told(before: ClusterStatus | None, after: ClusterStatus) -> list[str]:
    return [str(t.reason) for t in transitions(before, after)]


def test_a_new_cluster_tells_no_trouble() -> None:
    assert told(None, ClusterStatus(conditions=(condition("Available", "False"),))) == []


def test_the_story_of_a_lost_primary() -> None:
    up, down = status(1, "True"), status(2, "False", ready=False)
    assert told(up, down) == ["MemberNotReady", "ViewChanged", "Unavailable"]
    assert told(down, status(2, "True")) == ["MemberReady", "Available"]
    assert told(up, up) == []


def test_liveness_is_lost_only_when_rounds_hang() -> None:
    away = Health(leads=True, age_s=1.0, contact_age_s=CONTACT_S_MAX + 1)
    assert away.problem() is None
    assert "API server" in (away.hindrance() or "")
    hung = Health(leads=True, age_s=AGE_S_MAX + 1, contact_age_s=0.0)
    assert "round" in (hung.problem() or "")
    assert Health(leads=False, age_s=None, contact_age_s=0.0).hindrance() is None
