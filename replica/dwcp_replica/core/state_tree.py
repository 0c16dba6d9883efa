"""How the engine sees the replicated state: as a trie of nodes, its own and those it shows.

The state itself is the shell's (store/, durable/); it is given to the engine as a verifier is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dwcp_replica.core.trie import ABSENT, child_hashes, child_place, entries_of, is_below, is_leaf


class StateTree(Protocol):
    """The state as the core may see and, during a transfer, change it."""

    def node(self, place: bytes) -> bytes | None:
        """A node of the own state's trie (core/trie.py)."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """A record's value in the own state."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Set these records, or remove them (None), and bring the trie up to date."""
        ...

    def save(self) -> None:
        """Let a crash find what was written so far."""
        ...

    def holds(self, index: int) -> bool:
        """True while the state at this checkpoint can be shown to others."""
        ...

    def shown_node(self, index: int, place: bytes) -> bytes | None:
        """A node of the state at a checkpoint."""
        ...

    def shown_value(self, index: int, key: bytes) -> bytes | None:
        """A record's value in the state at a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Mine:
    """A record of my own state: its key and its value's hash."""

    key: bytes
    hash: bytes


def below(state: StateTree, place: bytes) -> Iterator[Mine]:
    """My records below a place, wherever my own trie has them."""
    for depth in range(len(place)):
        node = state.node(place[:depth])
        if node is None:
            return
        if is_leaf(node):
            for entry in entries_of(node):
                if is_below(entry.path, place):
                    yield Mine(entry.key, entry.hash)
            return
    yield from leaves(state, place)


def leaves(state: StateTree, place: bytes) -> Iterator[Mine]:
    """My records in the nodes from a place down."""
    node = state.node(place)
    if node is None:
        return
    if is_leaf(node):
        yield from (Mine(entry.key, entry.hash) for entry in entries_of(node))
        return
    for nibble, hash_ in enumerate(child_hashes(node)):
        if hash_ != ABSENT:
            yield from leaves(state, child_place(place, nibble))
