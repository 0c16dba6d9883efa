"""Messages by which a replica gets the state at a stable checkpoint: parts of it, each proved."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dwcp.wire.chain import Certificate, Index
from dwcp.wire.signing import Count, Hash

Place = Annotated[bytes, Meta(max_length=64)]
"""A node of the state's trie: its path from the root in hexadecimal digits."""
RecordKey = Annotated[bytes, Meta(min_length=1, max_length=512)]


class FetchCheckpoint(Struct, frozen=True, array_like=True, tag="fetch-checkpoint"):
    """Asks for the newest stable checkpoint, by a replica that has no usable state."""

    epoch: Count


class StableCheckpoint(Struct, frozen=True, array_like=True, tag="stable-checkpoint"):
    """The newest stable checkpoint, with the body of its entry: the log below it is cut.

    The body shows the agreed time there; its digest stands in the certificate's header.
    """

    certificate: Certificate
    body: bytes


class FetchState(Struct, frozen=True, array_like=True, tag="fetch-state"):
    """Asks for parts of the state at a checkpoint: nodes by place, long values by key."""

    index: Index
    state: Hash
    places: Annotated[tuple[Place, ...], Meta(max_length=1024)]
    keys: Annotated[tuple[RecordKey, ...], Meta(max_length=1024)] = ()


class StateRecord(Struct, frozen=True, array_like=True):
    """A record in a leaf; the value is left out where it is long, and asked for by itself."""

    key: RecordKey
    hash: Hash
    value: bytes | None


class StateNode(Struct, frozen=True, array_like=True):
    """A node of the trie: 16 child hashes (zeros where there is none), or a leaf's records."""

    place: Place
    children: Annotated[tuple[Hash, ...], Meta(max_length=16)]
    records: Annotated[tuple[StateRecord, ...], Meta(max_length=16)]


class StateValue(Struct, frozen=True, array_like=True):
    """A record's value that was asked for by its key."""

    key: RecordKey
    value: bytes


class StateChunk(Struct, frozen=True, array_like=True, tag="state-chunk"):
    """Parts of the state at a checkpoint: each is proved by its hash, up to the state's digest."""

    index: Index
    state: Hash
    nodes: Annotated[tuple[StateNode, ...], Meta(max_length=1024)]
    values: Annotated[tuple[StateValue, ...], Meta(max_length=1024)] = ()


StateMessage = FetchCheckpoint | StableCheckpoint | FetchState | StateChunk
