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

node: 0x00 | (path 32 | value hash 32 | key length 2 | key)*      a leaf
      0x01 | (hash 32 | records below 8) x 16                     an inner node; absent: zeros
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from dwcp.wire.signing import digest

LEAF_RECORDS_MAX: Final = 16
FANOUT: Final = 16
DIGITS: Final = b"0123456789abcdef"
ABSENT: Final = bytes(32)
"""In place of a child's hash, where there is no child."""
KEY_BYTES_MAX: Final = 480

_LEAF: Final = b"\x00"
_INNER: Final = b"\x01"
_REF_BYTES: Final = 40
_NO_REF: Final = bytes(_REF_BYTES)
_EMPTY: Final = _LEAF
"""The root of an empty state."""


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


@dataclass(frozen=True, slots=True)
class LeafEntry:
    """A record as its leaf knows it: `path` is the key's hash, `hash` the value's."""

    path: bytes
    hash: bytes
    key: bytes


def is_leaf(node: bytes) -> bool:
    """True for a leaf, False for an inner node."""
    return node.startswith(_LEAF)


def entries_of(leaf: bytes) -> Iterator[LeafEntry]:
    """The entries of a leaf, by ascending path."""
    at = 1
    while at < len(leaf):
        start = at + 66
        end = start + int.from_bytes(leaf[at + 64 : start], "big")
        yield LeafEntry(leaf[at : at + 32], leaf[at + 32 : at + 64], leaf[start:end])
        at = end


def child_hashes(inner: bytes) -> tuple[bytes, ...]:
    """The hashes of an inner node's children by nibble; ABSENT where there is none."""
    return tuple(inner[at : at + 32] for at in range(1, len(inner), _REF_BYTES))


def node_hash(node: bytes) -> bytes:
    """The hash of a node, from its bytes alone: 32 bytes."""
    if is_leaf(node):
        return leaf_hash((entry.path, entry.hash) for entry in entries_of(node))
    return inner_hash(child_hashes(node))


def leaf_hash(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The hash of a leaf with these (path, value hash) pairs, given by ascending path."""
    return sha256(b"".join((_LEAF, *(part for pair in pairs for part in pair)))).digest()


def inner_hash(children: Iterable[bytes]) -> bytes:
    """The hash of an inner node with these 16 child hashes."""
    return sha256(b"".join((_INNER, *children))).digest()


def state_digest(root_hash: bytes) -> bytes:
    """What a checkpoint signs, from the hash of the root: 32 bytes."""
    return digest("state", root_hash)


def path_of(key: bytes) -> bytes:
    """Where a record stands: 32 bytes."""
    return sha256(key).digest()


def child_place(place: bytes, nibble: int) -> bytes:
    """The place of a node's child."""
    return place + DIGITS[nibble : nibble + 1]


_Change = tuple[bytes, bytes, bytes | None]
"""path, key, and the value's hash, or None for a record that goes."""


def _nibble(path: bytes, depth: int) -> int:
    byte = path[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def _parted(changes: list[_Change], depth: int) -> dict[int, list[_Change]]:
    parts: dict[int, list[_Change]] = {}
    for change in changes:
        parts.setdefault(_nibble(change[0], depth), []).append(change)
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
            (path_of(key), key, None if value is None else sha256(value).digest())
            for key, value in changes.items()
        ]
        if listed:
            self._update(b"", listed)

    def root_hash(self) -> bytes:
        """The hash of the root node: 32 bytes."""
        return node_hash(self._nodes.get(b"") or _EMPTY)

    def root(self) -> bytes:
        """The digest of all records: 32 bytes."""
        return state_digest(self.root_hash())

    def _update(self, place: bytes, changes: list[_Change]) -> bytes:
        """Bring the node at a place up to date; the reference that its parent keeps."""
        node = self._nodes.get(place)
        if node is None or is_leaf(node):
            return self._update_leaf(place, node, changes)
        refs = [node[at : at + _REF_BYTES] for at in range(1, len(node), _REF_BYTES)]
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
            parts[_nibble(record[0], len(place))].append(record)
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
        parts = [_LEAF]
        for path, key, value in records:
            parts += (path, value, len(key).to_bytes(2, "big"), key)
        self._nodes.set(place, b"".join(parts))
        hash_ = leaf_hash((path, value) for path, _, value in records)
        return hash_ + len(records).to_bytes(8, "big")

    def _put_inner(self, place: bytes, refs: list[bytes]) -> bytes:
        self._nodes.set(place, b"".join((_INNER, *refs)))
        count = sum(int.from_bytes(ref[32:], "big") for ref in refs)
        return inner_hash(ref[:32] for ref in refs) + count.to_bytes(8, "big")


def _count(node: bytes) -> int:
    """How many records stand below a node."""
    if is_leaf(node):
        return sum(1 for _ in entries_of(node))
    return sum(
        int.from_bytes(node[at + 32 : at + _REF_BYTES], "big")
        for at in range(1, len(node), _REF_BYTES)
    )
