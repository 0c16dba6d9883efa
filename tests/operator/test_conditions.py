from __future__ import annotations

from dataclasses import replace

import pytest

from dwcp_operator.conditions import conditions, situation
from dwcp_operator.plan import (
    Desired,
    EvidenceSeen,
    GenesisHeld,
    MemberObserved,
    Observed,
    Report,
    ReportForeignVolume,
    ReportLostVolume,
    ReportRollFailed,
    ReportStopped,
    Rolling,
    RollMember,
    StartMember,
    Step,
    StopMember,
    SwitchSeen,
    Volume,
    WaitFor,
    WaitReason,
)
from dwcp_operator.plan.agreement import agreement
from dwcp_operator.resources import CONDITION_TYPES, ClusterStatus, Condition
from dwcp_operator.status import cluster_status

NAMES = tuple(f"demo-{i}" for i in range(4))
DESIRED = Desired(cluster="demo", members=NAMES)
THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z"
GENESIS = GenesisHeld(
    hash=b"g" * 32, identities=dict.fromkeys(NAMES, b"k"), signed=frozenset(NAMES), published=True
)


def report(**changes: object) -> Report:
    base = Report(
        epoch=0,
        view=1,
        active=True,
        primary="demo-0",
        mode="Internet",
        role="backup",
        final_index=120,
        applied_index=120,
        stable_checkpoint=100,
        stable_state="aa",
        ready=True,
        mute=None,
        evidence=(),
        seen_at=NOW,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def observed(*reports: Report | None, begun: bool = True) -> Observed:
    return Observed(
        keys=True,
        genesis=GENESIS if begun else None,
        members=tuple(
            MemberObserved(
                name=name,
                volume=Volume.PRESENT,
                running=seen is not None,
                endpoint=f"http://{name}",
                report=seen,
            )
            for name, seen in zip(NAMES, reports, strict=True)
        ),
    )


def verdicts(seen: Observed, *steps: Step) -> dict[str, tuple[str, str]]:
    found = conditions(situation(DESIRED, seen, steps), 3, (), NOW)
    assert tuple(c.type for c in found) == CONDITION_TYPES
    return {c.type: (c.status, c.reason) for c in found}


def test_all_is_well() -> None:
    assert verdicts(observed(*[report()] * 4)) == {
        "Available": ("True", "QuorumVotes"),
        "Progressing": ("False", "Settled"),
        "Degraded": ("False", "AllMembersReady"),
        "QuorumAtRisk": ("False", "SpareMembers"),
        "ByzantineFault": ("False", "NoEvidence"),
        "ModeSettled": ("True", "ModeAgreed"),
        "ZonesSpread": ("Unknown", "ZonesUnknown"),
    }


def test_one_member_down() -> None:
    steps = (WaitFor(WaitReason.BACK_OFF, ("demo-3",), 1000),)
    got = verdicts(observed(report(), report(), report(), None), *steps)
    assert got["Available"] == ("True", "QuorumVotes")
    assert got["Progressing"] == ("True", "BackingOff")
    assert got["Degraded"] == ("True", "MembersNotReady")
    assert got["QuorumAtRisk"] == ("True", "NoSpareMember")


def test_quorum_lost() -> None:
    got = verdicts(observed(report(), report(), None, None), StartMember("demo-2"))
    assert got["Available"] == ("False", "QuorumLost")
    assert got["QuorumAtRisk"] == ("True", "QuorumLost")
    assert got["Progressing"] == ("True", "StartingMembers")


def test_nothing_runs() -> None:
    got = verdicts(observed(None, None, None, None))
    assert got["Available"] == ("False", "QuorumLost")
    assert got["ModeSettled"] == ("Unknown", "NoAgreement")


def test_before_the_genesis_nothing_is_degraded() -> None:
    got = verdicts(observed(*[None] * 4, begun=False))
    assert got["Available"] == ("False", "Bootstrapping")
    assert got["Degraded"] == ("False", "Bootstrapping")
    assert got["QuorumAtRisk"] == ("Unknown", "Bootstrapping")


def test_a_member_that_never_comes_up_is_named() -> None:
    made = observed(*[None] * 4, begun=False)
    slow = replace(made.members[2], running=True, unready_for_ms=300_000)
    late = replace(made, members=(*made.members[:2], slow, made.members[3]))
    found = conditions(situation(DESIRED, late, ()), 3, (), NOW)
    (told,) = [c for c in found if c.type == "Degraded"]
    assert (told.status, told.reason) == ("True", "MembersNotReady")
    assert told.message.startswith("demo-2 did not come up within 300 s")
    waiting = replace(slow, identity=b"k")
    waits = replace(made, members=(*made.members[:2], waiting, made.members[3]))
    assert verdicts(waits)["Degraded"] == ("False", "Bootstrapping"), "it waits for the others"


def test_one_liar_can_not_move_view_primary_or_mode() -> None:
    lie = report(view=9, primary="demo-3", epoch=4, final_index=10**9, mode="Datacenter")
    agreed = agreement({n: report() for n in NAMES[:3]} | {"demo-3": lie}, 4)
    assert (agreed.epoch, agreed.view, agreed.primary, agreed.mode) == (0, 1, "demo-0", "Internet")
    assert agreed.final_index == 120
    got = verdicts(observed(report(), report(), report(), lie))
    assert got["Available"] == ("True", "QuorumVotes")
    assert got["QuorumAtRisk"] == ("True", "NoSpareMember")


def test_one_report_agrees_on_nothing() -> None:
    agreed = agreement({"demo-0": report()}, 4)
    assert (agreed.epoch, agreed.view, agreed.primary, agreed.mode) == (None, None, None, None)


def test_the_newer_view_counts_when_both_have_enough_reports() -> None:
    old, new = report(), report(view=2, primary="demo-1")
    agreed = agreement(dict(zip(NAMES, (old, old, new, new), strict=True)), 4)
    assert (agreed.view, agreed.primary) == (2, "demo-1")


def test_a_view_change_under_way_has_no_view() -> None:
    agreed = agreement({n: report(active=False) for n in NAMES}, 4)
    assert agreed.view is None
    assert agreed.epoch == 0


SEEN = EvidenceSeen("demo-1", "equivocation", 3, 12)


def test_evidence_of_f_plus_one_members_is_believed() -> None:
    witness = report(evidence=(SEEN,))
    seen = observed(witness, report(), witness, report())
    assert verdicts(seen)["ByzantineFault"] == ("True", "EvidenceAgreed")
    assert verdicts(seen)["QuorumAtRisk"] == ("True", "NoSpareMember"), "a known liar is no spare"
    found = {c.type: c for c in conditions(situation(DESIRED, seen, ()), 3, (), NOW)}
    assert "demo-1: equivocation (view 3, index 12)" in found["ByzantineFault"].message


def test_evidence_of_one_member_is_a_claim() -> None:
    seen = observed(report(evidence=(SEEN,)), report(), report(), report())
    assert verdicts(seen)["ByzantineFault"] == ("Unknown", "EvidenceClaimed")


def test_the_accused_is_no_witness_against_itself() -> None:
    """Two liars' worth of words must not be had from one liar and its victim's name."""
    witness = report(evidence=(SEEN,))
    seen = observed(witness, witness, report(), report())
    assert verdicts(seen)["ByzantineFault"] == ("Unknown", "EvidenceClaimed")


def test_a_signed_state_unlike_the_others_is_a_fault() -> None:
    seen = observed(report(), report(), report(stable_state="bb"), report())
    found = conditions(situation(DESIRED, seen, ()), 3, (), NOW)
    fault = next(c for c in found if c.type == "ByzantineFault")
    assert (fault.status, fault.reason) == ("True", "EvidenceAgreed")
    assert fault.message.startswith("demo-2: state-mismatch (checkpoint 100)")


def test_members_at_different_checkpoints_do_not_mismatch() -> None:
    seen = observed(report(), report(), report(stable_checkpoint=0, stable_state=""), report())
    assert verdicts(seen)["ByzantineFault"] == ("False", "NoEvidence")


@pytest.mark.parametrize(
    ("step", "reason", "help_"),
    [
        (ReportLostVolume("demo-1"), "VolumeLost", "Another member takes its place"),
        (ReportForeignVolume("demo-1"), "VolumeForeign", "put that one back"),
        (ReportStopped("demo-1", 78), "MemberStopped", "its log says"),
    ],
)
def test_degraded_says_what_to_do(step: Step, reason: str, help_: str) -> None:
    seen = situation(DESIRED, observed(report(), None, report(), report()), (step,))
    found = {c.type: c for c in conditions(seen, 3, (), NOW)}
    assert (found["Degraded"].status, found["Degraded"].reason) == ("True", reason)
    assert help_ in found["Degraded"].message
    assert "demo-1" in found["Degraded"].message
    assert (found["Progressing"].status, found["Progressing"].reason) == (
        "False",
        "NeedsAttention",
    )


def test_a_mute_member_is_degraded() -> None:
    mute = report(mute="damaged log tail", ready=False)
    got = verdicts(observed(report(), report(), report(), mute))
    assert got["Degraded"] == ("True", "MemberMute")


def test_transition_times_stay_while_the_status_stays() -> None:
    seen = situation(DESIRED, observed(*[report()] * 4), ())
    first = conditions(seen, 3, (), THEN)
    again = conditions(seen, 4, first, NOW)
    assert {c.last_transition_time for c in again} == {THEN}
    assert {c.observed_generation for c in again} == {4}
    down = situation(DESIRED, observed(report(), report(), None, None), ())
    later: dict[str, Condition] = {c.type: c for c in conditions(down, 4, again, NOW)}
    assert later["Available"].last_transition_time == NOW
    assert later["ByzantineFault"].last_transition_time == THEN


def test_status_of_the_resource() -> None:
    reports = (report(role="primary"), report(), report(applied_index=110, role="primary"), None)
    seen = situation(DESIRED, observed(*reports), ())
    status = cluster_status(seen, generation=2, cluster_id="ab" * 16, previous=(), now=NOW)
    assert (status.ready, status.ready_replicas, status.replicas) == ("3/4", 3, 3)
    assert (status.view, status.primary, status.epoch, status.mode) == (1, "demo-0", 0, "Internet")
    assert status.selector == "dwcp.dev/cluster=demo"
    assert [m.role for m in status.members] == ["primary", "backup", "backup", "stopped"]
    assert [m.lag for m in status.members] == [0, 0, 10, None]
    manifest = status.manifest()
    assert manifest["genesisHash"] == (b"g" * 32).hex()
    assert "appliedIndex" not in manifest["members"][3]  # type: ignore[index]


def zoned(*zones: str | None) -> Observed:
    seen = observed(*[report()] * 4)
    pairs = zip(seen.members, zones, strict=True)
    return replace(seen, members=tuple(replace(m, zone=zone) for m, zone in pairs))


@pytest.mark.parametrize(
    ("zones", "verdict"),
    [
        (("a", "b", "c", "d"), ("True", "NoZoneHoldsTooMany")),
        (("a", "b", "c", "a"), ("False", "ZoneHoldsTooMany")),
        (("a", "b", "c", None), ("Unknown", "ZonesUnknown")),
        (("a", "a", None, None), ("False", "ZoneHoldsTooMany")),
    ],
)
def test_a_zone_that_holds_more_than_may_be_lost_is_told(
    zones: tuple[str | None, ...], verdict: tuple[str, str]
) -> None:
    assert verdicts(zoned(*zones))["ZonesSpread"] == verdict


def test_a_roll_is_progress_and_a_failed_one_wants_help() -> None:
    seen = observed(*[report()] * 4)
    assert verdicts(seen, RollMember("demo-1"))["Progressing"] == ("True", "Rolling")
    waiting = verdicts(seen, WaitFor(WaitReason.WINDOW, NAMES, 1))
    assert waiting["Progressing"] == ("True", "WaitingForMaintenanceWindow")
    failed = verdicts(seen, ReportRollFailed("demo-1", "abc"))
    assert failed["Progressing"] == ("False", "NeedsAttention")
    assert failed["Degraded"] == ("True", "RollFailed")
    assert failed["Available"][0] == "True"


def verdicts_of(desired: Desired, seen: Observed, *steps: Step) -> dict[str, tuple[str, str]]:
    found = conditions(situation(desired, seen, steps), 3, (), NOW)
    return {c.type: (c.status, c.reason) for c in found}


def test_the_member_that_is_rolled_is_no_fault_until_it_takes_too_long() -> None:
    rolling = replace(DESIRED, rolling=Rolling(settled=False, deadline_ms=60_000))
    one = observed(report(), report(), report(), None)
    assert verdicts_of(rolling, one)["Degraded"] == ("False", "Rolling")
    assert verdicts_of(DESIRED, one)["Degraded"] == ("True", "MembersNotReady"), "no change is made"
    two = observed(report(), report(), None, None)
    assert verdicts_of(rolling, two)["Degraded"] == ("True", "MembersNotReady"), "one is rolled"
    late = replace(one.members[3], unready_for_ms=60_000)
    stuck = replace(one, members=(*one.members[:3], late))
    assert verdicts_of(rolling, stuck)["Degraded"] == ("True", "MembersNotReady")


def test_what_was_rolled_back_is_not_what_was_asked_for() -> None:
    gone_back = replace(DESIRED, rolling=Rolling(failed="abc"))
    assert verdicts_of(gone_back, observed(*[report()] * 4))["Degraded"] == ("True", "RolledBack")


def test_a_sleeping_cluster_is_neither_available_nor_degraded() -> None:
    asleep = replace(DESIRED, hibernate=True)
    told = verdicts_of(asleep, observed(*[None] * 4))
    assert told["Available"] == ("False", "Hibernated")
    assert told["Progressing"] == ("False", "Hibernated")
    assert told["Degraded"] == ("False", "Hibernated")
    assert told["QuorumAtRisk"] == ("Unknown", "Hibernated")
    stopping = verdicts_of(asleep, observed(*[report()] * 4), StopMember("demo-0"))
    assert stopping["Progressing"] == ("True", "Hibernating")
    lost = verdicts_of(asleep, observed(*[None] * 4), ReportLostVolume("demo-0"))
    assert lost["Degraded"] == ("True", "VolumeLost"), "sleep hides no loss"


def test_a_paused_cluster_says_so_and_hides_nothing() -> None:
    paused = replace(DESIRED, paused=True)
    step = WaitFor(WaitReason.PAUSED, ())
    told = verdicts_of(paused, observed(report(), report(), report(), None), step)
    assert told["Progressing"] == ("False", "Paused")
    assert told["Degraded"] == ("True", "MembersNotReady")
    assert told["Available"][0] == "True"


SWITCH = SwitchSeen("Internet", "Hybrid", "network", 70, THEN, 25_300, 400, 0.001, 2_000_000_000)


def status_of(*reports: Report | None) -> ClusterStatus:
    seen = situation(DESIRED, observed(*reports), ())
    return cluster_status(seen, generation=1, cluster_id=None, previous=(), now=NOW)


def test_a_switch_is_shown_with_its_numbers_when_an_honest_member_says_it() -> None:
    lie = replace(SWITCH, index=900, after="Datacenter")
    runs = report(mode="Hybrid", switch=SWITCH)
    status = status_of(runs, runs, replace(runs, switch=lie), replace(runs, switch=None))
    assert (status.mode, [m.role for m in status.members][:2]) == ("Hybrid", ["leader", "follower"])
    assert status.last_switch is not None
    assert status.last_switch.time == THEN
    assert status.last_switch.sentence() == (
        "Internet to Hybrid at index 70 (network): round trip 25.30 ms, jitter 0.40 ms, "
        "loss 0.10 %, bandwidth 2000.0 Mbps"
    )
    assert status_of(*[replace(runs, switch=lie)], *[report()] * 3).last_switch is None


def test_a_switch_of_an_unknown_network_says_so() -> None:
    bare = replace(SWITCH, reason="forced", rtt_us=None, jitter_us=None, loss=None, rate_bps=None)
    status = status_of(*[report(switch=bare)] * 4)
    assert status.last_switch is not None
    assert status.last_switch.sentence().endswith("(forced): nothing of the network is known")


def test_f_members_suspicions_are_not_shown_and_more_are() -> None:
    ill = report(illness="the disk is full")
    status = status_of(report(suspects={"demo-3": "silent", "demo-1": "lied"}), ill, report(), None)
    assert [m.suspicion for m in status.members] == [None] * 4
    assert [(m.healthy, m.illness) for m in status.members] == [
        (True, None), (False, "the disk is full"), (True, None), (None, None)
    ]  # fmt: skip
    says = report(suspects={"demo-3": "silent"})
    assert status_of(says, says, report(), None).members[3].suspicion == "silent"
    assert status_of(says, report(), report(), says).members[3].suspicion is None, "of itself"
