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

from collections.abc import Mapping
from typing import Final, Protocol

from dwcp_replica.core.trie import (
    EMPTY,
    FANOUT,
    INNER,
    LEAF,
    LEAF_RECORDS_MAX,
    REF_BYTES,
    child_place,
    entries_of,
    inner_hash,
    is_leaf,
    leaf_hash,
    nibble_at,
    node_hash,
    path_of,
    state_digest,
    value_hash,
)

_NO_REF: Final = bytes(REF_BYTES)


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


_Change = tuple[bytes, bytes, bytes | None]
"""path, key, and the value's hash, or None for a record that goes."""


def _parted(changes: list[_Change], depth: int) -> dict[int, list[_Change]]:
    parts: dict[int, list[_Change]] = {}
    for change in changes:
        parts.setdefault(nibble_at(change[0], depth), []).append(change)
    return parts


class Trie:
    """The digest of a set of records, over nodes that somebody keeps."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def __len__(self) -> int:
        node = self._nodes.get(b"")
        return 0 if node is None else _count(node)

    def update(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take in the new values of these keys; None for those that are gone."""
        listed: list[_Change] = [
            (path_of(key), key, None if value is None else value_hash(value))
            for key, value in changes.items()
        ]
        if listed:
            self._update(b"", listed)

    def root_hash(self) -> bytes:
        """The hash of the root node: 32 bytes."""
        return node_hash(self._nodes.get(b"") or EMPTY)

    def root(self) -> bytes:
        """The digest of all records: 32 bytes."""
        return state_digest(self.root_hash())

    def _update(self, place: bytes, changes: list[_Change]) -> bytes:
        """Bring the node at a place up to date; the reference that its parent keeps."""
        node = self._nodes.get(place)
        if node is None or is_leaf(node):
            return self._update_leaf(place, node, changes)
        refs = [node[at : at + REF_BYTES] for at in range(1, len(node), REF_BYTES)]
        for nibble, part in _parted(changes, len(place)).items():
            refs[nibble] = self._update(child_place(place, nibble), part)
        if sum(int.from_bytes(ref[32:], "big") for ref in refs) > LEAF_RECORDS_MAX:
            return self._put_inner(place, refs)
        return self._put_leaf(place, self._gather(place, refs))

    def _update_leaf(self, place: bytes, leaf: bytes | None, changes: list[_Change]) -> bytes:
        records: dict[bytes, tuple[bytes, bytes]] = {}
        if leaf is not None:
            records = {entry.path: (entry.key, entry.hash) for entry in entries_of(leaf)}
        for path, key, value in changes:
            if value is None:
                records.pop(path, None)
            else:
                records[path] = (key, value)
        if not records and place:
            if leaf is not None:
                self._nodes.remove(place)
            return _NO_REF
        return self._put(place, [(path, *held) for path, held in records.items()])

    def _put(self, place: bytes, records: list[tuple[bytes, bytes, bytes]]) -> bytes:
        """Write records that stand below a place: as a leaf, or with children where they are many.

        A record is (path, key, value hash).
        """
        if len(records) <= LEAF_RECORDS_MAX:
            return self._put_leaf(place, records)
        parts: list[list[tuple[bytes, bytes, bytes]]] = [[] for _ in range(FANOUT)]
        for record in records:
            parts[nibble_at(record[0], len(place))].append(record)
        return self._put_inner(
            place,
            [
                self._put(child_place(place, nibble), part) if part else _NO_REF
                for nibble, part in enumerate(parts)
            ],
        )

    def _gather(self, place: bytes, refs: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
        """Take the records out of children that are few enough for one leaf."""
        records: list[tuple[bytes, bytes, bytes]] = []
        for nibble, ref in enumerate(refs):
            if ref != _NO_REF:
                child = child_place(place, nibble)
                leaf = self._nodes.get(child)
                assert leaf is not None, "a child that is counted is there"
                assert is_leaf(leaf), "a node with few records is a leaf"
                records += [(e.path, e.key, e.hash) for e in entries_of(leaf)]
                self._nodes.remove(child)
        return records

    def _put_leaf(self, place: bytes, records: list[tuple[bytes, bytes, bytes]]) -> bytes:
        records.sort()
        parts = [LEAF]
        for path, key, value in records:
            parts += (path, value, len(key).to_bytes(2, "big"), key)
        self._nodes.set(place, b"".join(parts))
        hash_ = leaf_hash((path, value) for path, _, value in records)
        return hash_ + len(records).to_bytes(8, "big")

    def _put_inner(self, place: bytes, refs: list[bytes]) -> bytes:
        self._nodes.set(place, b"".join((INNER, *refs)))
        count = sum(int.from_bytes(ref[32:], "big") for ref in refs)
        return inner_hash(ref[:32] for ref in refs) + count.to_bytes(8, "big")


def _count(node: bytes) -> int:
    """How many records stand below a node."""
    if is_leaf(node):
        return sum(1 for _ in entries_of(node))
    return sum(
        int.from_bytes(node[at + 32 : at + REF_BYTES], "big")
        for at in range(1, len(node), REF_BYTES)
    )
