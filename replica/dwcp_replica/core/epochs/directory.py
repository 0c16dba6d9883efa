"""Who is where: numbers that stay when epochs change.

In an epoch's messages a member is its position in the record, which may change from epoch to
epoch. The shell knows a peer by its place in this directory instead: the members of genesis,
then everybody that a later record or an order of the admin names, in the order in which this
replica heard of them. In a cluster whose members never changed both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dwcp.wire.records import EpochRecord, Member

OUTSIDERS: Final = 1024
"""What is added to the directory number of somebody who is no member of the epoch."""
PLACES_MAX: Final = 1024


class Directory:
    """Peers by number, and the translation to and from the present record's numbers."""

    def __init__(self, genesis: EpochRecord) -> None:
        self.members: list[Member] = []
        self._numbers: dict[bytes, int] = {}
        self._record = genesis
        self.is_plain = True
        self.enter(genesis)

    def enter(self, record: EpochRecord) -> None:
        """Translate for this record from now on."""
        self.know(record.members)
        self._record = record
        self._places = [self._numbers[member.identity] for member in record.members]
        self._positions = {place: position for position, place in enumerate(self._places)}
        self._note_plain()

    def know(self, members: Iterable[Member]) -> None:
        """Give a number to everybody who has none yet; the newest addresses count."""
        for member in members:
            number = self._numbers.get(member.identity)
            if number is not None:
                self.members[number] = member
            elif len(self.members) < PLACES_MAX:
                self._numbers[member.identity] = len(self.members)
                self.members.append(member)
        self._note_plain()

    def _note_plain(self) -> None:
        places = getattr(self, "_places", [])
        self.is_plain = places == list(range(len(self.members)))

    def number_of(self, identity: bytes) -> int | None:
        """The number of whoever holds this key, or None."""
        return self._numbers.get(identity)

    def place_of(self, position: int) -> int:
        """The directory's number for a number of the record, or for an outsider's."""
        return position - OUTSIDERS if position >= OUTSIDERS else self._places[position]

    def position_of(self, place: int) -> int | None:
        """The record's number for a number of the directory; None for a stranger."""
        position = self._positions.get(place)
        if position is not None:
            return position
        return place + OUTSIDERS if 0 <= place < len(self.members) else None

    def places(self) -> list[int]:
        """Where the present record's members are."""
        return list(self._places)
