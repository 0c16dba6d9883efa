"""The election certificates a replica holds, and how it gets those it lacks."""

from __future__ import annotations

from dwcp.wire.peer import Election, Elections, FetchElections
from dwcp_replica.core.chain import Point
from dwcp_replica.core.effects import ElectionRecord
from dwcp_replica.core.elections import InvalidError, MissingElectionsError, start_of
from dwcp_replica.core.recover import UnsafeStartError
from dwcp_replica.core.state import Core

UNSAVED_MAX = 64
"""Certificates kept that nothing of mine rests on."""
SHOWN_MAX = 8
"""Certificates shown in one answer."""


def ask(core: Core, sender: int, digests: tuple[bytes, ...]) -> None:
    """Ask whoever named these certificates to show them."""
    core.elections_wanted.update(digests)
    if sender == core.me:
        core.broadcast(FetchElections(digests))
    else:
        core.send(sender, FetchElections(digests))


def on_fetch_elections(core: Core, sender: int, message: FetchElections) -> None:
    """Show the certificates that I hold."""
    held = [core.elections[d][0] for d in message.digests[:SHOWN_MAX] if d in core.elections]
    if held:
        core.send(sender, Elections(tuple(held)))


def on_elections(core: Core, sender: int, message: Elections) -> None:
    """Take certificates that I asked for, lowest view first."""
    for election in sorted(message.elections, key=lambda e: e.view):
        digest = election.digest()
        if digest not in core.elections_wanted:
            core.refuse(sender, message, "not-asked")
        elif keep(core, sender, election):
            core.elections_wanted.discard(digest)


def keep(core: Core, sender: int, election: Election) -> bool:
    """Keep a certificate after checking it; True when it holds."""
    digest = election.digest()
    if digest in core.elections:
        return True
    try:
        tip = start_of(core.membership, election, core.elections).tip
    except MissingElectionsError as missing:
        ask(core, sender, missing.digests)
        return False
    except (InvalidError, UnsafeStartError) as invalid:
        core.refuse(sender, election, str(invalid))
        return False
    remember(core, election, tip)
    return True


def remember(core: Core, election: Election, tip: Point) -> None:
    """Keep a certificate that was checked, in memory and within bounds.

    A liar can make as many as it likes, each with another statement of its own in it: only
    those that my own log rests on are made durable (`save`).
    """
    core.elections.setdefault(election.digest(), (election, tip))
    unsaved = [digest for digest in core.elections if digest not in core.elections_saved]
    for digest in unsaved[: max(0, len(unsaved) - UNSAVED_MAX)]:
        del core.elections[digest]


def save(core: Core, digest: bytes) -> None:
    """Make a certificate durable, and those that its statements name: others will ask for them."""
    if digest in core.elections_saved or digest not in core.elections:
        return
    core.elections_saved.add(digest)
    election, start = core.elections[digest]
    for change in election.changes:
        for ref in change.elections:
            save(core, ref.digest)
    core.persist(ElectionRecord(election, start.index, start.hash, start.term))
