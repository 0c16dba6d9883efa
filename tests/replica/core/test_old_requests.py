"""A primary that has nothing new to propose must not be able to fill the log."""

from __future__ import annotations

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import PrePrepare
from replica.core.conversation import WALL_MS
from replica.core.pbft.test_view_start import Stage


def test_a_primary_can_not_fill_the_log_with_old_requests() -> None:
    """Every replica stores each entry for ever. A lying primary proposes an envelope that was
    executed long ago in entry after entry, 3.5 MB each if it likes, at the speed of the network;
    its signature still holds, so that all honest members vote for it and keep it.
    """
    stage = Stage(liar=0)
    envelope = stage.envelope("a", "1")
    prev = stage.genesis.start_hash
    for index in range(1, 11):
        batch = Batch(WALL_MS + stage.now_ms, (envelope,))
        entry = stage.entry(1, index, prev, batch)
        prev = entry.header.hash()
        stage.tell([1, 2, 3], PrePrepare(entry))
        stage.deliver()
    assert stage.replicas[1].standing().final == 1, "only the first had anything to do"
