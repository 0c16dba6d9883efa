"""What a replica does in an epoch that is sealed, or whose start it does not hold: no driver.

It says where it stands, serves and fetches, repeats its SEAL and takes part in the slot.
"""

from __future__ import annotations

from typing import Final

from dwcp.wire.peer import Bodies, Elections, FetchBodies, Forward, Status
from dwcp_replica.core import catchup, election_book, peers
from dwcp_replica.core.driver import Handler
from dwcp_replica.core.epochs import slot, switching
from dwcp_replica.core.pbft import adoption
from dwcp_replica.core.state import Core


def on_tick(core: Core) -> None:
    """Act on what has become due."""
    slot.on_tick(core)
    if core.now_ms < core.heartbeat_ms:
        return
    core.heartbeat_ms = core.now_ms + peers.heartbeat_every_ms(core)
    core.broadcast(peers.status(core))
    if not core.waiting:
        catchup.pursue(core)
    if core.ending.seal is not None and core.mute is None:
        core.broadcast(core.ending.seal)
    switching.retry(core)
    slot.resend(core)


def deadline_ms(core: Core) -> int:
    """When the next tick matters."""
    due = [core.heartbeat_ms]
    timer_ms = core.ending.slot.timer_ms
    if timer_ms is not None:
        due.append(timer_ms + slot.timeout_ms(core) + 1)
    return max(core.now_ms, min(due))


def on_bodies(core: Core, sender: int, message: Bodies) -> None:
    """Take bodies that I asked for, and look again at what waits for them."""
    if adoption.take_bodies(core, sender, message):
        switching.retry(core)


def on_elections(core: Core, sender: int, message: Elections) -> None:
    """Take election certificates that I asked for, and look again at what waits for them."""
    if election_book.on_elections(core, sender, message):
        switching.retry(core)


def on_status(core: Core, sender: int, message: Status) -> None:
    """Note where another replica stands: what I lack may be there."""
    core.peers[sender] = message


HANDLERS: Final[dict[type[object], Handler]] = {
    FetchBodies: adoption.on_fetch_bodies,
    Bodies: on_bodies,
    Elections: on_elections,
    Forward: peers.on_forward,
    Status: on_status,
}
"""In place of the driver's."""
