"""A crash may come between any two records: every prefix of a Raft log must start."""

from __future__ import annotations

import pytest

from dwcp_replica.core.effects import Tick
from dwcp_replica.core.replica import Replica, Standing
from replica.core.conversation import WALL_MS, Conversation


def busy_life(n: int, trust: str) -> Conversation:
    """Requests, checkpoints, elections, a replaced tail, a hand-over, a restart."""
    talk = Conversation(n=n, interval=2, protocol="raft", trust=trust)  # type: ignore[arg-type]
    for key in "abc":
        talk.submit(0, key, "1")
        talk.deliver()
    talk.isolate(0)
    talk.submit(0, "x", "lost")
    talk.deliver()
    talk.submit(1, "d", "2")
    talk.wait(2000)
    talk.cut.clear()
    talk.wait(2000)
    leader = talk.replicas[1].standing().primary
    talk.hand_over(leader)
    talk.deliver()
    talk.submit(2, "e", "3")
    talk.deliver()
    talk.crash(2)
    talk.restart(2)
    talk.submit(n - 1, "f", "4")
    talk.wait(3000)
    return talk


def start(talk: Conversation, member: int, records: int) -> Standing:
    engine = Replica(
        genesis=talk.genesis,
        me=member,
        signer=talk.signers[member],
        verifier=talk.verifier,
        records=talk.records[member][:records],
        draw=talk.dice[member].randrange,
    )
    engine.step(Tick(talk.now_ms, WALL_MS + talk.now_ms))
    return engine.standing()


@pytest.mark.parametrize(("n", "trust"), [(4, "Byzantine"), (3, "Crash")])
def test_every_prefix_of_a_log_starts(n: int, trust: str) -> None:
    talk = busy_life(n, trust)
    assert len({tuple(talk.values(m)) for m in range(n)}) == 1
    assert set(talk.values(0)) == {b"1", b"2", b"3", b"4", b"lost"}
    for member in range(n):
        final = view = 0
        for count in range(len(talk.records[member]) + 1):
            standing = start(talk, member, count)
            assert standing.halted is None
            assert standing.final >= final, "what was durably final stays so"
            assert standing.view >= view, "a term once voted in is never below"
            final, view = standing.final, standing.view
        assert final > 0
        assert view >= 3


def test_a_restart_executes_what_was_final_from_the_start() -> None:
    talk = busy_life(4, "Byzantine")
    before = talk.values(1)
    talk.crash(1)
    talk.restart(1)
    talk.wait(1000)
    assert talk.values(1) == before
