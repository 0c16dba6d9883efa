"""Which revision is wanted, what is remembered, and that a rolled-back change does not loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dwcp_operator.conditions import situation
from dwcp_operator.plan import GenesisHeld, MemberObserved, Observed, Report, Step, Volume, plan
from dwcp_operator.plan.steps import ReportRollFailed
from dwcp_operator.resources import ClusterStatus, DWCPCluster, UpgradeStatus
from dwcp_operator.upgrade import RollReason, desired, roll_reason, rollout, upgrade_status
from kube.subjects import resource

NAMES = tuple(f"demo-{i}" for i in range(4))
HELD = GenesisHeld(b"g" * 32, dict.fromkeys(NAMES, b"k"), frozenset(NAMES), published=True)
REPORT = Report(
    epoch=0, view=0, active=True, primary="demo-0", mode="Internet", role="backup", final_index=9,
    applied_index=9, stable_checkpoint=0, stable_state="", ready=True, mute=None, evidence=(),
    seen_at="",
)  # fmt: skip
GOOD = {"image": "dwcp:good"}
BAD = {"image": "dwcp:bad"}
BACK = {"rollback": True}


def cluster(annotations: dict[str, str] | None = None, **spec: Any) -> DWCPCluster:
    raw = resource(**spec)
    raw["metadata"]["annotations"] = annotations or {}
    return DWCPCluster.model_validate(raw)


def seen(*revisions: str, down: int | None = None) -> Observed:
    members = [
        MemberObserved(
            name=name, volume=Volume.PRESENT, running=True, identity=b"k", report=REPORT,
            revision=revision, serving=True, steady_for_ms=10**9,
        )
        for name, revision in zip(NAMES, revisions, strict=True)
    ]  # fmt: skip
    if down is not None:
        members[down] = replace(
            members[down], report=None, serving=False, unready_for_ms=10**9, steady_for_ms=0
        )
    return Observed(keys=True, genesis=HELD, members=tuple(members))


class Story:
    """Rounds as the reconciler runs them: the status is all that is remembered."""

    def __init__(self) -> None:
        self.status: ClusterStatus | None = None
        self.upgrade: UpgradeStatus | None = None

    def round(self, wanted: DWCPCluster, observed: Observed) -> tuple[Step, ...]:
        out = rollout(wanted, self.status)
        want = desired(wanted, out, 0)
        steps = plan(want, observed)
        self.upgrade = upgrade_status(wanted, out, situation(want, observed, steps))
        self.status = ClusterStatus(upgrade=self.upgrade)
        return steps


def revision_of(**spec: Any) -> str:
    return cluster(**spec).template.revision


def test_what_all_members_run_together_is_remembered_as_stable() -> None:
    story, good = Story(), revision_of(**GOOD)
    story.round(cluster(**GOOD), seen(*[good] * 4, down=2))
    assert story.upgrade is not None
    assert story.upgrade.stable is None
    story.round(cluster(**GOOD), seen(*[good] * 4))
    assert story.upgrade.stable == cluster(**GOOD).template
    assert story.upgrade.updated == 4


def failed_story(**upgrade: Any) -> tuple[Story, tuple[Step, ...]]:
    story, good, bad = Story(), revision_of(**GOOD), revision_of(**BAD)
    story.round(cluster(**GOOD), seen(*[good] * 4))
    wanted = cluster(**BAD, upgrade=upgrade)
    return story, story.round(wanted, seen(good, good, bad, good, down=2))


def test_a_failed_step_without_rollback_stays_where_it_is() -> None:
    story, steps = failed_story()
    assert steps[-1] == ReportRollFailed("demo-2", revision_of(**BAD))
    assert story.upgrade is not None
    assert story.upgrade.failed is None
    assert rollout(cluster(**BAD), story.status).template == cluster(**BAD).template


def test_rollback_goes_to_what_ran_before_and_does_not_begin_anew() -> None:
    good, bad = revision_of(**GOOD), revision_of(**BAD)
    story, steps = failed_story(**BACK)
    assert not [s for s in steps if type(s).__name__ == "RollMember"], "first it is written down"
    assert story.upgrade is not None
    assert story.upgrade.failed == bad
    wanted = cluster(**BAD, upgrade=BACK)
    (undo,) = [
        s for s in story.round(wanted, seen(good, good, bad, good, down=2))
        if type(s).__name__ == "RollMember"
    ]  # fmt: skip
    assert getattr(undo, "member", None) == "demo-2"
    for _ in range(3):
        assert story.round(wanted, seen(*[good] * 4)) == (), "neither forward nor back"
    assert story.upgrade.failed == bad
    assert story.upgrade.revision == good


def test_the_last_member_that_fails_takes_all_back() -> None:
    """No Pod of the old revision is left: only the status still knows it."""
    good, bad = revision_of(**GOOD), revision_of(**BAD)
    story = Story()
    story.round(cluster(**GOOD), seen(*[good] * 4))
    wanted = cluster(**BAD, upgrade=BACK)
    story.round(wanted, seen(*[bad] * 4, down=0))
    assert story.upgrade is not None
    assert story.upgrade.failed == bad
    assert rollout(wanted, story.status).template == cluster(**GOOD).template


def test_another_change_or_a_restart_is_tried_again() -> None:
    story, _ = failed_story(**BACK)
    for again in (
        cluster(image="dwcp:better", upgrade=BACK),
        cluster({"dwcp.dev/restart": "1"}, **BAD, upgrade=BACK),
    ):
        out = rollout(again, story.status)
        assert out.template == again.template
        assert out.failed is None


def test_without_anything_that_ever_ran_there_is_nothing_to_go_back_to() -> None:
    story, bad = Story(), revision_of(**BAD)
    wanted = cluster(**BAD, upgrade=BACK)
    story.round(wanted, seen(*[bad] * 4, down=1))
    assert story.upgrade is not None
    assert story.upgrade.failed is None


def test_a_crash_after_a_finished_roll_takes_nothing_back() -> None:
    story, good = Story(), revision_of(**GOOD)
    wanted = cluster(**GOOD, upgrade=BACK)
    story.round(wanted, seen(*[good] * 4))
    steps = story.round(wanted, seen(*[good] * 4, down=3))
    assert not [s for s in steps if isinstance(s, ReportRollFailed)]
    assert story.upgrade is not None
    assert story.upgrade.failed is None


@pytest.mark.parametrize(
    ("change", "annotations", "reason"),
    [
        (BAD, {}, RollReason.IMAGE),
        ({**GOOD, "resources": {"limits": {"cpu": "1"}}}, {}, RollReason.RESOURCES),
        ({**GOOD, "placement": {"priorityClassName": "x"}}, {}, RollReason.PLACEMENT),
        (GOOD, {"dwcp.dev/restart": "now"}, RollReason.REQUESTED),
    ],
)
def test_reasons(change: dict[str, Any], annotations: dict[str, str], reason: RollReason) -> None:
    good = revision_of(**GOOD)
    story = Story()
    story.round(cluster(**GOOD), seen(*[good] * 4))
    out = rollout(cluster(annotations, **change), story.status)
    old = MemberObserved(name="demo-0", revision=good)
    assert roll_reason(out, old) is reason
    assert roll_reason(out, replace(old, revision=out.template.revision)) is RollReason.VOLUME_GROWN
    assert roll_reason(replace(out, failed="x"), old) is RollReason.ROLLED_BACK
    assert roll_reason(replace(out, stable=None), old) is RollReason.CHANGED


@pytest.mark.parametrize(
    ("value", "paused"), [("true", True), ("yes", True), ("false", False), ("", False)]
)
def test_in_doubt_a_cluster_is_paused(value: str, paused: bool) -> None:
    assert cluster({"dwcp.dev/paused": value}).paused is paused
    assert not cluster().paused


def test_the_window_is_that_of_the_resource() -> None:
    wanted = cluster(upgrade={"window": {"start": "02:00", "durationMinutes": 60}})
    out = rollout(wanted, None)
    hour_ms = 3_600_000
    assert desired(wanted, out, 0).rolling.opens_in_ms == 2 * hour_ms
    assert desired(wanted, out, 2 * hour_ms).rolling.opens_in_ms == 0
    assert desired(wanted, out, 3 * hour_ms).rolling.opens_in_ms == 23 * hour_ms
    assert desired(cluster(), out, 0).rolling.opens_in_ms == 0
