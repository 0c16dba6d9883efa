"""Whom this replica knows: who may connect, and whom it dials.

Numbers are those of the engine's directory (`Replica.peers`): they stay when epochs change. Three
kinds of peers have one: members of the record in force; learners, named by an order of the admin
since that record began; and former ones, everybody else. Members and learners are always dialed.
Former ones are dialed until a quorum of the members holds the epoch's start (`settle`), and after
that while they are connected to us: so one that was away hears that it was removed.

A member whose key changes has two numbers for a while, and is one replica all the same: it shows
one certificate, and is dialed as the member that it is now.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from dwcp.wire.records import EpochRecord, Member
from dwcp_replica.net.hello import LocalMember


class Roster:
    """Peers by number, and who of them is what. `local` is this replica."""

    def __init__(self, local: LocalMember, record: EpochRecord) -> None:
        self.local = local
        self.members: tuple[Member, ...] = ()
        self.settled = False
        self._numbers: dict[bytes, int] = {}
        self._inside: frozenset[int] = frozenset()
        self._former: frozenset[int] = frozenset()
        self._twins: frozenset[int] = frozenset()
        self.know(record.members)
        self.enter(local, record)

    def know(self, members: Sequence[Member]) -> None:
        """Take the directory as it is now: it grows, and addresses may change."""
        self.members = tuple(members)
        self._numbers = {member.identity: n for n, member in enumerate(members)}
        self._note_twins()

    def enter(self, local: LocalMember, record: EpochRecord) -> None:
        """Another record is in force; everybody whom it does not name is former now."""
        self.local = local
        inside = {self._numbers[m.identity] for m in record.members if m.identity in self._numbers}
        self._inside = frozenset(inside)
        self._former = frozenset(self._numbers.values()) - self._inside
        self.settled = False
        self._note_twins()

    def _note_twins(self) -> None:
        """Whoever is no member, but has a member's certificate, is it under another key."""
        inside = {(self.members[n].name, self.members[n].certificate) for n in self._inside}
        self._twins = frozenset(
            n
            for n, member in enumerate(self.members)
            if n not in self._inside and (member.name, member.certificate) in inside
        )

    def settle(self) -> None:
        """A quorum holds the start of the epoch: former members are needed no more."""
        self.settled = True

    def number_of(self, identity: bytes) -> int | None:
        """The number of whoever holds this key; None for a stranger."""
        return self._numbers.get(identity)

    def name(self, number: int) -> str:
        """What a peer is called in logs."""
        known = 0 <= number < len(self.members)
        return self.members[number].name if known else f"stranger {number}"

    def is_member(self, number: int) -> bool:
        """True for a member of the record in force."""
        return number in self._inside

    def is_twin(self, number: int) -> bool:
        """True for another key of somebody who is a member."""
        return number in self._twins

    def is_former(self, number: int) -> bool:
        """True for one that was a member, or was to be one, and is none."""
        return number in self._former

    def is_over(self, number: int) -> bool:
        """True when all that a peer may still hear is that it is no member."""
        return self.settled and number in self._former

    def others(self) -> Iterable[int]:
        """All numbers but our own."""
        mine = self.local.signer.public_key
        return (n for n, member in enumerate(self.members) if member.identity != mine)

    def dialed(self, here: Container[int]) -> list[int]:
        """Whom to dial; `here` are those that are connected to us."""
        able = (n for n in self.others() if n not in self._twins)
        return [n for n in able if n in here or not self.is_over(n)]
