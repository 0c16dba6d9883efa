"""A digest of the whole state whose cost follows what changed.

Theory. The state is a set of *records*: (identifier, canonical bytes). A record's place is the
SHA-256 of its identifier, read as a path of 64 nibbles through a trie with 16 children per node.
A node holding at most `LEAF_RECORDS_MAX` records is a leaf, a node with more has children. So
the shape is a function of the set alone and never of the order in which records came and went:
equal states have equal digests, whatever their histories.

A leaf hashes its (path, record hash) pairs by ascending path; an inner node hashes its 16
children. The two kinds start with different bytes, so that neither can pass for the other
(as in RFC 6962, section 2.1). A change clears the hashes on one path, and `root` computes only
what was cleared: O(changed records x depth), depth about log16 of the number of records.

A sum over record hashes (a multiset hash) would be cheaper still, but it can not say *where*
two states differ; a trie can, and state transfer will need it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from dwcp.wire.signing import digest

LEAF_RECORDS_MAX: Final = 16
FANOUT: Final = 16
_EMPTY: Final = bytes(32)

Identifier = tuple[str | bytes | int, ...]
"""Names a record: its kind first, then what tells it from others of its kind."""


class _Node:
    """A leaf (`records`: path -> record hash) or an inner node (`children`)."""

    __slots__ = ("children", "count", "hash", "records")

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records
        self.children: list[_Node | None] | None = None
        self.count = len(records)
        self.hash: bytes | None = None


def _nibble(path: bytes, depth: int) -> int:
    byte = path[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def _split(node: _Node, depth: int) -> None:
    parts: list[dict[bytes, bytes]] = [{} for _ in range(FANOUT)]
    for path, value in node.records.items():
        parts[_nibble(path, depth)][path] = value
    node.records = {}
    node.children = [_Node(part) if part else None for part in parts]
    for child in node.children:
        if child is not None and child.count > LEAF_RECORDS_MAX:
            _split(child, depth + 1)


def _gather(node: _Node) -> dict[bytes, bytes]:
    if node.children is None:
        return node.records
    records: dict[bytes, bytes] = {}
    for child in node.children:
        if child is not None:
            records.update(_gather(child))
    return records


def _hash(node: _Node) -> bytes:
    if node.hash is None:
        if node.children is None:
            pairs = [part for pair in sorted(node.records.items()) for part in pair]
            node.hash = sha256(b"\x00" + b"".join(pairs)).digest()
        else:
            hashes = [_EMPTY if child is None else _hash(child) for child in node.children]
            node.hash = sha256(b"\x01" + b"".join(hashes)).digest()
    return node.hash


class StateDigest:
    """The digest of a set of records, kept up to date record by record."""

    def __init__(self) -> None:
        self._root = _Node({})

    def __len__(self) -> int:
        return self._root.count

    def update(self, identifier: Identifier, record: bytes | None) -> None:
        """Set the record of this identifier, or remove it (None; absent is fine)."""
        path = sha256(msgspec.msgpack.encode(identifier)).digest()
        if record is None:
            self._remove(path)
        else:
            self._set(path, sha256(record).digest())

    def root(self) -> bytes:
        """The digest of all records: 32 bytes."""
        return digest("state", _hash(self._root))

    def _descend(self, path: bytes) -> list[_Node]:
        """The nodes from the root to the deepest one on this path."""
        nodes = [self._root]
        while (children := nodes[-1].children) is not None:
            child = children[_nibble(path, len(nodes) - 1)]
            if child is None:
                break
            nodes.append(child)
        return nodes

    def _set(self, path: bytes, value: bytes) -> None:
        nodes = self._descend(path)
        last, depth = nodes[-1], len(nodes) - 1
        if last.children is not None:
            last.children[_nibble(path, depth)] = leaf = _Node({})
            nodes.append(leaf)
            last, depth = leaf, depth + 1
        added = path not in last.records
        last.records[path] = value
        for node in nodes:
            node.hash = None
            node.count += added
        if last.count > LEAF_RECORDS_MAX:
            _split(last, depth)

    def _remove(self, path: bytes) -> None:
        nodes = self._descend(path)
        if path not in nodes[-1].records:
            return
        del nodes[-1].records[path]
        for node in nodes:
            node.hash = None
            node.count -= 1
        for depth, node in enumerate(nodes):
            if node.children is not None and node.count <= LEAF_RECORDS_MAX:
                node.records, node.children = _gather(node), None
                return
            if node.count == 0 and depth > 0:
                siblings = nodes[depth - 1].children
                assert siblings is not None, "a node above a leaf has children"
                siblings[_nibble(path, depth - 1)] = None
                return
