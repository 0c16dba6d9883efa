"""A group of records that a process crash has cut short ("harmless": nothing of it was sent)."""

from __future__ import annotations

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import Entries, Fetch, NewView, PeerMessage, Prepare, PrePrepare, Status
from dwcp_replica.core.effects import Received, Tick, ViewChangeRecord
from dwcp_replica.core.replica import Replica
from replica.core.conversation import WALL_MS
from replica.core.pbft.test_view_start import Stage, final_among_2_and_3, two_starts


def torn_catch_up(stage: Stage) -> None:
    """Member 0 takes what is final from member 2, and dies before its last record is written."""
    stage.step()
    for _ in range(50):
        stage.now_ms += 50
        stage._act(0, Tick(stage.now_ms, WALL_MS + stage.now_ms))
        stage.step()
        stage.receive(0, 2, Status(0, 2, active=True, last=2, prepared=2, final=2, stable=0))
        fetches = [m for s, t, m in stage.step() if (s, t) == (0, 2) and isinstance(m, Fetch)]
        if fetches:
            break
    stage.receive(2, 0, fetches[0])
    entries = next(m for s, t, m in stage.step() if (s, t) == (2, 0) and isinstance(m, Entries))
    ready = stage.replicas[0].step(Received(2, entries))
    assert isinstance(ready.persist[-1], ViewChangeRecord), "it leaves the view, with good reason"
    stage.records[0] += ready.persist[:-1]
    stage.crash(0)
    stage.restart(0)


def test_a_torn_group_does_not_make_a_member_vote_twice() -> None:
    """Catch-up dropped entries of the present view, for which the member had voted, so it leaves
    the view; but the records say so last. After a crash in between, the log is another one, the
    view is still 2, and the member enters it again by the NEW-VIEW that the others know.
    """
    stage = Stage(liar=1, timeout_ms=4000)
    short, long = two_starts(stage)
    prepares: dict[tuple[int, int], set[bytes]] = {}

    def watch(source: int, _target: int, message: PeerMessage) -> bool:
        if source == 0 and isinstance(message, Prepare):
            h = message.header
            prepares.setdefault((h.term, h.index), set()).add(h.hash())
        return False

    stage.lost = watch
    stage.receive(0, 1, long)
    stage.deliver()
    final_among_2_and_3(stage, short)
    torn_catch_up(stage)
    stage.receive(0, 2, NewView(short.election, short.first))
    prev = short.first.header.hash()
    for index in range(3, 6):
        batch = Batch(WALL_MS + stage.now_ms, (stage.envelope("k", str(index)),))
        entry = stage.entry(2, index, prev, batch)
        prev = entry.header.hash()
        stage.tell([0, 2, 3], PrePrepare(entry))
        stage.deliver()
        stage.tell([2, 3], stage.commit(entry.header))
        stage.deliver()
    assert all(len(hashes) == 1 for hashes in prepares.values()), "two prepares for one place"


def test_a_mute_member_still_learns() -> None:
    """A mute member (damaged log) has voted for nothing, and can leave no view; what it holds of a
    view that began twice must not keep it from learning what is final.
    """
    stage = Stage(liar=1, timeout_ms=4000)
    short, long = two_starts(stage)
    stage.replicas[0] = Replica(
        genesis=stage.genesis,
        me=0,
        signer=stage.signers[0],
        verifier=stage.verifier,
        records=stage.records[0],
        mute="damaged tail",
    )
    stage.executed[0].clear()
    stage._act(0, Tick(stage.now_ms, WALL_MS + stage.now_ms))
    stage.receive(0, 1, long)
    assert stage.replicas[0].standing().active
    stage.lost = lambda s, t, m: 0 in (s, t) and not isinstance(m, Status | Fetch | Entries)
    final_among_2_and_3(stage, short)
    stage.wait(3000)
    assert stage.replicas[0].standing().final == 2
