"""The hash chain: the log a replica holds, and the branches that others show.

h(i) = H(h(i-1), epoch, term, i, batch digest) (epochs.md, Chain). Entries form a chain, so a
vote for one entry is a vote for everything below it, and there are no gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dwcp.wire.envelope import Batch, decode_batch
from dwcp.wire.peer import Entry, Header
from dwcp.wire.switch import Switch


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a chain: an index with its hash and its entry's term."""

    index: int
    hash: bytes
    term: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry as the log holds it, with what is derived from it."""

    entry: Entry
    hash: bytes
    stamp_ms: int
    requests: tuple[bytes, ...]
    switch: Switch | None = None

    @classmethod
    def of(cls, entry: Entry) -> Slot:
        """Derive hash, stamp and request digests. Raises msgspec.DecodeError for a bad body."""
        batch = decode_batch(entry.body)
        return cls.decoded(entry, batch)

    @classmethod
    def decoded(cls, entry: Entry, batch: Batch) -> Slot:
        """As `of`, for a body that was decoded already."""
        requests = tuple(envelope.digest() for envelope in batch.envelopes)
        return cls(entry, entry.header.hash(), batch.stamp_ms, requests, batch.switch)

    @property
    def header(self) -> Header:
        """The signed header."""
        return self.entry.header


class Log:
    """The entries a replica holds above `base`, contiguous, each linked to the one below.

    `stamp_ms` is the agreed time at the base.
    """

    def __init__(self, base: Point, stamp_ms: int = 0) -> None:
        self.base = base
        self._base_stamp_ms = stamp_ms
        self._base_body: bytes | None = None
        self._slots: list[Slot] = []

    @property
    def last(self) -> int:
        """The highest index held."""
        return self.base.index + len(self._slots)

    @property
    def tip(self) -> Point:
        """The highest entry, or the base while there is none."""
        if not self._slots:
            return self.base
        slot = self._slots[-1]
        return Point(self.last, slot.hash, slot.header.term)

    @property
    def stamp_ms(self) -> int:
        """The agreed time of the tip; 0 at the very start."""
        return self._slots[-1].stamp_ms if self._slots else self._base_stamp_ms

    def stamp_at(self, index: int) -> int:
        """The agreed time of a held entry, or of the base."""
        slot = self.slot(index)
        return slot.stamp_ms if slot is not None else self._base_stamp_ms

    def slot(self, index: int) -> Slot | None:
        """The entry at `index`, or None."""
        offset = index - self.base.index - 1
        return self._slots[offset] if 0 <= offset < len(self._slots) else None

    def hash_at(self, index: int) -> bytes | None:
        """h(index), or None when it is not held."""
        if index == self.base.index:
            return self.base.hash
        slot = self.slot(index)
        return slot.hash if slot else None

    def point(self, index: int) -> Point:
        """The held place at `index`."""
        if index == self.base.index:
            return self.base
        slot = self.slot(index)
        assert slot is not None, f"index {index} is not held (last is {self.last})"
        return Point(index, slot.hash, slot.header.term)

    def not_above(self, index: int, term: int) -> int:
        """The highest index up to `index` whose term is not known to be above `term`.

        Nothing is known of what is not held. Where two logs part is at or below this index: one
        step per term, not per entry (Ongaro 2014, section 3.5).
        """
        at = index
        while self.base.index <= at <= self.last and self.point(at).term > term:
            at -= 1
        return at

    def nearest(self, index: int, term: int) -> Point:
        """My highest place up to `index` whose term is at most `term`; the base if none is."""
        return self.point(max(self.base.index, self.not_above(min(index, self.last), term)))

    def append(self, slot: Slot) -> None:
        """Add the next entry."""
        header = slot.header
        assert header.index == self.last + 1, f"gap: {header.index} after {self.last}"
        assert header.prev == self.tip.hash, f"entry {header.index} does not extend the log"
        if self._slots:
            below = self._slots[-1].header
            later = (header.epoch, header.term) >= (below.epoch, below.term)
            assert later, f"term went back at {header.index}"
        self._slots.append(slot)

    def truncate(self, last: int) -> list[Slot]:
        """Drop everything above `last` and return it, lowest first."""
        assert last >= self.base.index, f"truncate to {last} below base {self.base.index}"
        offset = last - self.base.index
        dropped = self._slots[offset:]
        del self._slots[offset:]
        return dropped

    def cut(self, index: int) -> list[Slot]:
        """Drop everything up to `index`, which becomes the base; returns it, lowest first."""
        base, stamp_ms, body = self.point(index), self.stamp_at(index), self.body_at(index)
        offset = index - self.base.index
        dropped = self._slots[:offset]
        del self._slots[:offset]
        self.base, self._base_stamp_ms, self._base_body = base, stamp_ms, body
        return dropped

    def restart(self, base: Point, stamp_ms: int, body: bytes | None) -> list[Slot]:
        """Go on from a place that is not held; returns all that was."""
        dropped, self._slots = self._slots, []
        self.base, self._base_stamp_ms, self._base_body = base, stamp_ms, body
        return dropped

    def body_at(self, index: int) -> bytes | None:
        """The body of an entry that is held, or of the base where it is known."""
        slot = self.slot(index)
        if slot is not None:
            return slot.entry.body
        return self._base_body if index == self.base.index else None

    def slots(self, above: int, upto: int | None = None) -> list[Slot]:
        """The held entries with above < index <= upto, lowest first."""
        start = max(0, above - self.base.index)
        end = len(self._slots) if upto is None else max(start, upto - self.base.index)
        return self._slots[start:end]


@dataclass(frozen=True, slots=True)
class Branch:
    """A chain as somebody shows it: a certified base and the signed headers above it."""

    base: Point
    headers: tuple[Header, ...]
    hashes: tuple[bytes, ...]

    @classmethod
    def of(cls, base: Point, headers: Iterable[Header]) -> Branch:
        """Make a branch, hashing its headers once."""
        listed = tuple(headers)
        return cls(base, listed, tuple(header.hash() for header in listed))

    @property
    def tip(self) -> Point:
        """The highest place: length and last term of the chain."""
        if not self.headers:
            return self.base
        last = self.headers[-1]
        return Point(last.index, self.hashes[-1], last.term)

    def hash_at(self, index: int) -> bytes | None:
        """h(index) where the branch shows it; None below its base or above its tip."""
        if index == self.base.index:
            return self.base.hash
        offset = index - self.base.index - 1
        return self.hashes[offset] if 0 <= offset < len(self.hashes) else None

    def prefix(self, index: int) -> Branch:
        """The part of the branch up to `index`."""
        length = index - self.base.index
        assert 0 <= length <= len(self.headers), f"no prefix to {index}"
        return Branch(self.base, self.headers[:length], self.hashes[:length])

    def contains(self, point: Point) -> bool:
        """True when the chain runs through `point`.

        The base is a stable checkpoint, or the epoch's start: it stands for its prefix, so it
        contains every certified place at or below its index (epochs.md, Checkpoints).
        """
        if point.index < self.base.index:
            return True
        return self.hash_at(point.index) == point.hash
