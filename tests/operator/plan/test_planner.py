"""The planner against a small model of the world, cut off after every prefix of every plan.

The model keeps what would be durable (keys, record, volumes) and what would not (processes),
and asserts on every step what must never happen. All states that cuts, deaths and slow starts
can reach are visited; from each of them the goal is reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from dwcp_operator.plan import (
    AdoptGenesis,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    Desired,
    DropBackup,
    EnsureKeys,
    GenesisHeld,
    GenesisSeen,
    MemberObserved,
    Observed,
    Report,
    ReportForeignGenesis,
    ReportForeignVolume,
    ReportLostVolume,
    ReportStopped,
    ServeBackup,
    Source,
    StartMember,
    Step,
    Volume,
    WaitFor,
    WaitReason,
    plan,
)
from dwcp_operator.plan.planner import SERVE_AGAIN_MS

GENESIS = b"g" * 32
OTHER = b"o" * 32
NAMES = tuple(f"demo-{i}" for i in range(4))
DESIRED = Desired(cluster="demo", members=NAMES)


def key_of(name: str) -> bytes:
    return name.encode().ljust(32, b"k")


def report_of(name: str) -> Report:
    return Report(
        epoch=0,
        view=1,
        active=True,
        primary=NAMES[0],
        mode="Internet",
        role="primary" if name == NAMES[0] else "backup",
        final_index=1,
        applied_index=1,
        stable_checkpoint=0,
        stable_state="",
        ready=True,
        mute=None,
        evidence=(),
        seen_at="2026-01-01T00:00:00Z",
    )


@dataclass(frozen=True)
class Member:
    volume: bool = False
    key: bool = False
    genesis: str = ""  # "", "partial" or "complete", on the volume
    running: bool = False
    shown: bool = False  # has answered since its start
    state: bool = False  # holds the backup's state, where there is one


SHOWN = Member(volume=True, key=True, running=True, shown=True)


@dataclass(frozen=True)
class World:
    keys: bool = False
    made: bool = False  # the record, durable
    signed: frozenset[int] = frozenset()
    published: bool = False
    members: tuple[Member, ...] = (Member(),) * 4
    faults: int = 2
    restores: bool = False
    source: Source = Source.ABSENT

    @property
    def desired(self) -> Desired:
        return replace(DESIRED, restore=self.restores)

    def with_member(self, i: int, **changes: object) -> World:
        members = list(self.members)
        members[i] = replace(members[i], **changes)  # type: ignore[arg-type]
        return replace(self, members=tuple(members))

    def observe(self) -> Observed:
        held = None
        if self.made:
            held = GenesisHeld(
                hash=GENESIS,
                identities={n: key_of(n) for n in NAMES},
                signed=frozenset(NAMES[i] for i in self.signed),
                published=self.published,
            )
        return Observed(
            keys=self.keys,
            source=self.source,
            genesis=held,
            members=tuple(self._member(i) for i in range(len(self.members))),
        )

    def _member(self, i: int) -> MemberObserved:
        m, name = self.members[i], NAMES[i]
        seen = m.running and m.shown
        ready = seen and m.genesis == "complete" and (m.state or not self.restores)
        return MemberObserved(
            name=name,
            volume=Volume.PRESENT if m.volume else Volume.ABSENT,
            running=m.running,
            unready_for_ms=0 if ready else SERVE_AGAIN_MS,
            identity=key_of(name) if seen else None,
            genesis=GenesisSeen(GENESIS, m.genesis == "complete") if seen and m.genesis else None,
            report=report_of(name) if ready else None,
        )

    def act(self, step: Step) -> World:
        match step:
            case EnsureKeys():
                return replace(self, keys=True)
            case CreateVolume(name):
                i = NAMES.index(name)
                assert not self.made, "a volume was made anew under a member's name"
                assert not self.members[i].volume
                return self.with_member(i, volume=True)
            case StartMember(name):
                i = NAMES.index(name)
                assert self.members[i].volume
                assert not self.members[i].running, "two processes of one name"
                return self.with_member(i, running=True, shown=False, key=True)
            case CreateGenesis():
                assert not self.made, "a second genesis"
                assert not any(m.genesis for m in self.members), "a second genesis"
                assert all(m.key for m in self.members)
                assert not self.restores or self.source is Source.SERVING, "nothing to begin from"
                return replace(self, made=True)
            case DeliverGenesis(name):
                return self._deliver(NAMES.index(name))
            case CompleteGenesis():
                assert len(self.signed) == len(NAMES)
                return replace(self, published=True)
            case AdoptGenesis(_, genesis):
                assert genesis == GENESIS
                signed = frozenset(i for i, m in enumerate(self.members) if m.genesis)
                return replace(self, made=True, signed=signed)
            case ServeBackup():
                assert self.source is Source.ABSENT
                return replace(self, source=Source.STARTING)
            case DropBackup():
                assert all(m.state for m in self.members), "a member has not taken its state"
                return replace(self, source=Source.ABSENT)
            case WaitFor():
                return self
        raise AssertionError(f"unexpected {step}")

    def _deliver(self, i: int) -> World:
        assert self.made
        assert self.members[i].running
        world = replace(self, signed=self.signed | {i})
        complete = len(world.signed) == len(NAMES)
        return world.with_member(i, genesis="complete" if complete else "partial")

    def answers(self) -> World:
        """Time passes: every started process answers, and takes the state that it finds."""
        source = Source.ABSENT if self.source is Source.ABSENT else Source.SERVING
        held = source is Source.SERVING or any(m.state for m in self.members)
        members = tuple(
            replace(m, shown=m.running, state=m.state or (held and m.genesis == "complete"))
            if m.running
            else m
            for m in self.members
        )
        return replace(self, members=members, source=source)

    def slow_answers(self) -> Iterator[World]:
        """One process answers or takes its state, the others are slow."""
        if self.source is Source.STARTING:
            yield replace(self, source=Source.SERVING)
        held = self.source is Source.SERVING or any(m.state for m in self.members)
        for i, m in enumerate(self.members):
            if m.running and not m.shown:
                yield self.with_member(i, shown=True)
            elif m.running and held and m.genesis == "complete" and not m.state:
                yield self.with_member(i, state=True)

    def disturbed(self) -> Iterator[World]:
        """Every fault that may happen now: a death, or the loss of what the operator kept."""
        if self.faults:
            once = replace(self, faults=self.faults - 1)
            for i, m in enumerate(self.members):
                if m.running:
                    yield once.with_member(i, running=False, shown=False)
            if self.made and any(m.genesis for m in self.members):
                yield replace(once, made=False, signed=frozenset(), published=False)
            if self.source is not Source.ABSENT:
                yield replace(once, source=Source.ABSENT)


def cuts(world: World) -> Iterator[World]:
    """The world after each prefix of the plan."""
    for step in plan(world.desired, world.observe()):
        world = world.act(step)
        yield world


def settle(world: World) -> World:
    for _ in range(12):
        steps = plan(world.desired, world.observe())
        if not steps:
            return world
        for step in steps:
            world = world.act(step)
        world = world.answers()
    raise AssertionError(f"not settled: {plan(world.desired, world.observe())}")


def reachable(start: World) -> set[World]:
    seen, todo = {start}, [start]
    while todo:
        world = todo.pop()
        for after in (*cuts(world), *world.slow_answers(), *world.disturbed()):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def test_every_prefix_of_every_plan_reaches_the_goal() -> None:
    states = reachable(World())
    assert len(states) > 500, "the walk saw too little"
    for world in states:
        end = settle(world)
        assert end.published
        assert all(m.running and m.genesis == "complete" for m in end.members)


def test_every_prefix_of_every_restore_reaches_the_goal() -> None:
    """Whoever serves the backup may go away too; it is served until all have taken its state."""
    begun = World(keys=True, members=(SHOWN,) * 4, faults=1, restores=True)
    states = reachable(begun)
    assert len(states) > 100, "the walk saw too little"
    for world in states:
        end = settle(world)
        assert end.published
        assert end.source is Source.ABSENT
        assert all(m.running and m.state for m in end.members)


def test_steps_of_a_quiet_beginning() -> None:
    world, story = World(), []
    for _ in range(8):
        steps = plan(DESIRED, world.observe())
        story.append([type(s).__name__ for s in steps])
        for step in steps:
            world = world.act(step)
        world = world.answers()
    assert story == [
        ["EnsureKeys"],
        ["CreateVolume", "StartMember"] * 4 + ["WaitFor"],
        ["CreateGenesis"],
        ["DeliverGenesis"] * 4,
        ["CompleteGenesis"] + ["DeliverGenesis"] * 3,
        [],
        [],
        [],
    ]


def running_world() -> World:
    return settle(World(faults=0))


def test_a_lost_volume_is_reported_and_never_made_anew() -> None:
    world = running_world().with_member(2, volume=False, running=False, key=False, genesis="")
    assert plan(DESIRED, world.observe()) == (ReportLostVolume(NAMES[2]),)


def test_before_the_genesis_a_lost_volume_is_made_again() -> None:
    world = World(keys=True, members=(Member(volume=True),) * 3 + (Member(),))
    assert CreateVolume(NAMES[3]) in plan(DESIRED, world.observe())


def test_a_foreign_key_is_reported() -> None:
    observed = running_world().observe()
    members = list(observed.members)
    members[1] = replace(members[1], identity=b"x" * 32, report=None)
    assert plan(DESIRED, replace(observed, members=tuple(members))) == (
        ReportForeignVolume(NAMES[1]),
    )


def test_a_foreign_genesis_is_reported() -> None:
    observed = running_world().observe()
    members = list(observed.members)
    members[1] = replace(members[1], genesis=GenesisSeen(OTHER, complete=True), report=None)
    assert plan(DESIRED, replace(observed, members=tuple(members))) == (
        ReportForeignVolume(NAMES[1]),
    )


def test_two_genesis_records_are_never_chosen_between() -> None:
    observed = replace(running_world().observe(), genesis=None)
    members = list(observed.members)
    members[1] = replace(members[1], genesis=GenesisSeen(OTHER, complete=True))
    assert plan(DESIRED, replace(observed, members=tuple(members))) == (
        ReportForeignGenesis(NAMES),
    )


@pytest.mark.parametrize("stopped", range(4))
def test_no_genesis_while_one_member_is_not_seen(stopped: int) -> None:
    """The unseen one may hold a genesis that was made before."""
    world = World(keys=True, members=(SHOWN,) * 4)
    assert plan(DESIRED, world.observe()) == (CreateGenesis(),)
    steps = plan(DESIRED, world.with_member(stopped, running=False, shown=False).observe())
    assert CreateGenesis() not in steps
    assert steps[-1] == WaitFor(WaitReason.IDENTITY, (NAMES[stopped],))


def stopped_member(**changes: object) -> Observed:
    observed = running_world().observe()
    members = list(observed.members)
    members[3] = replace(
        members[3],
        running=False,
        report=None,
        identity=None,
        genesis=None,
        **changes,  # type: ignore[arg-type]
    )
    return replace(observed, members=tuple(members))


def test_back_off_is_waited_for() -> None:
    observed = stopped_member(attempts=2, last_exit=-9, stopped_for_ms=500)
    assert plan(DESIRED, observed) == (WaitFor(WaitReason.BACK_OFF, (NAMES[3],), 1500),)
    observed = stopped_member(attempts=2, last_exit=-9, stopped_for_ms=2000)
    assert plan(DESIRED, observed) == (StartMember(NAMES[3]),)


def test_exit_78_is_reported_and_not_restarted() -> None:
    observed = stopped_member(attempts=1, last_exit=78, stopped_for_ms=10**9)
    assert plan(DESIRED, observed) == (ReportStopped(NAMES[3], 78),)


def test_adoption_makes_neither_volumes_nor_a_genesis() -> None:
    adopt = replace(DESIRED, adopt=True)
    steps = plan(adopt, World(keys=True).observe())
    assert {type(s) for s in steps} == {WaitFor}
    waiting = World(keys=True, members=(SHOWN,) * 4)
    assert plan(adopt, waiting.observe()) == (WaitFor(WaitReason.ADOPTED_VOLUME, NAMES),)
    holding = World(keys=True, members=(replace(SHOWN, genesis="complete"),) * 4)
    assert plan(adopt, holding.observe()) == (AdoptGenesis(NAMES[0], GENESIS),)


def test_a_running_cluster_whose_admin_key_is_gone_goes_on() -> None:
    assert plan(DESIRED, replace(running_world().observe(), keys=False)) == ()
