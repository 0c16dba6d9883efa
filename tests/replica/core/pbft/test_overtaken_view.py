"""A NEW-VIEW that waited for bodies, while catch-up has brought later views."""

from __future__ import annotations

from collections.abc import Callable

from dwcp.wire.peer import (
    Bodies,
    Commit,
    Entries,
    Fetch,
    NewView,
    PeerMessage,
    Prepare,
    Status,
)
from replica.core.conversation import Conversation


class Choosy(Conversation):
    """A conversation in which the test decides which messages are lost."""

    lost: Callable[[int, int, PeerMessage], bool] = staticmethod(lambda s, t, m: False)

    def deliver_once(self) -> None:
        for source, target, message in self.step():
            if not self.lost(source, target, message) and not self.down & {source, target}:
                self.receive(target, source, message)


def waiting_for_bodies(n: int) -> Choosy:
    """The last member holds NEW-VIEW(2), which member 1 has shown to it alone, and no bodies."""
    talk = Choosy(n=n, timeout_ms=400)
    last = n - 1
    talk.lost = lambda s, t, m: last in (s, t)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.lost = lambda s, t, m: last in (s, t) or isinstance(m, Prepare | Commit)
    talk.submit(0, "b", "2")
    talk.deliver()
    talk.lost = lambda s, t, m: (
        (isinstance(m, NewView) and t != last)
        or isinstance(m, Bodies | Entries | Prepare | Commit)
        or (last in (s, t) and not isinstance(m, NewView))
    )
    talk.hand_over(0)
    talk.deliver()
    assert talk.replicas[1].standing().view == 2
    assert talk.replicas[1].standing().active
    assert not talk.replicas[last].standing().active or talk.replicas[last].standing().view == 1
    return talk


def only_catch_up(last: int, silent: int | None = None) -> Callable[[int, int, PeerMessage], bool]:
    """The last member hears statuses and answers; `silent` is heard by nobody."""
    return lambda s, t, m: (
        s == silent or (last in (s, t) and not isinstance(m, Status | Fetch | Entries))
    )


def test_a_view_that_was_overtaken_halts_nobody() -> None:
    """Member 6 waits for the bodies of NEW-VIEW(2). View 2 fails; view 3 begins without member 1's
    statement and goes on. Member 6 learns by catch-up what is final, in view 3; it then takes up
    the NEW-VIEW of view 2 again, finds that its start does not extend what is final, and halts for
    good. Nobody has lied.
    """
    talk = waiting_for_bodies(7)
    talk.lost = only_catch_up(6, silent=1)
    talk.wait(4000)
    standing = talk.replicas[2].standing()
    assert standing.view == 3
    assert standing.final >= 3
    assert talk.replicas[6].standing().halted is None
    assert talk.replicas[6].standing().final == standing.final


def test_a_view_never_goes_back() -> None:
    """As above, but the entry with which view 2 began is part of the final chain: the member enters
    view 2 and signs in it after its log has passed to view 3 (epochs.md: term monotone; nothing
    below the log's last term is signed).
    """
    talk = waiting_for_bodies(4)
    talk.lost = lambda s, t, m: 3 in (s, t)
    talk.wait(150)
    talk.hand_over(1)
    talk.wait(100)
    assert talk.replicas[0].standing().view == 3
    assert talk.replicas[0].standing().final == 4
    talk.lost = only_catch_up(3)
    seen = 0
    for _ in range(80):
        talk.wait(50)
        core = talk.replicas[3]._core
        assert core.halted is None
        assert core.view >= seen, f"view {core.view} after {seen}"
        assert not core.active or core.log.tip.term <= core.view
        seen = core.view
    assert talk.replicas[3].standing().final >= 3
