from __future__ import annotations

from typing import Any

import pytest

from dwcp_operator.act.events import RestartReason, restart_reason
from dwcp_operator.act.health import AGE_S_MAX, CONTACT_S_MAX, Health
from dwcp_operator.act.transitions import transitions
from dwcp_operator.modes import ModeSwitchStatus
from dwcp_operator.plan import SwitchSeen
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


def test_a_switch_is_told_once_with_the_numbers_that_led_to_it() -> None:
    numbers = SwitchSeen(
        "Internet", "Datacenter", "network", 70, "2026-01-01T00:00:00Z", rtt_us=1200
    )
    before = ClusterStatus(mode="Internet", epoch=0)
    after = ClusterStatus(mode="Datacenter", epoch=1, last_switch=ModeSwitchStatus.of(numbers))
    assert [(str(t.reason), t.note) for t in transitions(before, after)] == [
        ("ModeDecided", "Internet to Datacenter at index 70 (network): round trip 1.20 ms"),
        ("ModeSwitched", "Datacenter runs now, in epoch 1"),
    ]
    assert told(after, after) == []
    fallen = after.model_copy(update={"mode": "Internet", "epoch": 2})
    assert told(after, fallen) == ["ModeSwitched"], "a fail-over was not decided"


def test_a_suspicion_of_f_plus_one_members_is_told_once() -> None:
    calm = status(1, "True")
    (member,) = calm.members
    suspect = member.model_copy(update={"suspicion": "lagging"})
    worse = calm.model_copy(update={"members": (suspect,)})
    assert told(calm, worse) == ["MemberSuspected"]
    assert told(worse, worse) == []


def test_liveness_is_lost_only_when_rounds_hang() -> None:
    away = Health(leads=True, age_s=1.0, contact_age_s=CONTACT_S_MAX + 1)
    assert away.problem() is None
    assert "API server" in (away.hindrance() or "")
    hung = Health(leads=True, age_s=AGE_S_MAX + 1, contact_age_s=0.0)
    assert "round" in (hung.problem() or "")
    assert Health(leads=False, age_s=None, contact_age_s=0.0).hindrance() is None
