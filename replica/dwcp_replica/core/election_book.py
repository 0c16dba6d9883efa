"""The election certificates a replica holds, and how it gets those it lacks."""

from __future__ import annotations

from dwcp.wire.peer import AnyElection, Elections, FetchElections, VoteCertificate
from dwcp_replica.core.chain import Point
from dwcp_replica.core.effects import ElectionRecord
from dwcp_replica.core.elections import InvalidError, MissingElectionsError, start_of
from dwcp_replica.core.recover import UnsafeStartError
from dwcp_replica.core.state import Core

SHOWN_MAX = 64
"""Certificates looked at for one answer."""
SHOWN_BYTES_MAX = 4 * 1024 * 1024
HEADER_BYTES = 192
"""What a header takes in a frame, and a little more."""


def size_bytes(election: AnyElection) -> int:
    """About what a certificate takes in a frame."""
    if isinstance(election, VoteCertificate):
        return (len(election.votes) + 1) * HEADER_BYTES
    headers = sum(len(c.log) + len(c.branch) + 16 for c in election.changes)
    return headers * HEADER_BYTES


def ask(core: Core, sender: int, missing: MissingElectionsError) -> None:
    """Ask whoever showed something that needs these certificates to show them."""
    core.elections_wanted[sender] = frozenset(missing.digests) | {s.hash for s in missing.starts}
    question = FetchElections(missing.digests, missing.starts)
    if sender == core.me:
        core.broadcast(question)
    else:
        core.send(sender, question)


def on_fetch_elections(core: Core, sender: int, message: FetchElections) -> None:
    """Show the certificates that I hold, as many as fit a frame."""
    named = set(message.digests[:SHOWN_MAX])
    starts = {(s.term, s.hash) for s in message.starts[:SHOWN_MAX]}
    found: list[AnyElection] = []
    room = SHOWN_BYTES_MAX
    for digest, (election, start) in core.elections.items():
        if digest in named or (election.view, start.hash) in starts:
            room -= size_bytes(election)
            if found and room < 0:
                break
            found.append(election)
    if found and core.afford(sender, SHOWN_BYTES_MAX - room):
        core.send(sender, Elections(tuple(found)))


def on_elections(core: Core, sender: int, message: Elections) -> bool:
    """Take certificates that I asked for, lowest view first; True when one was new."""
    nothing: frozenset[bytes] = frozenset()
    wanted = core.elections_wanted.get(sender, nothing) | core.elections_wanted.get(
        core.me, nothing
    )
    if not wanted:
        core.refuse(sender, message, "not-asked")
        return False
    took = False
    for election in sorted(message.elections, key=lambda e: e.view)[:SHOWN_MAX]:
        if election.digest() in core.elections:
            continue
        tip = verified(core, sender, election)
        if tip is None:
            continue
        if election.digest() in wanted or tip.hash in wanted:
            remember(core, election, tip)
            took = True
        else:
            core.refuse(sender, message, "not-asked")
    return took


def verified(core: Core, sender: int, election: AnyElection) -> Point | None:
    """Where a certificate starts its view, after checking it; None when it does not hold (yet)."""
    try:
        return start_of(core.membership, election, core.elections).tip
    except MissingElectionsError as missing:
        ask(core, sender, missing)
    except (InvalidError, UnsafeStartError) as invalid:
        core.refuse(sender, election, str(invalid))
    return None


def keep(core: Core, sender: int, election: AnyElection) -> bool:
    """Keep a certificate after checking it; True when it holds."""
    if election.digest() in core.elections:
        return True
    tip = verified(core, sender, election)
    if tip is not None:
        remember(core, election, tip)
    return tip is not None


def remember(core: Core, election: AnyElection, tip: Point) -> None:
    """Keep a certificate that was checked, in memory and within bounds.

    A liar can make as many as it likes, each with another statement of its own in it: only
    those that my own log rests on are made durable (`save`).
    """
    core.elections.setdefault(election.digest(), (election, tip))
    unsaved = [digest for digest in core.elections if digest not in core.elections_saved]
    for digest in unsaved[: max(0, len(unsaved) - 2 * core.window - SHOWN_MAX)]:
        del core.elections[digest]


def save(core: Core, digest: bytes) -> None:
    """Make a certificate durable, and those that its statements name: others will ask for them."""
    if digest in core.elections_saved or digest not in core.elections:
        return
    core.elections_saved.add(digest)
    election, start = core.elections[digest]
    changes = () if isinstance(election, VoteCertificate) else election.changes
    for change in changes:
        for ref in change.elections:
            save(core, ref.digest)
    core.persist(ElectionRecord(election, start.index, start.hash, start.term))
