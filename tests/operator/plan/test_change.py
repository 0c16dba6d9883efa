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
    StartMember,
    Step,
    Volume,
    WaitFor,
    WaitReason,
    plan,
    quorum,
)
from dwcp_operator.plan.change import wanted_change

NAMES = tuple(f"demo-{i}" for i in range(4))


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

    def desired(self) -> Desired:
        return Desired(cluster="demo", members=self.members, count=self.count)

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
        said = report(self.epoch, 500, evidence=proofs) if running else None
        return MemberObserved(
            name=name, volume=volume, running=running, identity=b"k", report=said,
            attempts=1, stopped_for_ms=0,
        )  # fmt: skip

    def _learner(self, name: str) -> MemberObserved:
        applied = 500 if name in self.caught_up else 10
        said = report(self.epoch, applied, ready=False) if name in self.invited else None
        return MemberObserved(
            name=name,
            volume=Volume.PRESENT if name in self.volumes else Volume.ABSENT,
            running=name in self.running,
            identity=b"k" if name in self.running else None,
            report=said,
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
        votes = [n for n in self.members if n in self.running & self.volumes - self.lies]
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
        sound = set(self.members) <= self.running & self.volumes - self.lies
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
    for _ in range(20):
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
