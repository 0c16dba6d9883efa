"""One member's flood must not close the door to others."""

from __future__ import annotations

from pathlib import Path

from dwcp.wire.peer import (
    Certificate,
    Entries,
    Entry,
    Header,
    Status,
)
from replica.test_node_backlog import running, taken_in
from replica.waiting import in_loop

HEADER = Header(0, 1, 1, bytes(32), bytes(32), bytes(64))
NO_VOTES = Certificate("commit", HEADER, b"", ())


@in_loop
async def _closed_door(path: Path) -> None:
    replica = running(path)
    links = tuple(HEADER for _ in range(10))
    junk = Entries((Entry(HEADER, b""),), links, NO_VOTES, ())
    try:
        await taken_in(replica, 1, junk, 9000)
        assert (
            await taken_in(
                replica, 2, Status(0, 1, active=True, last=0, prepared=0, final=0, stable=0), 1
            )
            == 1
        )
    finally:
        await replica.close()


def test_small_false_messages_do_not_close_the_door_to_others(tmp_path: Path) -> None:
    """The gate takes turns, but its limit of 8192 waiting things is shared: one member's 18 MB of
    small answers with ten false signatures each fill it, and nobody else is read any more. From
    3072 on every client is told to come later.
    """
    _closed_door(tmp_path / "m-0")
