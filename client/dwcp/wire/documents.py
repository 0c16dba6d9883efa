"""The bytes of documents: signed operations with their edits, receipts, anti-entropy messages.

An operation names its predecessors by hash, so that what it says is fixed by its bytes and by its
causal past (Kleppmann 2022, "Making CRDTs Byzantine Fault Tolerant"). Its body is signed and
hashed as it stands; nobody re-encodes it.

References. An edit names earlier operations by small numbers: 0 is the operation itself, k >= 1 is
entry k-1 of `heads + names`. Whatever is named is thereby in the causal past, so that a replica
never needs to know anything else to judge an operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.signing import ZERO_HASH, Count, Hash, PublicKey, Scope, Signature, digest

MAX_OPERATION_BYTES: Final = 1_048_576
"""The longest body of an operation: 1 MiB."""
MAX_HEADS: Final = 1024
MAX_NAMES: Final = 32_768
MAX_EDITS: Final = 65_536
MAX_DEPTH: Final = 32
"""How deep a path, or the JSON of one value, may nest."""
MAX_FILTER_BYTES: Final = 32_768
MAX_NEEDED: Final = 1024
AMOUNT_MAX: Final = 2**53
ROOT: Final = -1
"""As a reference: the place before the first element of a sequence."""

Kind = Literal[
    "lww", "mv", "g-counter", "pn-counter", "g-set", "2p-set", "or-set", "map", "list", "text"
]
DocumentName = Annotated[str, Meta(min_length=1, max_length=256)]
Key = Annotated[str, Meta(max_length=256)]
Path = Annotated[tuple[Key, ...], Meta(min_length=1, max_length=MAX_DEPTH)]
"""Keys from the root map down to the object that an edit changes."""
Reference = Annotated[int, Meta(ge=ROOT, le=MAX_HEADS + MAX_NAMES)]
Offset = Annotated[int, Meta(ge=0, le=2**31)]
Element = tuple[Reference, Offset]
"""The offset-th element that an operation inserted into this sequence; (-1, 0) is the root."""
Range = tuple[Reference, Offset, Offset]
"""(operation, first offset, how many elements)."""


class Assign(Struct, frozen=True, array_like=True, tag="set"):
    """Write a register; `over` names the writes that it replaces (all that its author saw)."""

    path: Path
    kind: Literal["lww", "mv"]
    value: Any
    over: tuple[Reference, ...] = ()


class Increment(Struct, frozen=True, array_like=True, tag="inc"):
    """Add to a counter; a g-counter takes only amounts above 0."""

    path: Path
    kind: Literal["g-counter", "pn-counter"]
    amount: Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]


class Add(Struct, frozen=True, array_like=True, tag="add"):
    """Add a value to a set."""

    path: Path
    kind: Literal["g-set", "2p-set", "or-set"]
    value: Any


class Discard(Struct, frozen=True, array_like=True, tag="discard"):
    """Take a value out of a set; in an or-set only the additions named in `over` go."""

    path: Path
    kind: Literal["2p-set", "or-set"]
    value: Any
    over: tuple[Reference, ...] = ()


class Insert(Struct, frozen=True, array_like=True, tag="ins"):
    """Insert a run of elements as a child of `parent`, on its right or left side.

    Weidner and Kleppmann 2023, "The Art of the Fugue", algorithm 1. Each element after the first
    is the right child of the one before it. `content` is a string for text, values for a list.
    """

    path: Path
    kind: Literal["list", "text"]
    parent: Element
    right: bool
    content: str | tuple[Any, ...]


class Delete(Struct, frozen=True, array_like=True, tag="del"):
    """Delete elements of a sequence by name."""

    path: Path
    kind: Literal["list", "text"]
    ranges: tuple[Range, ...]


class Remove(Struct, frozen=True, array_like=True, tag="remove"):
    """Remove a key of a map with all that its author saw below it."""

    path: Path


class Make(Struct, frozen=True, array_like=True, tag="make"):
    """Make an object be there while it is still empty."""

    path: Path
    kind: Kind


Edit = Assign | Increment | Add | Discard | Insert | Delete | Remove | Make


class OperationBody(Struct, frozen=True, array_like=True):
    """What an author signs.

    `epoch` is that of the author's cluster, never lower than those of its causal past. `counter`
    is one more than that of the author's operation named by `previous` (0: none, counter 1);
    `lamport` one more than the highest of its predecessors. No edits: it only joins heads.
    """

    document: DocumentName
    epoch: Count
    counter: Annotated[int, Meta(ge=1, le=2**62)]
    lamport: Annotated[int, Meta(ge=1, le=2**62)]
    previous: Annotated[int, Meta(ge=0, le=MAX_HEADS + MAX_NAMES)]
    heads: Annotated[tuple[Hash, ...], Meta(max_length=MAX_HEADS)]
    names: Annotated[tuple[Hash, ...], Meta(max_length=MAX_NAMES)]
    edits: Annotated[tuple[Edit, ...], Meta(max_length=MAX_EDITS)]


class Operation(Struct, frozen=True, array_like=True, tag="operation"):
    """A signed operation: `body` is the MessagePack of an OperationBody, signed as it stands."""

    author: PublicKey
    body: Annotated[bytes, Meta(max_length=MAX_OPERATION_BYTES)]
    sig: Signature

    def hash(self) -> bytes:
        """Names the operation: author and body. The signature is left out, since its author
        could make another valid one without changing the operation."""
        return digest("document-operation", self.author, self.body)


class Receipt(Struct, frozen=True, array_like=True, tag="receipt"):
    """A member's word that it holds an operation durably; f+1 of them make it more than local."""

    document: DocumentName
    operation: Hash
    epoch: Count
    member: Count
    sig: Signature


class Filter(Struct, frozen=True, array_like=True):
    """A Bloom filter over operation hashes; `probes` bits are set for each of them."""

    bits: Annotated[bytes, Meta(max_length=MAX_FILTER_BYTES)]
    probes: Annotated[int, Meta(ge=1, le=16)]
    salt: Count


class Summary(Struct, frozen=True, array_like=True):
    """What a replica has of a document: `state` is a digest of all its heads.

    `filter` covers what it has beyond the version `since`; `need` asks for operations by hash.
    `seen` is the `state` of the last summary that it had from the other side (zeros: none), and
    `retry` says that it waited in vain: whatever was on its way since then is lost.
    """

    state: Hash
    heads: Annotated[tuple[Hash, ...], Meta(max_length=MAX_HEADS)]
    since: Annotated[tuple[Hash, ...], Meta(max_length=MAX_HEADS)]
    filter: Filter
    need: Annotated[tuple[Hash, ...], Meta(max_length=MAX_NEEDED)]
    seen: Hash
    retry: bool


class SyncMessage(Struct, frozen=True, array_like=True, tag="sync"):
    """One anti-entropy message: a summary, and before it operations in an order that applies.

    Operations without a summary: more are on their way.
    """

    document: DocumentName
    summary: Summary | None = None
    operations: Annotated[tuple[Operation, ...], Meta(max_length=4096)] = ()


_decode_body: Callable[[bytes], OperationBody] = decoder_of(OperationBody)
_decode_operation: Callable[[bytes], Operation] = decoder_of(Operation)
_decode_message: Callable[[bytes], SyncMessage] = decoder_of(SyncMessage)


def operation_signing_bytes(genesis: bytes, body: bytes) -> bytes:
    """What an author signs: it counts in the cluster; the epoch is inside the body."""
    return Scope(genesis, ZERO_HASH).signing_bytes("document-operation", body)


def receipt_signing_bytes(scope: Scope, receipt: Receipt) -> bytes:
    """What a member signs, in its epoch: which operation it holds."""
    name = digest("document-name", receipt.document.encode())
    payload = b"".join((name, receipt.operation, receipt.epoch.to_bytes(8, "big")))
    return scope.signing_bytes("document-receipt", payload)


def decode_operation_body(body: bytes) -> OperationBody:
    """Decode what an author signed. Raises msgspec.DecodeError, naming the field."""
    return _decode_body(body)


def decode_operation(data: bytes) -> Operation:
    """Decode one operation. Raises msgspec.DecodeError, naming the field."""
    return _decode_operation(data)


def decode_sync_message(data: bytes) -> SyncMessage:
    """Decode an anti-entropy message. Raises msgspec.DecodeError, naming the field."""
    return _decode_message(data)


def encode_document(item: Operation | OperationBody | SyncMessage | Receipt) -> bytes:
    """The MessagePack of any struct of this module."""
    return msgspec.msgpack.encode(item)
