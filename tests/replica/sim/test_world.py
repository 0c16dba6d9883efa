"""Links and disks of the simulated world."""

from __future__ import annotations

from random import Random

from dwcp_replica.core.effects import EnteredRecord, Record
from dwcp_replica.sim.disk import Disk
from dwcp_replica.sim.world import Link, World


def arrivals(world: World, count: int, size: int = 0) -> list[int]:
    seen: list[int] = []
    for _ in range(count):
        world.deliver(("a", "b"), size, lambda: seen.append(world.now_ms))
    world.run(world.now_ms + 10_000, lambda: False)
    return seen


def test_each_direction_has_its_own_delay() -> None:
    world = World(Random(1), links={("a", "b"): Link(40, 40)}, link=Link(3, 3))
    seen: list[tuple[str, int]] = []
    world.deliver(("a", "b"), 0, lambda: seen.append(("there", world.now_ms)))
    world.deliver(("b", "a"), 0, lambda: seen.append(("back", world.now_ms)))
    world.run(100, lambda: False)
    assert seen == [("back", 3), ("there", 40)]


def test_a_narrow_link_makes_messages_queue() -> None:
    world = World(Random(1), link=Link(1, 1, bytes_per_ms=100))
    assert arrivals(world, 3, size=1000) == [11, 21, 31]


def test_loss_and_duplication_happen_as_often_as_asked() -> None:
    lost = arrivals(World(Random(1), link=Link(1, 1, drop=0.5)), 400)
    doubled = arrivals(World(Random(1), link=Link(1, 1, duplicate=0.5)), 400)
    assert 150 < len(lost) < 250
    assert 550 < len(doubled) < 650


def test_cuts_add_up_and_are_one_way() -> None:
    world = World(Random(1), link=Link(1, 1))
    world.cut([("a", "b")])
    world.cut([("a", "b")])
    world.mend([("a", "b")])
    assert arrivals(world, 1) == []
    world.mend([("a", "b")])
    assert len(arrivals(world, 1)) == 1


def test_time_stands_after_too_many_steps() -> None:
    world = World(Random(1), steps_max=10)

    def again() -> None:
        world.after(0, again)

    again()
    assert not world.run(1, lambda: False)
    assert world.steps == 10


def record(view: int) -> Record:
    return EnteredRecord(view, bytes(32))


class Kept:
    """A disk, and what it has told of."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(Random(seed))
        self.told: list[Record] = []
        self.disk = Disk(self.world, Random(seed), 5, self.told.append)
        self.done = 0

    def write(self, *records: Record) -> None:
        self.disk.write(list(records), self.finished)

    def finished(self) -> None:
        self.done += 1


def test_a_crash_loses_what_was_not_synced_or_all_but_a_prefix_of_it() -> None:
    lengths = set()
    for seed in range(40):
        kept = Kept(seed)
        kept.write(record(1), record(2), record(3))
        kept.disk.crash()
        kept.world.run(1000, lambda: False)
        assert kept.done == 0, "nothing that depends on it may happen"
        assert kept.disk.records == [record(1), record(2), record(3)][: len(kept.disk.records)]
        assert kept.told == kept.disk.records
        lengths.add(len(kept.disk.records))
    assert lengths == {0, 1, 2, 3}


def test_a_full_disk_waits_for_space() -> None:
    kept = Kept()
    kept.disk.fill()
    kept.write(record(1))
    kept.world.run(1000, lambda: False)
    assert kept.done == 0
    kept.disk.free()
    kept.world.run(2000, lambda: False)
    assert kept.done == 1
    assert kept.disk.records == [record(1)]


def test_a_damaged_tail_is_cut_off_and_the_log_goes_on() -> None:
    kept = Kept()
    kept.write(record(1), record(2))
    kept.world.run(1000, lambda: False)
    kept.disk.rot(tail=True)
    kept.write(record(3))
    kept.world.run(2000, lambda: False)
    assert kept.disk.records == [record(1), record(3)]
    assert kept.disk.mute == "damaged tail"


def test_a_log_damaged_in_the_middle_is_only_read() -> None:
    kept = Kept()
    kept.write(record(1), record(2))
    kept.world.run(1000, lambda: False)
    kept.disk.rot(tail=False)
    held = list(kept.disk.records)
    kept.write(record(3))
    kept.world.run(2000, lambda: False)
    assert kept.done == 2
    assert kept.disk.records == held
    assert kept.disk.mute == "damaged middle"
