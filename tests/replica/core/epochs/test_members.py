"""Members that come, go, lag, or lost the tail of their log."""

from __future__ import annotations

import pytest

from dwcp.wire.epochs import FetchHistory, Records
from dwcp.wire.peer import Entries, Fetch
from dwcp_replica.core.effects import Received, Retired, Tick
from dwcp_replica.core.epochs.cooldown import Cooldown
from replica.core.conversation import WALL_MS, Conversation

FOUR = [0, 1, 2, 3]


def served(values: int, **options: int) -> Conversation:
    talk = Conversation(**options)
    for value in range(values):
        talk.submit(0, "a", str(value))
        talk.deliver()
    talk.wait(200)
    return talk


def epochs(talk: Conversation) -> list[int]:
    return [r.standing().epoch for r in talk.replicas]


def test_a_learner_is_counted_only_when_it_holds_the_start_state() -> None:
    """With one member of four down, the swap waits until the newcomer has caught up."""
    talk = served(6)
    newcomer = talk.join()
    talk.down |= {3, newcomer}
    talk.order([0, 1, 2, newcomer])
    talk.wait(1000)
    assert epochs(talk)[:3] == [1, 1, 1], "q of the new set stay: they hold the state already"
    assert not talk.replicas[newcomer].standing().epoch
    talk.down.discard(newcomer)
    talk.wait(2000)
    standing = talk.replicas[newcomer].standing()
    assert (standing.epoch, standing.me, standing.mute) == (1, 3, None)
    assert talk.values(newcomer) == talk.values(0)


def test_too_few_that_have_caught_up_are_not_swapped_in() -> None:
    talk = served(3)
    new = [talk.join() for _ in range(2)]
    talk.down |= set(new)
    talk.order([0, 1, *new])
    talk.wait(2000)
    assert epochs(talk)[:4] == [0, 0, 0, 0]
    talk.down.clear()
    talk.wait(3000)
    assert {talk.replicas[m].standing().epoch for m in (0, 1, *new)} == {1}


def test_a_member_that_was_removed_counts_no_more_and_follows_on() -> None:
    talk = served(3)
    newcomer = talk.join()
    talk.order([0, 1, 2, newcomer])
    talk.wait(2000)
    removed = talk.replicas[3].standing()
    assert (removed.epoch, removed.me) == (1, None)
    assert removed.mute is not None
    talk.crash(2)
    talk.submit(0, "b", "x")
    talk.wait(1500)
    assert b"x" in talk.values(newcomer), "three of the four new members go on"
    talk.crash(newcomer)
    talk.submit(0, "b", "y")
    talk.wait(1500)
    assert b"y" not in talk.values(0), "the removed one is not counted in its place"


def test_from_four_to_seven_and_back() -> None:
    talk = served(5, interval=2)
    new = [talk.join() for _ in range(3)]
    talk.order([*FOUR, *new])
    talk.wait(3000)
    assert [r.standing().me for r in talk.replicas] == list(range(7))
    talk.crash(5)
    talk.crash(6)
    talk.submit(1, "b", "x")
    talk.wait(1500)
    assert b"x" in talk.values(4), "seven bear two that are down"
    talk.order(FOUR, to=0)
    talk.wait(3000)
    assert {talk.replicas[m].standing().epoch for m in FOUR} == {2}
    assert talk.replicas[4].standing().me is None


def test_everybody_learns_when_the_new_members_hold_the_state() -> None:
    talk = served(3)
    newcomer = talk.join()
    talk.said.clear()
    talk.order([0, 1, 2, newcomer])
    talk.wait(2500)
    told = {line.split(":")[0] for line in talk.said if f"{Retired.__name__} epoch=1" in line}
    assert told == {"0", "1", "2", "3", str(newcomer)}, "the removed member too: it may go now"


def damaged(talk: Conversation, member: int) -> None:
    talk.crash(member)
    talk.records[member].pop()
    talk.damaged[member] = "damaged tail"
    talk.restart(member)


def test_a_lost_tail_is_made_good_by_an_epoch() -> None:
    talk = served(3)
    damaged(talk, 2)
    assert talk.replicas[2].standing().mute == "damaged tail"
    talk.wait(2000)
    assert talk.replicas[2].standing().mute is None
    assert epochs(talk) == [1, 1, 1, 1]
    talk.crash(0)
    talk.submit(1, "b", "x")
    talk.wait(3000)
    assert b"x" in talk.values(1), "it is one of three that are needed"


def test_a_lost_tail_waits_for_an_epoch_above_the_one_that_others_prove() -> None:
    """Another epoch begins while it asks: it may have voted there, and stays mute in it."""
    talk = served(3)
    talk.isolate(2)
    talk.order(FOUR)
    talk.wait(1500)
    assert epochs(talk) == [1, 1, 0, 1]
    damaged(talk, 2)
    talk.cut.clear()
    seen = set()
    for _ in range(60):
        talk.wait(50)
        standing = talk.replicas[2].standing()
        seen.add((standing.epoch, standing.mute is None))
    assert (1, True) not in seen
    assert (2, True) in seen


def test_refreshes_on_request_wait_for_the_cooldown() -> None:
    talk = served(3)
    for _ in range(3):
        damaged(talk, 2)
        talk.damaged.clear()
        talk.wait(3000)
    asked = Cooldown().failed(0).wait_ms()
    assert max(epochs(talk)) == 1, f"the next one comes after {asked} ms"


@pytest.mark.parametrize("member", FOUR)
def test_own_tail_is_not_taken_for_final(member: int) -> None:
    """Cut off with entries that nobody else has, it hears of two epochs at once (life 505)."""
    talk = served(2)
    talk.isolate(member)
    talk.submit(member, "lost", "never")
    others = [m for m in FOUR if m != member]
    for turn in range(2):
        talk.wait(3000)
        talk.order(FOUR, to=others[0])
        talk.wait(1500)
        talk.submit(others[0], "b", str(turn))
        talk.wait(1500)
    talk.cut.clear()
    talk.wait(4000)
    assert len(set(epochs(talk))) == 1
    assert len({tuple(talk.values(m)) for m in others}) == 1
    assert talk.values(member)[: len(talk.values(others[0]))] == talk.values(others[0])


def test_entries_above_a_start_that_is_not_held_wait_for_it() -> None:
    """Somebody shows them to a member that fetches what lies below: executed, they would be
    executed first (life 2439)."""
    talk = served(3)
    talk.isolate(3)
    talk.submit(0, "b", "unseen")
    talk.wait(500)
    talk.order(FOUR)
    talk.wait(500)
    talk.submit(1, "c", "above")
    talk.wait(500)
    talk.receive(3, 0, Records(talk.replicas[0].certified))
    asked = [target for s, target, m in talk.step() if s == 3 and isinstance(m, FetchHistory)]
    for _ in range(3):
        talk.now_ms += 600
        talk._act(3, Tick(talk.now_ms, WALL_MS + talk.now_ms))
        asked += [target for s, target, m in talk.step() if s == 3 and isinstance(m, FetchHistory)]
    start = talk.replicas[0].standing().record.start_index
    for member in asked:
        ready = talk.replicas[member].step(Received((member + 1) % 4, Fetch(1, start + 1)))
        (shown,) = [out.message for out in ready.send if isinstance(out.message, Entries)]
        talk.receive(3, member, shown)
    assert asked
    assert talk.values(3) == talk.values(0)[:3]
    assert talk.replicas[3].standing().waiting
    talk.cut.clear()
    talk.wait(2000)
    assert talk.values(3) == talk.values(0)


@pytest.mark.parametrize("interval", [2, 100])
def test_all_may_be_replaced_at_once(interval: int) -> None:
    """What the newcomers lack of the old epoch only the former members have: they are asked."""
    talk = served(5, interval=interval)
    new = [talk.join() for _ in range(4)]
    talk.order(new)
    talk.wait(4000)
    assert [talk.replicas[m].standing().me for m in new] == [0, 1, 2, 3]
    assert {talk.replicas[m].standing().waiting for m in new} == {False}
    assert {tuple(talk.values(m)) for m in new} == {tuple(talk.values(0))}
    talk.submit(new[1], "b", "on")
    talk.wait(1500)
    assert all(b"on" in talk.values(m) for m in new)
