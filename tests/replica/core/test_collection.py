"""What stable checkpoints let go of, and the records with which a log begins anew."""

from __future__ import annotations

import pytest

from dwcp_replica.core.collection import durable
from dwcp_replica.core.effects import Record, Tick
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.restore import OwnState
from dwcp_replica.core.state import Core
from replica.core.conversation import WALL_MS
from replica.core.stateful import Stateful


def busy_life() -> Stateful:
    """Checkpoints, view changes, a replaced tail, a member that fetched its state, a restart."""
    talk = Stateful(interval=2, timeout_ms=400)
    talk.open()
    for number in range(5):
        talk.put(number, number + 2)
    talk.isolate(0)
    talk.write_to(0)  # its proposal reaches nobody
    for number in range(9):
        talk.put(number, number + 3, b"without 0")
        talk.wait(1500)
    talk.cut.clear()
    talk.wait(4000)
    talk.hand_over(1)
    talk.deliver()
    for number in range(4):
        talk.put(number, number + 3, b"on")
    talk.crash(2)
    talk.restart(2)
    talk.put(0, 1, b"end")
    talk.wait(3000)
    return talk


def started(talk: Stateful, member: int, records: list[Record]) -> Core:
    held = talk.stores[member].held
    own = OwnState(talk.shelves[member].saved, held.digest())
    engine = Replica(
        genesis=talk.genesis,
        me=member,
        signer=talk.signers[member],
        verifier=talk.verifier,
        records=records,
        state=talk.shelves[member],
        own=own,
    )
    return engine._core


def promises(core: Core) -> tuple[object, ...]:
    """What a member must find again, but for how far down its log reaches."""
    low = core.low
    return (
        core.view,
        core.active,
        core.my_change,
        core.cc,
        core.cc_branch if core.cc and core.cc.header.index > low else (),
        core.stable,
        core.final,
        core.view_start,
        [slot.entry for slot in core.log.slots(low)],
        sorted(core.evidence),
        core.new_view if core.active and core.view > 1 else None,
    )


@pytest.mark.parametrize("member", range(4))
def test_every_torn_beginning_of_a_new_log_keeps_all_promises(member: int) -> None:
    """The log's new beginning is written behind the old records; a crash may keep any part."""
    talk = busy_life()
    assert len(set(talk.digests())) == 1
    old = talk.records[member]
    anew = talk.replicas[member].durable()
    expected = promises(started(talk, member, old))
    for kept in range(len(anew) + 1):
        assert promises(started(talk, member, old + anew[:kept])) == expected, kept
    alone = started(talk, member, anew)
    assert promises(alone) == expected
    assert durable(alone) == anew
    assert not alone.stateless


@pytest.mark.parametrize("member", range(4))
def test_a_member_goes_on_from_its_new_log(member: int) -> None:
    talk = busy_life()
    talk.crash(member)
    talk.records[member] = talk.replicas[member].durable()
    talk.restart(member)
    assert talk.replicas[member].standing().log_base > 0
    for number in range(6):
        talk.put(number, number + 1, b"after")
        talk.wait(1000)
    assert len(set(talk.digests())) == 1


def test_the_log_in_memory_stays_short() -> None:
    talk = Stateful(interval=2)
    talk.open()
    sizes = []
    for number in range(200):
        talk.put(number % 7, number % 7 + 1)
        core = talk.replicas[1]._core
        counts = (core.checkpoints, core.states, core.elections, core.elections_saved)
        counts += (core.checkpoint_headers, core.seen, core.ahead, core.bodies)  # type: ignore[assignment]
        sizes.append((core.log.last - core.log.base.index, sum(map(len, counts))))
    assert max(length for length, _ in sizes) <= 2 * 8 + 4
    assert max(count for _, count in sizes) <= 20


def test_elections_of_terms_that_are_gone_go_too() -> None:
    talk = Stateful(interval=2, timeout_ms=400)
    talk.open()
    for turn in range(12):
        talk.hand_over(turn % 4)
        talk.wait(500)
        talk.put(turn, turn + 1)
        talk.put(turn, turn + 2)
        talk.put(turn, turn + 3)
    core = talk.replicas[0]._core
    assert core.view > 8
    assert len(core.elections) <= 4
    assert len(core.elections_saved) <= 4


def test_nothing_is_cut_that_a_restart_needs() -> None:
    """The state on disk stays behind: entries above it stay, however stable they are."""
    talk = Stateful(interval=2)
    talk.open()
    held = talk.stores[1].held
    held.commit = lambda upto=None: False  # type: ignore[method-assign, assignment]
    for number in range(20):
        talk.put(number, number + 1)
    standing = talk.replicas[1].standing()
    assert standing.stable > 10
    assert (standing.saved, standing.log_base) == (0, 0)


def test_a_restart_executes_what_was_not_saved() -> None:
    talk = Stateful(interval=4)
    talk.open()
    for number in range(10):
        talk.put(number, number + 1)
    talk.wait(500)
    talk.crash(1)
    before = talk.stores[1].applied_index
    talk.restart(1)
    assert talk.shelves[1].saved < before
    assert talk.stores[1].applied_index == before
    assert len(set(talk.digests())) == 1


def test_a_restarted_engine_votes_for_its_checkpoint_again() -> None:
    """All stopped before any heard the others' votes: the checkpoint still becomes stable."""
    talk = Stateful(interval=2)
    talk.open()
    talk.put(0, 1)
    for member in range(4):
        talk.crash(member)
    for member in range(4):
        talk.restart(member)
        talk.replicas[member].step(Tick(talk.now_ms, WALL_MS + talk.now_ms))
    talk.wait(500)
    assert {talk.replicas[m].standing().stable for m in range(4)} == {2}
