"""An honest primary under load is not given up while it goes on as fast as it can."""

from __future__ import annotations

from dwcp_replica.core.effects import Submit
from replica.core.test_floods import Slow


def test_a_long_queue_costs_no_view() -> None:
    """Two hundred requests of 300 kB (60 MB, within one client's bounds) need some thirty entries;
    150 ms one way, four entries in flight. The last ones wait longer than the time-out of 2 s, but
    the primary never rests: it is given up, and so is the next one, as long as the load lasts.
    (Castro and Liskov 1999, 4.4: a backup's timer starts again when the request that it ran for
    was executed, and then runs for another one that waits.)
    """
    talk = Slow(timeout_ms=2000)
    talk.delay_ms = 150
    for number in range(200):
        envelope = talk.envelope(f"k{number}", "x" * 300_000)
        for member in range(4):
            talk._act(member, Submit(envelope))
    for _ in range(200):
        talk.wait(50)
        if len(talk.values(1)) == 200:
            break
    assert len(talk.values(1)) == 200
    views = [replica.standing().view for replica in talk.replicas]
    assert views == [1, 1, 1, 1], f"given up: {views}"
