"""Frontiers of documents as replicated state: what members voted, and what a quorum agreed on.

Members alone vote. The newest VOTES_MAX documents of each member count, so that what a liar may put
here is bounded, and takes no other member's place.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from dwcp.wire.frontiers import Frontier, FrontierResponse, FrontierVote, FrontierVoted
from dwcp.wire.operations import Failure
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import digest
from dwcp_replica.store.layout import FRONTIER, VOTES, after, decoder, encode
from dwcp_replica.store.undo import UndoRecords

VOTES_MAX: Final = 64


class Agreed(Struct, frozen=True, array_like=True):
    """What a quorum has voted for."""

    document: str
    frontier: Frontier


class Votes(Struct, frozen=True, array_like=True):
    """A member's votes, the newest last, and its last stamp."""

    stamp_ms: int
    votes: tuple[tuple[str, Frontier], ...]


_decode_agreed = decoder(Agreed)
_decode_votes = decoder(Votes)


class FrontierTable:
    """Votes by member key, agreed frontiers by document."""

    def __init__(self, records: UndoRecords) -> None:
        self._records = records

    def agreed(self, document: str) -> Frontier | None:
        """The frontier below which a document's operations are forgotten."""
        data = self._records.get(_place(document))
        return None if data is None else _decode_agreed(data).frontier

    def all(self) -> list[tuple[str, Frontier]]:
        """Every agreed frontier with its document."""
        found = (_decode_agreed(data) for _, data in self._records.scan(FRONTIER, after(FRONTIER)))
        return [(agreed.document, agreed.frontier) for agreed in found]

    def get(self, document: str) -> FrontierResponse:
        """The same as an answer."""
        return FrontierResponse(self.agreed(document))

    def votes(self) -> dict[bytes, Votes]:
        """What every member votes for, by its key."""
        found = self._records.scan(VOTES, after(VOTES))
        return {key[len(VOTES) :]: _decode_votes(data) for key, data in found}

    def stale(self, member: bytes, vote: FrontierVote) -> Failure | None:
        """Why a vote can not count any more; None when it may."""
        data = self._records.get(VOTES + member)
        if data is None or vote.stamp_ms > _decode_votes(data).stamp_ms:
            return None
        return Failure(9, "a later vote of this member counts already: send a new one")

    def vote(
        self, member: bytes, vote: FrontierVote, record: EpochRecord
    ) -> FrontierVoted | Failure:
        """Count a vote of one of the record's members."""
        if (failure := self.stale(member, vote)) is not None:
            return failure
        if list(vote.frontier.heads) != sorted(set(vote.frontier.heads)):
            return Failure(3, "the heads of a frontier ascend")
        self._forget_others(record)
        data = self._records.get(VOTES + member)
        before = () if data is None else _decode_votes(data).votes
        kept = [one for one in before if one[0] != vote.document]
        kept.append((vote.document, vote.frontier))
        made = Votes(vote.stamp_ms, tuple(kept[-VOTES_MAX:]))
        self._records.set(VOTES + member, encode(made))
        equal = sum((vote.document, vote.frontier) in one.votes for one in self.votes().values())
        if equal >= quorum(len(record.members), record.trust):
            agreed = Agreed(vote.document, vote.frontier)
            self._records.set(_place(vote.document), encode(agreed))
        return FrontierVoted()

    def _forget_others(self, record: EpochRecord) -> None:
        """Those who are no members any more do not vote."""
        members = {member.identity for member in record.members}
        for key in self.votes().keys() - members:
            self._records.remove(VOTES + key)


def _place(document: str) -> bytes:
    return FRONTIER + digest("document-name", document.encode())
