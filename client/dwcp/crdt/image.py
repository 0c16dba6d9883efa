"""A document's state as bytes, with its operations reduced to one row each.

An image stands for the operations below a frontier. It keeps each one's name and place (later edits
refer to it), and every live contribution; it drops bodies, signatures and edges. Local numbers
inside are those of the replica that made it, and hold together only with its own table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dwcp.crdt.graph import Graph, Table
from dwcp.crdt.objects import (
    Counter,
    MapObject,
    Object,
    Orders,
    Register,
    SequenceObject,
    SetObject,
)
from dwcp.crdt.sequence import SequenceImage
from dwcp.crdt.state import State
from dwcp.wire.decoding import decoder_of
from dwcp.wire.documents import Kind
from dwcp.wire.signing import Count


class ObjectImage(Struct, frozen=True, array_like=True):
    """One object: who touched it, and what its kind holds."""

    kind: Kind
    touched: tuple[Count, ...]
    pairs: tuple[tuple[Count, Any], ...] = ()
    members: tuple[tuple[Any, tuple[Count, ...], tuple[Count, ...]], ...] = ()
    sequence: SequenceImage | None = None
    children: tuple[tuple[str, tuple[ObjectImage, ...]], ...] = ()


class Image(Struct, frozen=True, array_like=True):
    """The state at a frontier: the numbers of its heads, the table, and the root map."""

    frontier: tuple[Count, ...]
    table: Table
    root: ObjectImage


_decode: Callable[[bytes], Image] = decoder_of(Image)


def encode_image(graph: Graph, state: State) -> bytes:
    """The image of a document at its present heads."""
    image = Image(tuple(sorted(graph.heads)), graph.table(), _image(state.root))
    return msgspec.msgpack.encode(image)


def decode_image(data: bytes) -> tuple[Graph, State]:
    """Graph and state of an image. Raises msgspec.DecodeError, naming the field."""
    image = _decode(data)
    graph = Graph.of(image.table, image.frontier)
    state = State(Orders(graph.order, graph.rank))
    _fill(state.root, image.root)
    return graph, state


def _image(found: Object) -> ObjectImage:
    touched = tuple(found.touched)
    match found:
        case Register():
            return ObjectImage(found.kind, touched, pairs=tuple(found.writes.items()))
        case Counter():
            return ObjectImage(found.kind, touched, pairs=tuple(found.given()))
        case SetObject():
            members = tuple(
                (value, tuple(added), tuple(removed))
                for value, added, removed in found.contributions()
            )
            return ObjectImage(found.kind, touched, members=members)
        case SequenceObject():
            return ObjectImage(found.kind, touched, sequence=found.elements.image())
        case MapObject():
            children = tuple(
                (key, tuple(_image(child) for child in kinds.values()))
                for key, kinds in found.children.items()
            )
            return ObjectImage(found.kind, touched, children=children)
        case _:
            raise AssertionError(f"no image of {type(found).__name__}")


def _fill(found: Object, image: ObjectImage) -> None:
    found.touched.extend(image.touched)
    match found:
        case Register():
            found.writes.update(image.pairs)
        case Counter():
            for operation, amount in image.pairs:
                found.increment(operation, amount)
        case SetObject():
            for value, added, removed in image.members:
                found.restore(value, added, removed)
        case SequenceObject():
            assert image.sequence is not None, "an image of a sequence has one"
            found.elements.load(image.sequence)
        case MapObject():
            for key, kinds in image.children:
                for child in kinds:
                    _fill(found.child(key, child.kind), child)
        case _:
            raise AssertionError(f"no image of {type(found).__name__}")
