"""The shape of the state's digest: nodes of a trie, their bytes and their hashes.

store/digest.py keeps such a trie up to date and has the theory; here is what a replica must know
to check a node that another one shows.

node: 0x00 | (path 32 | value hash 32 | key length 2 | key)*      a leaf
      0x01 | (hash 32 | records below 8) x 16                     an inner node; absent: zeros
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from dwcp.wire.signing import digest

LEAF_RECORDS_MAX: Final = 16
FANOUT: Final = 16
DIGITS: Final = b"0123456789abcdef"
ABSENT: Final = bytes(32)
"""In place of a child's hash, where there is no child."""
KEY_BYTES_MAX: Final = 480

LEAF: Final = b"\x00"
INNER: Final = b"\x01"
REF_BYTES: Final = 40
EVENT_KIND: Final = b"\x13"
EVENT_KEY_BYTES: Final = 13
"""An event's key: kind, revision (8), place in that revision (4); store/layout.py has the rest."""
EMPTY: Final = LEAF
"""The root of an empty state."""

_RUN_OF: Final = tuple(bytes((byte & 0xF8,)) for byte in range(256))


@dataclass(frozen=True, slots=True)
class LeafEntry:
    """A record as its leaf knows it: `path` is the key's hash, `hash` the value's."""

    path: bytes
    hash: bytes
    key: bytes


def is_leaf(node: bytes) -> bool:
    """True for a leaf, False for an inner node."""
    return node.startswith(LEAF)


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
    return tuple(inner[at : at + 32] for at in range(1, len(inner), REF_BYTES))


def node_hash(node: bytes) -> bytes:
    """The hash of a node, from its bytes alone: 32 bytes."""
    if is_leaf(node):
        return leaf_hash((entry.path, entry.hash) for entry in entries_of(node))
    return inner_hash(child_hashes(node))


def leaf_hash(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The hash of a leaf with these (path, value hash) pairs, given by ascending path."""
    return sha256(b"".join((LEAF, *(part for pair in pairs for part in pair)))).digest()


def inner_hash(children: Iterable[bytes]) -> bytes:
    """The hash of an inner node with these 16 child hashes."""
    return sha256(b"".join((INNER, *children))).digest()


def state_digest(root_hash: bytes) -> bytes:
    """What a checkpoint signs, from the hash of the root: 32 bytes."""
    return digest("state", root_hash)


def path_of(key: bytes) -> bytes:
    """Where a record stands: 32 bytes.

    Up to eight events that follow each other share the first half of their paths, and so their
    leaf: events come, and go, one after the other. Never more of them, so that a leaf holds them.
    """
    if key[:1] != EVENT_KIND or len(key) != EVENT_KEY_BYTES:
        return sha256(key).digest()
    revision, place = key[:9], key[9:]
    together = key[:12] + _RUN_OF[key[12]] if any(place) else revision[:8] + _RUN_OF[revision[8]]
    return sha256(together).digest()[:16] + sha256(key).digest()[16:]


def value_hash(value: bytes) -> bytes:
    """What a leaf says of a record's value: 32 bytes."""
    return sha256(value).digest()


def is_place(place: bytes) -> bool:
    """True for the place of a node that there may be."""
    return len(place) <= 64 and not place.strip(DIGITS)


def is_below(path: bytes, place: bytes) -> bool:
    """True when a path goes through a place."""
    return path.hex().encode().startswith(place)


def child_place(place: bytes, nibble: int) -> bytes:
    """The place of a node's child."""
    return place + DIGITS[nibble : nibble + 1]


def nibble_at(path: bytes, depth: int) -> int:
    """Which child of a node at this depth a path goes through."""
    byte = path[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4
