"""About how many bytes a peer's message holds, for what waits in memory."""

from __future__ import annotations

from dwcp.wire.peer import (
    Bodies,
    Elections,
    Entries,
    Forward,
    NewView,
    PeerMessage,
    PrePrepare,
    ViewChange,
)
from dwcp_replica.core.election_book import HEADER_BYTES, size_bytes

SMALL_BYTES = 512
"""A vote, a status or a question."""


def weight_bytes(message: PeerMessage) -> int:
    """What keeping the message costs, without encoding it again."""
    match message:
        case PrePrepare(entry):
            return SMALL_BYTES + len(entry.body)
        case Forward(envelopes):
            return sum(SMALL_BYTES + len(envelope.body) for envelope in envelopes)
        case Bodies(bodies):
            return sum(SMALL_BYTES + len(body) for body in bodies)
        case Entries(entries, links, _, elections):
            held = sum(SMALL_BYTES + len(entry.body) for entry in entries)
            return held + len(links) * HEADER_BYTES + sum(map(size_bytes, elections))
        case ViewChange(log=log, branch=branch):
            return SMALL_BYTES + (len(log) + len(branch)) * HEADER_BYTES
        case NewView(election, first):
            return size_bytes(election) + len(first.body)
        case Elections(elections):
            return sum(map(size_bytes, elections))
        case _:
            return SMALL_BYTES
