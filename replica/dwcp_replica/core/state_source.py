"""Showing others the state at a stable checkpoint, part by part; transfer.py has the theory."""

from __future__ import annotations

from typing import Final

from dwcp.wire.state import (
    FetchState,
    StableCheckpoint,
    StateChunk,
    StateNode,
    StateRecord,
    StateValue,
)
from dwcp_replica.core.state import Core
from dwcp_replica.core.trie import child_hashes, entries_of, is_leaf, is_place

PARTS_AT_ONCE: Final = 128
"""Nodes and values that one member is asked for at a time."""
CHUNK_BYTES: Final = 1024 * 1024
"""An answer ends with the part that makes it longer."""
INLINE_BYTES_MAX: Final = 64 * 1024
"""A longer value is asked for by itself, so that a leaf of them still fits a frame."""


def show_checkpoint(core: Core, to: int) -> None:
    """Send my stable checkpoint, where I hold its entry."""
    if core.stable is None:
        return
    body = core.log.body_at(core.low)
    if body is not None and core.afford(to, len(body) + 1024):
        core.send(to, StableCheckpoint(core.stable, body))


def on_fetch_state(core: Core, sender: int, message: FetchState) -> None:
    """Show parts of the state at a checkpoint, as many as one answer holds."""
    index = message.index
    if not core.shows_state:
        return
    if not core.state.holds(index):
        return
    if not all(map(is_place, message.places)):
        core.refuse(sender, message, "place")
        return
    if not core.afford(sender, 0):
        return  # before the work
    chunk, size = gathered(core, message)
    if (chunk.nodes or chunk.values) and core.afford(sender, size):
        core.send(sender, chunk)


def gathered(core: Core, message: FetchState) -> tuple[StateChunk, int]:
    """The answer and its bytes."""
    index, size = message.index, 0
    nodes: list[StateNode] = []
    values: list[StateValue] = []
    for key in message.keys[:PARTS_AT_ONCE]:
        value = core.state.shown_value(index, key)
        if value is not None and size < CHUNK_BYTES:
            values.append(StateValue(key, value))
            size += len(key) + len(value)
    for place in message.places[:PARTS_AT_ONCE]:
        node = core.state.shown_node(index, place)
        if node is not None and size < CHUNK_BYTES:
            shown = shown_node(core, index, place, node)
            nodes.append(shown)
            size += 512 + sum(len(r.key) + len(r.value or b"") + 40 for r in shown.records)
    return StateChunk(index, message.state, tuple(nodes), tuple(values)), size


def shown_node(core: Core, index: int, place: bytes, node: bytes) -> StateNode:
    """A node as the wire carries it."""
    if not is_leaf(node):
        return StateNode(place, child_hashes(node), ())
    records: list[StateRecord] = []
    room = CHUNK_BYTES
    for entry in entries_of(node):
        value = core.state.shown_value(index, entry.key)
        if value is not None and (len(value) > INLINE_BYTES_MAX or len(value) > room):
            value = None
        room -= len(value or b"")
        records.append(StateRecord(entry.key, entry.hash, value))
    return StateNode(place, (), tuple(records))
