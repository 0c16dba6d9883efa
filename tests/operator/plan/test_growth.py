"""Volumes that grow, and clusters that are paused, put to sleep and woken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dwcp_operator.plan import (
    Desired,
    EnsureKeys,
    GenesisHeld,
    GenesisSeen,
    GrowVolume,
    MemberObserved,
    Observed,
    Report,
    ReportLostVolume,
    RollMember,
    StartMember,
    StopMember,
    Volume,
    WaitFor,
    WaitReason,
    plan,
)

GIB = 2**30
NAMES = tuple(f"demo-{i}" for i in range(4))
WANTED = Desired("demo", NAMES, volume_bytes=2 * GIB)
HELD = GenesisHeld(b"g" * 32, dict.fromkeys(NAMES, b"k"), frozenset(NAMES), published=True)
REPORT = Report(
    epoch=0, view=0, active=True, primary="demo-0", mode="Internet", role="backup", final_index=9,
    applied_index=9, stable_checkpoint=0, stable_state="", ready=True, mute=None, evidence=(),
    seen_at="",
)  # fmt: skip


def member(name: str, **changes: Any) -> MemberObserved:
    running = MemberObserved(
        name=name,
        volume=Volume.PRESENT,
        running=True,
        identity=b"k",
        genesis=GenesisSeen(b"g" * 32, complete=True),
        report=REPORT,
        volume_bytes=GIB,
    )
    return replace(running, **changes)


def stopped(name: str, **changes: Any) -> MemberObserved:
    return member(name, running=False, identity=None, genesis=None, report=None, **changes)


def seen(*members: MemberObserved) -> Observed:
    return Observed(keys=True, genesis=HELD, members=members)


def everyone(**changes: Any) -> Observed:
    return seen(*(member(name, **changes) for name in NAMES))


# --- growth ----------------------------------------------------------------------------------


def test_every_volume_is_asked_to_grow() -> None:
    assert plan(WANTED, everyone()) == tuple(GrowVolume(name, 2 * GIB) for name in NAMES)


def test_full_disks_grow_although_nobody_votes() -> None:
    """A cluster whose disks are full has no quorum: growth must not wait for one."""
    full = seen(*(member(name, report=None) for name in NAMES))
    grown = [s for s in plan(WANTED, full) if isinstance(s, GrowVolume)]
    assert [s.member for s in grown] == list(NAMES)
    down = seen(*(stopped(name) for name in NAMES))
    assert len([s for s in plan(WANTED, down) if isinstance(s, GrowVolume)]) == 4


def test_a_volume_is_never_asked_to_shrink() -> None:
    assert plan(WANTED, everyone(volume_bytes=3 * GIB)) == ()


def test_a_volume_that_is_gone_or_unknown_is_not_asked() -> None:
    observed = seen(
        member(NAMES[0], volume_bytes=0),
        stopped(NAMES[1], volume=Volume.ABSENT),
        *(member(name, volume_bytes=2 * GIB) for name in NAMES[2:]),
    )
    assert plan(WANTED, observed) == (ReportLostVolume(NAMES[1]),)


def test_growth_that_goes_on_is_waited_for_and_holds_up_no_restart() -> None:
    observed = seen(
        stopped(NAMES[0], volume_bytes=2 * GIB, growing=True),
        *(member(name, volume_bytes=2 * GIB) for name in NAMES[1:]),
    )
    assert plan(WANTED, observed) == (
        StartMember(NAMES[0]),
        WaitFor(WaitReason.GROWTH, (NAMES[0],)),
    )


# --- pause -----------------------------------------------------------------------------------


def test_a_paused_cluster_is_only_looked_at() -> None:
    paused = replace(WANTED, paused=True, revision="new", hibernate=True)
    for observed in (everyone(revision="old"), seen(), Observed()):
        assert plan(paused, observed) == (WaitFor(WaitReason.PAUSED, ()),)


# --- hibernation -----------------------------------------------------------------------------

ASLEEP = replace(WANTED, hibernate=True, volume_bytes=0)


def test_hibernation_stops_all_members_and_starts_none() -> None:
    assert plan(ASLEEP, everyone()) == tuple(StopMember(name) for name in NAMES)
    half = seen(stopped(NAMES[0]), *(member(name) for name in NAMES[1:]))
    assert plan(ASLEEP, half) == tuple(StopMember(name) for name in NAMES[1:])
    assert plan(ASLEEP, seen(*(stopped(name) for name in NAMES))) == ()


def test_a_woken_cluster_starts_all_members_as_the_resource_asks_now() -> None:
    awake = replace(ASLEEP, hibernate=False, revision="new")
    steps = plan(awake, seen(*(stopped(name) for name in NAMES)))
    assert steps == tuple(StartMember(name) for name in NAMES)


def test_a_cluster_is_made_before_it_sleeps() -> None:
    """Its volumes would hold nothing to wake up with."""
    assert plan(ASLEEP, Observed()) == (EnsureKeys(),)
    unpublished = replace(everyone(), genesis=replace(HELD, published=False))
    assert not [s for s in plan(ASLEEP, unpublished) if isinstance(s, StopMember)]


def test_a_sleeping_cluster_grows_and_tells_of_lost_volumes_and_rolls_nothing() -> None:
    asleep = replace(ASLEEP, volume_bytes=2 * GIB, revision="new")
    observed = seen(stopped(NAMES[0], volume=Volume.ABSENT), *(stopped(name) for name in NAMES[1:]))
    steps = plan(asleep, observed)
    assert steps[0] == ReportLostVolume(NAMES[0])
    assert [s.member for s in steps if isinstance(s, GrowVolume)] == list(NAMES[1:])
    assert not [s for s in steps if isinstance(s, RollMember | StartMember)]
