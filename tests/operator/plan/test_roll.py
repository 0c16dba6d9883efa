"""Rolling changes against a small model of members that run a revision, vote, lead and fail.

Every prefix of every plan is cut off and planned again, and members go away whenever they like:
in no state that can be reached does the planner take away a quorum, and from every one of them it
reaches the goal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from dwcp_operator.plan import (
    Desired,
    EvidenceSeen,
    GenesisHeld,
    GenesisSeen,
    MemberObserved,
    Observed,
    Report,
    ReportRollFailed,
    Rolling,
    RollMember,
    StartMember,
    Step,
    Volume,
    WaitFor,
    WaitReason,
    plan,
    quorum,
)

OLD, NEW = "old", "new"
N = 4


def names(n: int = N) -> tuple[str, ...]:
    return tuple(f"demo-{i}" for i in range(n))


def desired(n: int = N, **rolling: object) -> Desired:
    return Desired("demo", names(n), revision=NEW, rolling=Rolling(**rolling))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Member:
    running: bool = True
    voting: bool = True
    revision: str = OLD
    works: bool = True  # False: it never votes, whatever it was made from


@dataclass(frozen=True)
class World:
    """Members, and the view that those that vote are in; its primary leads."""

    members: tuple[Member, ...] = (Member(),) * N
    view: int = 0
    faults: int = 1
    broken: str = ""  # a revision that never votes

    @property
    def n(self) -> int:
        return len(self.members)

    @property
    def primary(self) -> int:
        return self.view % self.n

    @property
    def voting(self) -> int:
        return sum(m.voting for m in self.members)

    def changed(self, i: int, **changes: object) -> World:
        members = list(self.members)
        members[i] = replace(members[i], **changes)  # type: ignore[arg-type]
        return replace(self, members=tuple(members)).led()

    def led(self) -> World:
        """A quorum that votes puts a lost primary out of its place."""
        world = self
        while world.voting >= quorum(world.n) and not world.members[world.primary].voting:
            world = replace(world, view=world.view + 1)
        return world

    def observe(self) -> Observed:
        held = GenesisHeld(b"g" * 32, dict.fromkeys(names(self.n), b"k"), frozenset(names(self.n)),
                           published=True)  # fmt: skip
        members = tuple(self._member(i, m) for i, m in enumerate(self.members))
        return Observed(keys=True, genesis=held, members=members)

    def _member(self, i: int, m: Member) -> MemberObserved:
        return MemberObserved(
            name=names(self.n)[i],
            volume=Volume.PRESENT,
            running=m.running,
            identity=b"k" if m.running else None,
            genesis=GenesisSeen(b"g" * 32, complete=True) if m.running else None,
            report=self._report() if m.running and m.voting else None,
            revision=m.revision if m.running else "",
            serving=m.running and m.voting,
        )

    def _report(self) -> Report:
        return Report(
            epoch=0, view=self.view, active=True, primary=names(self.n)[self.primary],
            mode="Internet", role="backup", final_index=500, applied_index=500,
            stable_checkpoint=400, stable_state="s", ready=True, mute=None, evidence=(), seen_at="",
        )  # fmt: skip

    def act(self, step: Step) -> World:
        match step:
            case RollMember(name):
                i = names(self.n).index(name)
                member = self.members[i]
                assert member.running
                assert member.revision != NEW
                after = self.changed(i, running=False, voting=False)
                if member.voting:
                    assert self.voting - 1 >= quorum(self.n), "took the quorum away"
                    down = sum(not m.voting for m in self.members)
                    assert down == 0 or self.n > N, "two members down"
                return after
            case StartMember(name):
                i = names(self.n).index(name)
                assert not self.members[i].running
                return self.changed(i, running=True, voting=False, revision=NEW)
            case WaitFor():
                return self
        raise AssertionError(f"unexpected {step}")

    def answers(self) -> World:
        """Time passes: what runs and works votes."""
        world = self
        for i, m in enumerate(self.members):
            if m.running and m.works and m.revision != self.broken:
                world = world.changed(i, voting=True)
        return world

    def slow_answers(self) -> Iterator[World]:
        for i, m in enumerate(self.members):
            if m.running and m.works and m.revision != self.broken and not m.voting:
                yield self.changed(i, voting=True)

    def disturbed(self) -> Iterator[World]:
        if self.faults:
            once = replace(self, faults=self.faults - 1)
            for i, m in enumerate(self.members):
                if m.running:
                    yield once.changed(i, running=False, voting=False)
                    yield once.changed(i, voting=False)


def cuts(world: World, want: Desired) -> Iterator[World]:
    for step in plan(want, world.observe()):
        world = world.act(step)
        yield world


def settle(world: World, want: Desired) -> World:
    for _ in range(8 * world.n):
        steps = plan(want, world.observe())
        if not steps:
            return world
        for step in steps:
            world = world.act(step)
        world = world.answers()
    raise AssertionError(f"not settled: {plan(want, world.observe())}")


def reachable(start: World, want: Desired) -> set[World]:
    seen, todo = {start}, [start]
    while todo:
        world = todo.pop()
        for after in (*cuts(world, want), *world.slow_answers(), *world.disturbed()):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


@pytest.mark.parametrize("primary", range(N))
def test_every_prefix_of_every_roll_reaches_the_goal_and_keeps_the_quorum(primary: int) -> None:
    states = reachable(World(view=primary), desired())
    assert len(states) > 100, "the walk saw too little"
    for world in states:
        end = settle(world, desired())
        assert all(m.running and m.voting and m.revision == NEW for m in end.members)


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("primary", [0, 2, 3])
def test_a_quiet_roll_takes_the_primary_last_and_moves_the_lead_once(n: int, primary: int) -> None:
    world, order = World(members=(Member(),) * n, view=primary, faults=0), []
    while steps := plan(desired(n), world.observe()):
        for step in steps:
            if isinstance(step, RollMember):
                order.append(step.member)
            world = world.act(step)
        world = world.answers()
    assert order[-1] == names(n)[primary]
    assert sorted(order) == list(names(n))
    assert world.view == primary + 1


@pytest.mark.parametrize("n", [4, 7])
def test_one_member_at_a_time_even_where_more_could_go(n: int) -> None:
    world = World(members=(Member(),) * n, faults=0)
    (first,) = plan(desired(n), world.observe())
    assert isinstance(first, RollMember)
    down = world.act(first)
    assert not [s for s in plan(desired(n), down.observe()) if isinstance(s, RollMember)]
    back = down.act(StartMember(first.member))
    (waits,) = plan(desired(n), back.observe())[-1:]
    assert waits == WaitFor(WaitReason.ROLLED, (first.member,))


def test_a_member_that_does_not_vote_goes_first() -> None:
    world = World().changed(2, voting=False)
    assert plan(desired(), world.observe())[-1] == RollMember("demo-2")


def test_a_bad_revision_without_any_quorum_is_mended() -> None:
    """Nobody votes: nothing can be lost, and waiting for a quorum would wait for ever."""
    dead = World(members=(Member(voting=False, works=True),) * N, broken=OLD, faults=0)
    end = settle(dead, desired())
    assert all(m.voting for m in end.members)


def test_what_nobody_can_be_asked_about_is_not_taken_down() -> None:
    """The operator reaches no member, but their kubelets find them ready: they may well vote."""
    observed = World().observe()
    unheard = tuple(replace(m, report=None) for m in observed.members)
    steps = plan(desired(), replace(observed, members=unheard))
    assert not [s for s in steps if isinstance(s, RollMember)]
    assert steps[-1] == WaitFor(WaitReason.QUORUM, names())


def test_a_proven_liar_counts_for_no_quorum() -> None:
    observed = World().observe()
    evidence = (EvidenceSeen("demo-3", "equivocation", 0, 7),)
    members = []
    for m in observed.members:
        assert m.report is not None
        shown = () if m.name == "demo-3" else evidence
        members.append(replace(m, report=replace(m.report, evidence=shown)))
    steps = plan(desired(), replace(observed, members=tuple(members)))
    assert steps == (RollMember("demo-3"),), "the liar gives nothing, the others are just enough"
    rolled = [replace(m, revision=NEW) if m.name == "demo-3" else m for m in members]
    steps = plan(desired(), replace(observed, members=tuple(rolled)))
    assert steps == (WaitFor(WaitReason.QUORUM, names()[:3]),)


def late(world: World, i: int, unready_for_ms: int) -> Observed:
    observed = world.observe()
    members = list(observed.members)
    members[i] = replace(members[i], unready_for_ms=unready_for_ms)
    return replace(observed, members=tuple(members))


def test_a_step_that_fails_stops_the_roll() -> None:
    world = World().changed(1, voting=False, revision=NEW)
    early = plan(desired(deadline_ms=60_000), late(world, 1, 59_999))
    assert early[-1] == WaitFor(WaitReason.ROLLED, ("demo-1",))
    failed = plan(desired(deadline_ms=60_000), late(world, 1, 60_000))
    assert failed[-1] == ReportRollFailed("demo-1", NEW)
    assert not [s for s in failed if isinstance(s, RollMember)]


def test_the_last_member_fails_a_step_too_until_all_have_run_together() -> None:
    world = World(members=(Member(revision=NEW),) * N).changed(0, voting=False)
    seen = late(world, 0, 10**9)
    unsettled = plan(desired(settled=False), seen)
    assert unsettled[-1] == ReportRollFailed("demo-0", NEW)
    later = plan(desired(settled=True), seen)
    assert not [s for s in later if isinstance(s, ReportRollFailed)], "a crash is no failed roll"


def test_a_member_that_lags_is_not_back() -> None:
    observed = World().changed(1, revision=NEW).observe()
    members = list(observed.members)
    report = members[1].report
    assert report is not None
    members[1] = replace(members[1], report=replace(report, applied_index=399))
    steps = plan(desired(), replace(observed, members=tuple(members)))
    assert steps == (WaitFor(WaitReason.ROLLED, ("demo-1",)),)
    members[1] = replace(members[1], report=replace(report, view=9))
    steps = plan(desired(), replace(observed, members=tuple(members)))
    assert steps == (WaitFor(WaitReason.ROLLED, ("demo-1",)),), "not in the view of the others"
    members[1] = replace(members[1], report=replace(report, applied_index=400))
    assert isinstance(plan(desired(), replace(observed, members=tuple(members)))[0], RollMember)


def test_the_next_member_goes_when_the_one_before_has_been_ready_for_a_while() -> None:
    """Clients and members find it under its old address as long as DNS lets them."""
    observed = World().changed(1, revision=NEW).observe()
    members = list(observed.members)
    for steady_for_ms, goes in ((9_999, False), (10_000, True)):
        members[1] = replace(members[1], steady_for_ms=steady_for_ms)
        steps = plan(desired(steady_ms=10_000), replace(observed, members=tuple(members)))
        assert isinstance(steps[-1], RollMember) == goes
        if not goes:
            assert steps == (WaitFor(WaitReason.ROLLED, ("demo-1",)),)


def test_a_member_that_does_not_vote_waits_for_no_steadiness() -> None:
    world = World().changed(1, revision=NEW).changed(2, voting=False)
    assert plan(desired(steady_ms=10_000), world.observe())[-1] == RollMember("demo-2")


def test_a_mute_member_does_not_hold_up_a_roll_for_which_the_others_are_enough() -> None:
    observed = World(members=(Member(),) * 7).changed(1, revision=NEW).observe()
    members = list(observed.members)
    report = members[1].report
    assert report is not None
    muted = replace(report, ready=False, mute="damaged log")
    members = [replace(m, steady_for_ms=60_000) for m in members]
    members[1] = replace(members[1], report=muted, serving=False, steady_for_ms=0)
    want = desired(7, steady_ms=10_000)
    steps = plan(want, replace(observed, members=tuple(members)))
    assert isinstance(steps[-1], RollMember)


def test_outside_the_window_only_members_that_do_not_vote_are_rolled() -> None:
    want = desired(opens_in_ms=3_600_000)
    assert plan(want, World().observe()) == (WaitFor(WaitReason.WINDOW, names(), 3_600_000),)
    world = World().changed(2, voting=False)
    assert plan(want, world.observe())[-1] == RollMember("demo-2")


def test_a_volume_that_has_grown_restarts_its_member_like_any_roll() -> None:
    observed = World(members=(Member(revision=NEW),) * N, view=3).observe()
    members = tuple(replace(m, needs_restart=True) for m in observed.members)
    assert plan(desired(), replace(observed, members=members)) == (RollMember("demo-0"),)


def test_without_a_revision_nothing_is_rolled() -> None:
    assert plan(replace(desired(), revision=""), World().observe()) == ()
    observed = World().observe()
    unknown = tuple(replace(m, revision="") for m in observed.members)
    assert plan(desired(), replace(observed, members=unknown)) == ()


def test_before_the_genesis_what_was_wrong_is_made_anew_at_once() -> None:
    waiting = tuple(
        MemberObserved(name=name, volume=Volume.PRESENT, running=True, revision=OLD)
        for name in names()
    )
    steps = plan(desired(), Observed(keys=True, members=waiting))
    assert [s.member for s in steps if isinstance(s, RollMember)] == list(names())
