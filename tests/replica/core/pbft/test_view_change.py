"""When a view is given up, and when it must not be."""

from __future__ import annotations

import msgspec

from dwcp.wire.peer import NewView, PrePrepare, ViewChange
from dwcp_replica.core.effects import MessageRefused, Received, Tick
from replica.core.conversation import WALL_MS, Conversation


def views(talk: Conversation) -> list[int]:
    return [replica.standing().view for replica in talk.replicas]


def tick(talk: Conversation, ms: int) -> None:
    talk.now_ms += ms
    for i in range(talk.n):
        talk._act(i, Tick(talk.now_ms, WALL_MS + talk.now_ms))


def test_a_request_after_a_long_idle_time_costs_no_view() -> None:
    talk = Conversation()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.wait(5000)
    talk.submit(0, "b", "2")
    proposals = [(t, m) for _, t, m in talk.step() if isinstance(m, PrePrepare)]
    for target, message in proposals:
        talk.receive(target, 0, message)
    tick(talk, 100)
    talk.deliver()
    assert views(talk) == [1, 1, 1, 1]
    assert talk.values(1) == [b"1", b"2"]


def test_an_idle_cluster_replaces_a_dead_primary() -> None:
    talk = Conversation(timeout_ms=400)
    talk.crash(0)
    talk.wait(1500)
    assert views(talk)[1:] == [2, 2, 2]


def test_an_idle_cluster_stays_in_its_view() -> None:
    talk = Conversation(timeout_ms=400)
    talk.wait(10_000)
    assert views(talk) == [1, 1, 1, 1]


def test_two_primaries_in_a_row_are_dead() -> None:
    """n = 7 outlives both; the timer doubles and the second view change runs."""
    talk = Conversation(n=7, timeout_ms=400)
    talk.crash(0)
    talk.crash(1)
    talk.submit(2, "a", "1")
    talk.wait(4000)
    assert set(views(talk)[2:]) == {3}
    for member in range(2, 7):
        assert talk.values(member) == [b"1"]


def test_one_voice_does_not_move_the_others() -> None:
    """f members alone can not replace a primary that works."""
    talk = Conversation(timeout_ms=400)
    talk.isolate(3)
    talk.wait(3000)
    assert views(talk)[3] > 1
    talk.cut.clear()
    talk.submit(0, "a", "1")
    talk.wait(500)
    assert views(talk)[:3] == [1, 1, 1]
    assert talk.values(0) == talk.values(3) == [b"1"], "the lone doubter still learns"


def test_a_lone_doubter_is_let_in_again() -> None:
    """It may sign nothing below the view it asked for, so the primary moves there with all."""
    talk = Conversation(timeout_ms=400)
    talk.isolate(3)
    talk.wait(3000)
    talk.cut.clear()
    talk.wait(3000)
    assert views(talk) == [2, 2, 2, 2]
    assert all(replica.standing().active for replica in talk.replicas)
    talk.crash(0)
    talk.submit(1, "a", "1")
    talk.deliver()
    assert talk.values(3) == [b"1"], "three of four are enough again"


def test_a_liar_that_always_doubts_gets_its_way_ever_more_rarely() -> None:
    talk = Conversation(timeout_ms=400)
    moved = []
    for _ in range(3):
        started = talk.now_ms
        view = views(talk)[0]
        talk.isolate(3)
        talk.wait(3000)
        talk.cut.clear()
        while views(talk)[0] == view:
            talk.wait(200)
            assert talk.now_ms - started < 100_000
        talk.wait(1000)
        moved.append(talk.now_ms - started)
    assert moved[2] - moved[1] > moved[1] - moved[0] > 0, moved


def test_what_was_prepared_anywhere_survives() -> None:
    """Only the replica that prepared an entry had heard everyone; its word is enough."""
    talk = Conversation(timeout_ms=400)
    talk.submit(0, "a", "1")
    talk.cut = {(i, j) for i in range(4) for j in (1, 2, 3) if i != j}
    for source, target, message in talk.step():  # the proposal reaches 1 and 2
        if target in (1, 2):
            talk.receive(target, source, message)
    for source, target, message in talk.step():  # only 1 hears the prepares
        if target == 1:
            talk.receive(target, source, message)
    assert talk.replicas[1].standing().prepared == 1
    talk.crash(0)
    talk.cut.clear()
    talk.inbox.clear()
    talk.wait(2000)
    assert talk.values(1) == talk.values(2) == talk.values(3) == [b"1"]


def test_a_restarted_primary_never_leads_that_view_again() -> None:
    talk = Conversation()
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.crash(0)
    talk.restart(0)
    talk.deliver()
    assert views(talk) == [2, 2, 2, 2]
    talk.submit(1, "b", "2")
    talk.deliver()
    assert talk.values(0) == [b"1", b"2"]


def test_a_view_change_is_resent_as_it_is_even_after_a_restart() -> None:
    talk = Conversation(timeout_ms=400)
    for i in (1, 2, 3):
        talk.isolate(i)
    talk.wait(1500)
    talk.inbox.clear()
    talk.cut.clear()
    talk.now_ms += 150
    before = changes(talk, 3)
    talk.restart(3)
    talk.inbox.clear()
    after = changes(talk, 3)
    assert before
    assert after == before


def changes(talk: Conversation, member: int) -> list[ViewChange]:
    talk.now_ms += 150
    talk._act(member, Tick(talk.now_ms, WALL_MS + talk.now_ms))
    sent = [m for source, target, m in talk.step() if source == member and target == 0]
    return [m for m in sent if isinstance(m, ViewChange)]


def test_a_new_view_that_drops_an_entry_is_refused() -> None:
    """The new primary may not choose: its start is recomputed from the statements."""
    talk = Conversation(timeout_ms=400)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.crash(0)
    for _ in range(20):
        if found_new_view(talk):
            break
        tick(talk, 50)
        talk.deliver_once()
    new_view = next(m for _, _, m in talk.inbox if isinstance(m, NewView))
    empty = tuple(msgspec.structs.replace(c, log=(), cc=None) for c in new_view.election.changes)
    forged = NewView(msgspec.structs.replace(new_view.election, changes=empty), new_view.first)
    ready = talk.replicas[2].step(Received(1, forged))
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)] == ["signature"]
    assert not talk.replicas[2].standing().active


def found_new_view(talk: Conversation) -> bool:
    return any(isinstance(message, NewView) for _, _, message in talk.inbox)
