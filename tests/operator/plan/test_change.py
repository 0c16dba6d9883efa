"""Changes of members against a small model of the world, cut off after every prefix of every plan.

The model plays replicas and the one who writes status: an order begins an epoch when it is given,
learners catch up one look later. All states that cuts can reach are visited; from each of them the
goal is reached, and on the way no order is given that a quorum could not carry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from dwcp_operator.plan import (
    AnnounceMembers,
    CreateVolume,
    Desired,
    EvidenceSeen,
    GenesisHeld,
    InviteMember,
    MemberObserved,
    Membership,
    Observed,
    OrderMembers,
    RemoveMember,
    Report,
    Rolling,
    StartMember,
    Step,
    Volume,
    WaitFor,
    WaitReason,
    plan,
    quorum,
)
from dwcp_operator.plan.change import wanted_change
from dwcp_operator.plan.leaving import Why

NAMES = tuple(f"demo-{i}" for i in range(4))
HOUR_MS = 3_600_000


def report(epoch: int, applied: int, **changes: object) -> Report:
    made = Report(
        epoch=epoch, view=1, active=True, primary="x", mode="Internet", role="backup",
        final_index=500, applied_index=applied, stable_checkpoint=0, stable_state="", ready=True,
        mute=None, evidence=(), seen_at="", settled=True,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class World:
    """What there is: everything that outlives the one who plans."""

    count: int
    members: tuple[str, ...] = NAMES
    epoch: int = 0
    used: frozenset[str] = frozenset(NAMES)
    joining: tuple[str, ...] = ()
    volumes: frozenset[str] = frozenset(NAMES)
    running: frozenset[str] = frozenset(NAMES)
    invited: frozenset[str] = frozenset()
    caught_up: frozenset[str] = frozenset()
    lies: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    lagging: frozenset[str] = frozenset()
    old_disks: frozenset[str] = frozenset()

    def desired(self) -> Desired:
        return Desired(
            cluster="demo", members=self.members, count=self.count,
            replace_after_ms=HOUR_MS, storage_class="fast",
        )  # fmt: skip

    def observed(self) -> Observed:
        genesis = GenesisHeld(
            b"g" * 32, dict.fromkeys(NAMES, b"k"), frozenset(NAMES), published=True
        )
        extra = self.running - set(self.members) - set(self.joining)
        return Observed(
            keys=True,
            genesis=genesis,
            members=tuple(self._member(name) for name in self.members),
            membership=Membership(self.epoch, self.members, self.used),
            joining=tuple(self._learner(name) for name in self.joining),
            former=tuple(sorted(extra)),
        )

    def _member(self, name: str) -> MemberObserved:
        volume = Volume.PRESENT if name in self.volumes else Volume.ABSENT
        running = name in self.running and volume is Volume.PRESENT
        proofs = tuple(EvidenceSeen(liar, "equivocation", 1, 1) for liar in sorted(self.lies))
        applied = 10 if name in self.lagging else 500
        said = report(self.epoch, applied, evidence=proofs) if running else None
        fails = name in self.gone | self.lagging
        return MemberObserved(
            name=name, volume=volume, running=running, identity=b"k", attempts=1,
            stopped_for_ms=0, report=None if name in self.gone else said,
            failing_for_ms=HOUR_MS if fails else 0,
            storage_class="slow" if name in self.old_disks else "fast",
        )  # fmt: skip

    def _learner(self, name: str) -> MemberObserved:
        applied = 500 if name in self.caught_up else 10
        said = report(self.epoch, applied, ready=False) if name in self.invited else None
        lost = name in self.gone
        return MemberObserved(
            name=name,
            volume=Volume.PRESENT if name in self.volumes else Volume.ABSENT,
            running=name in self.running,
            identity=b"k" if name in self.running and not lost else None,
            report=None if lost else said,
            failing_for_ms=HOUR_MS if lost else 0,
        )

    def noted(self) -> World:
        """The status names those that are to join, before anything is made for them."""
        wanted = wanted_change(self.desired(), self.observed())
        return replace(self, joining=() if wanted is None else wanted.joining)

    def acted(self, step: Step) -> World:
        match step:
            case CreateVolume(name):
                assert name in self.joining, "only new members get new volumes"
                assert name not in self.used, "a name is never used again"
                return replace(self, volumes=self.volumes | {name})
            case StartMember(name):
                assert name in self.volumes
                return replace(self, running=self.running | {name})
            case InviteMember(name):
                assert name in self.running
                assert name not in self.gone
                return replace(self, invited=self.invited | {name})
            case AnnounceMembers(names):
                return replace(self, caught_up=self.caught_up | (set(names) & self.invited))
            case OrderMembers(names):
                return self._ordered(names)
            case RemoveMember(name):
                assert name not in self.members, "a member is never stopped for good"
                return replace(self, running=self.running - {name})
        return self

    def _ordered(self, names: tuple[str, ...]) -> World:
        able = self.running & self.volumes - self.lies - self.gone
        votes = [n for n in self.members if n in able]
        assert len(votes) >= quorum(len(self.members)), "a quorum votes on every change"
        new = [n for n in names if n not in self.members]
        assert set(new) <= self.caught_up, "who is to join has learnt before"
        sound = [n for n in names if n in votes or n in new]
        assert len(sound) >= quorum(len(names)), "the members to be have a quorum"
        return replace(
            self, members=names, epoch=self.epoch + 1, used=self.used | set(names), joining=()
        )

    @property
    def is_done(self) -> bool:
        broken = self.lies | self.gone | self.lagging | self.old_disks
        sound = set(self.members) <= self.running & self.volumes - broken
        return len(self.members) == self.count and sound and self.running <= set(self.members)


STARTS = {
    "grows to seven": World(7),
    "grows to ten": World(10),
    "shrinks": World(
        4,
        members=(seven := tuple(f"demo-{i}" for i in range(7))),
        epoch=1,
        used=frozenset(seven),
        volumes=frozenset(seven),
        running=frozenset(seven),
    ),
    "lost a volume": World(4, volumes=frozenset(NAMES[1:])),
    "a liar": World(4, lies=frozenset({"demo-0"})),
    "grows with a member lost": World(7, volumes=frozenset(NAMES[1:])),
    "a node is gone": World(4, gone=frozenset({"demo-1"})),
    "two of seven nodes are gone": World(
        7,
        members=seven,
        epoch=1,
        used=frozenset(seven),
        volumes=frozenset(seven),
        running=frozenset(seven),
        gone=frozenset({"demo-1", "demo-5"}),
    ),
    "lags for good": World(4, lagging=frozenset({"demo-3"})),
    "grows with a node gone": World(7, gone=frozenset({"demo-1"})),
    "shrinks with a node gone": World(
        4,
        members=seven,
        epoch=1,
        used=frozenset(seven),
        volumes=frozenset(seven),
        running=frozenset(seven),
        gone=frozenset({"demo-1"}),
    ),
    "the node of a learner is gone too": World(
        4,
        volumes=frozenset((*NAMES[1:], "demo-4")),
        joining=("demo-4",),
        running=frozenset((*NAMES[1:], "demo-4")),
        gone=frozenset({"demo-4"}),
    ),
    "another storage class": World(4, old_disks=frozenset(NAMES)),
    "another storage class with a node gone": World(
        4, old_disks=frozenset(NAMES), gone=frozenset({"demo-2"})
    ),
    "left half way": World(
        4,
        joining=("demo-4",),
        volumes=frozenset((*NAMES, "demo-4")),
        running=frozenset((*NAMES, "demo-4")),
    ),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_every_prefix_of_every_change_reaches_the_goal(start: World) -> None:
    seen, left = {start}, [start]
    while left:
        world = left.pop()
        if not world.is_done:
            assert plan(world.desired(), world.observed()), f"nothing to do: {world}"
        reached = [world.noted()]
        now = world
        for step in plan(world.desired(), world.observed()):
            now = now.acted(step)
            reached += [now, now.noted()]
        assert len(seen) < 5000
        left += [one for one in reached if one not in seen and not seen.add(one)]
    for world in seen:
        assert goal(world).is_done, world


def goal(world: World) -> World:
    """Where uninterrupted rounds lead."""
    for _ in range(40):
        for step in plan(world.desired(), world.observed()):
            world = world.acted(step)
        world = world.noted()
    return world


def test_names_are_never_used_again() -> None:
    grown = goal(World(7))
    assert grown.members == tuple(f"demo-{i}" for i in range(7))
    shrunk = goal(replace(grown, count=4))
    assert shrunk.members == NAMES
    again = goal(replace(shrunk, count=7))
    assert again.members == (*NAMES, "demo-7", "demo-8", "demo-9")


def test_a_lost_member_is_replaced_in_its_place_and_not_waited_for() -> None:
    replaced = goal(World(4, volumes=frozenset((*NAMES[:2], NAMES[3]))))
    assert replaced.members == ("demo-0", "demo-1", "demo-4", "demo-3")
    assert replaced.epoch == 1


def test_a_member_whose_node_is_gone_is_replaced_only_when_its_time_is_over() -> None:
    world = World(4, gone=frozenset({"demo-1"}))
    observed = world.observed()
    late = replace(observed.member("demo-1"), failing_for_ms=HOUR_MS - 1)
    members = tuple(late if m.name == "demo-1" else m for m in observed.members)
    assert wanted_change(world.desired(), replace(observed, members=members)) is None
    assert wanted_change(replace(world.desired(), replace_after_ms=0), observed) is None
    change = wanted_change(world.desired(), observed)
    assert change is not None
    assert change.leaving == {"demo-1": Why.FAILING}
    assert change.members == ("demo-0", "demo-4", "demo-2", "demo-3")


def test_a_member_that_is_back_is_not_replaced_for_its_past() -> None:
    world = World(4)
    observed = world.observed()
    back = replace(observed.member("demo-1"), failing_for_ms=HOUR_MS)
    members = tuple(back if m.name == "demo-1" else m for m in observed.members)
    assert wanted_change(world.desired(), replace(observed, members=members)) is None


def test_without_a_quorum_nobody_is_judged_by_time() -> None:
    """Who sees too few of them may be the one that is cut off: it makes nothing, for nobody."""
    world = World(4, gone=frozenset(NAMES[:2]))
    assert wanted_change(world.desired(), world.observed()) is None
    begun = goal(World(4, gone=frozenset(NAMES[:1])).noted())
    assert begun.epoch == 1


def test_a_change_that_has_begun_is_not_dropped_by_one_look_without_a_quorum() -> None:
    world = World(4, gone=frozenset({"demo-1"})).noted()
    assert world.joining == ("demo-4",)
    blind = replace(world, gone=frozenset({"demo-1", "demo-2", "demo-3"}))
    change = wanted_change(blind.desired(), blind.observed())
    assert change is not None
    assert change.joining[:1] == ("demo-4",)


def test_a_member_that_fails_on_a_new_revision_is_the_rolls_business() -> None:
    world = World(4, gone=frozenset({"demo-1"}))
    rolling = replace(world.desired(), rolling=Rolling(settled=False))
    assert wanted_change(rolling, world.observed()) is None
    observed = world.observed()
    stuck = replace(observed.member("demo-1"), running=False)  # Terminating, on a node that is gone
    members = tuple(stuck if m.name == "demo-1" else m for m in observed.members)
    change = wanted_change(rolling, replace(observed, members=members))
    assert change is not None
    assert set(change.leaving) == {"demo-1"}


def test_a_learner_made_from_what_is_no_longer_asked_for_is_made_anew() -> None:
    world = replace(World(7).noted(), volumes=frozenset((*NAMES, "demo-4")))
    observed = world.observed()
    learner = replace(observed.joining[0], running=True, revision="old")
    joining = (learner, *observed.joining[1:])
    steps = plan(replace(world.desired(), revision="new"), replace(observed, joining=joining))
    assert RemoveMember("demo-4") in steps


def test_another_storage_class_takes_one_member_at_a_time_and_the_primary_last() -> None:
    world = World(4, old_disks=frozenset(NAMES))
    observed = world.observed()
    leads = replace(
        observed,
        members=tuple(
            replace(m, report=replace(m.report, primary="demo-0")) if m.report else m
            for m in observed.members
        ),
    )
    change = wanted_change(world.desired(), leads)
    assert change is not None
    assert change.leaving == {"demo-1": Why.STORAGE_CLASS}
    ill = replace(world, gone=frozenset({"demo-3"}))
    short = replace(ill.desired(), replace_after_ms=0)
    assert wanted_change(short, ill.observed()) is None
    pause = replace(world.desired(), rolling=Rolling(steady_ms=10_000))
    assert wanted_change(pause, world.observed()) is None, "the one before has only just come"
    done = goal(world)
    assert (done.epoch, done.members) == (4, ("demo-4", "demo-5", "demo-6", "demo-7"))


def test_without_a_quorum_nothing_is_ordered() -> None:
    two_lost = World(4, volumes=frozenset(NAMES[:2]))
    world = goal(two_lost)
    assert world.epoch == 0
    steps = plan(world.desired(), world.observed())
    assert WaitFor(WaitReason.QUORUM, ("demo-0", "demo-1", "demo-4", "demo-5")) in steps


def test_a_remembered_membership_changes_nothing() -> None:
    world = World(7)
    assert world.observed().membership is not None
    remembered = replace(
        world.observed(), membership=Membership(3, NAMES, frozenset(NAMES), is_current=False)
    )
    assert plan(world.desired(), remembered) == ()
