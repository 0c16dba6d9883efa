"""A digest of the whole state whose cost follows what changed, and that can say where it differs.

Theory. The state is a set of *records*: (key, value). A record's path is the SHA-256 of its key,
read as 64 nibbles through a trie with 16 children per node. A node with at most
`LEAF_RECORDS_MAX` records below it is a leaf, one with more has children. So the shape is a
function of the set alone and never of the order in which records came and went: equal states
have equal digests, whatever their histories.

A leaf hashes its (path, value hash) pairs by ascending path; an inner node hashes its 16
children. The two kinds start with different bytes, so that neither can pass for the other
(as in RFC 6962, section 2.1). Changes are taken in together, so that a node which many of them
pass through is read, hashed and written once: O(changed records x depth), depth about log16 of
the number of records.

Nodes are bytes under a *place*, the path from the root in hexadecimal digits. Where they are kept
is the caller's affair: in memory, or on disk beside the records, so that a restart computes
nothing anew. Two replicas compare tries from the root down and find what differs without looking
at the rest (Castro and Liskov 2002, section 5.3.2, with a tree of fixed shape).
The bytes of a node and their hash are in core/trie.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Protocol

from dwcp_replica.core.trie import (
    ABSENT,
    EMPTY,
    FANOUT,
    INNER,
    LEAF,
    LEAF_RECORDS_MAX,
    REF_BYTES,
    child_place,
    entries_of,
    is_leaf,
    nibble_at,
    node_hash,
    path_of,
    state_digest,
    value_hash,
)


class Nodes(Protocol):
    """Where a trie's nodes are kept."""

    def get(self, place: bytes, /) -> bytes | None:
        """The node at a place, or None."""
        ...

    def set(self, place: bytes, node: bytes) -> None:
        """Keep a node."""
        ...

    def remove(self, place: bytes) -> None:
        """Forget a node that is there."""
        ...


_Change = tuple[bytes, bytes | None]
"""A record's path and what its leaf says of it; None for a record that goes."""
_Ref = tuple[bytes, int]
"""What an inner node says of a child: its hash, and how many records stand below it."""

_NO_REF: Final[_Ref] = (ABSENT, 0)
_REFS: Final = struct.Struct(">" + "32sQ" * FANOUT)
_HASHED_BYTES: Final = 64
"""The beginning of a leaf's entry, path and value hash, is what the leaf's hash covers."""


class Trie:
    """The digest of a set of records, over nodes that somebody keeps."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def __len__(self) -> int:
        node = self._nodes.get(b"")
        return 0 if node is None else _count(node)

    def update(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take in the new values of these keys; None for those that are gone."""
        listed: list[_Change] = []
        for key, value in changes.items():
            path = path_of(key)
            listed.append((path, None if value is None else _entry(path, key, value)))
        if listed:
            listed.sort()
            self._update(b"", listed)

    def root_hash(self) -> bytes:
        """The hash of the root node: 32 bytes."""
        return node_hash(self._nodes.get(b"") or EMPTY)

    def root(self) -> bytes:
        """The digest of all records: 32 bytes."""
        return state_digest(self.root_hash())

    def _update(self, place: bytes, changes: Sequence[_Change]) -> _Ref:
        """Bring the node at a place up to date; what its parent keeps of it.

        The changes are in the order of their paths.
        """
        node = self._nodes.get(place)
        if node is None or is_leaf(node):
            return self._update_leaf(place, node, changes)
        refs = list(_REFS.unpack_from(node, 1))
        for nibble, part in _parted(changes, len(place)):
            at = 2 * nibble
            refs[at : at + 2] = self._update(child_place(place, nibble), part)
        if sum(refs[1::2]) > LEAF_RECORDS_MAX:
            return self._put_inner(place, refs)
        return self._put_leaf(place, self._gather(place, refs))

    def _update_leaf(self, place: bytes, leaf: bytes | None, changes: Sequence[_Change]) -> _Ref:
        entries = {} if leaf is None else _entries(leaf)
        for path, entry in changes:
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry
        if not entries and place:
            if leaf is not None:
                self._nodes.remove(place)
            return _NO_REF
        # an entry begins with its path
        return self._put(place, sorted(entries.values()))

    def _put(self, place: bytes, entries: list[bytes]) -> _Ref:
        """Write sorted entries that stand below a place: as a leaf, or with children."""
        if len(entries) <= LEAF_RECORDS_MAX:
            return self._put_leaf(place, entries)
        parts: list[list[bytes]] = [[] for _ in range(FANOUT)]
        for entry in entries:
            parts[nibble_at(entry, len(place))].append(entry)
        refs: list[bytes | int] = []
        for nibble, part in enumerate(parts):
            refs += self._put(child_place(place, nibble), part) if part else _NO_REF
        return self._put_inner(place, refs)

    def _gather(self, place: bytes, refs: list[bytes | int]) -> list[bytes]:
        """Take the entries out of children that are few enough for one leaf."""
        entries: list[bytes] = []
        for nibble, count in enumerate(refs[1::2]):
            if count:
                child = child_place(place, nibble)
                leaf = self._nodes.get(child)
                assert leaf is not None, "a child that is counted is there"
                assert is_leaf(leaf), "a node with few records is a leaf"
                entries += _entries(leaf).values()
                self._nodes.remove(child)
        return entries

    def _put_leaf(self, place: bytes, entries: list[bytes]) -> _Ref:
        self._nodes.set(place, LEAF + b"".join(entries))
        hashed = LEAF + b"".join([entry[:_HASHED_BYTES] for entry in entries])
        return sha256(hashed).digest(), len(entries)

    def _put_inner(self, place: bytes, refs: list[bytes | int]) -> _Ref:
        self._nodes.set(place, INNER + _REFS.pack(*refs))
        hashes: Any = refs[::2]
        counts: Any = refs[1::2]
        return sha256(INNER + b"".join(hashes)).digest(), sum(counts)


def _entry(path: bytes, key: bytes, value: bytes) -> bytes:
    """What a leaf says of a record (core/trie.py has the form)."""
    return b"".join((path, value_hash(value), len(key).to_bytes(2, "big"), key))


def _entries(leaf: bytes) -> dict[bytes, bytes]:
    """The entries of a leaf by path, in their order."""
    found: dict[bytes, bytes] = {}
    at = 1
    while at < len(leaf):
        end = at + 66 + int.from_bytes(leaf[at + 64 : at + 66], "big")
        found[leaf[at : at + 32]] = leaf[at:end]
        at = end
    return found


def _parted(changes: Sequence[_Change], depth: int) -> Iterator[tuple[int, Sequence[_Change]]]:
    """Changes in the order of their paths, by the child that each goes through."""
    start, end = 0, len(changes)
    while start < end:
        nibble = nibble_at(changes[start][0], depth)
        after = start + 1
        while after < end and nibble_at(changes[after][0], depth) == nibble:
            after += 1
        yield nibble, changes[start:after]
        start = after


def _count(node: bytes) -> int:
    """How many records stand below a node."""
    if is_leaf(node):
        return sum(1 for _ in entries_of(node))
    return sum(
        int.from_bytes(node[at + 32 : at + REF_BYTES], "big")
        for at in range(1, len(node), REF_BYTES)
    )
