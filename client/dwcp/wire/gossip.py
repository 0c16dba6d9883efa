"""What replicas and clients say about documents: beside the log, in a lane of its own.

    member A                         member B
    Digests (one for each part) -->
                                 <-- Versions (of the parts that differ)
    Sync (a summary)            -->
                                 <-- Sync (what A lacks, and a summary) ...

Clients speak `Sync` too, each for the documents that it opened, and `Claim` receipts. Nothing here
is believed: operations carry their authors' signatures, and receipts their members'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.documents import DocumentName, Receipt, SyncMessage
from dwcp.wire.links import Frame
from dwcp.wire.signing import (
    SIGNATURE_BYTES,
    ZERO_HASH,
    Count,
    Hash,
    PublicKey,
    Scope,
    Signature,
    Signer,
    digest,
)

PARTS: Final = 64
"""Documents are divided into so many parts, by the first byte of the hash of their names."""
VERSIONS_MAX: Final = 2048
CLAIMS_MAX: Final = 1024
IMAGE_PART_BYTES: Final = 262_144
IMAGE_BYTES_MAX: Final = 268_435_456

AnyName = Annotated[str, Meta(max_length=256)]
Part = Annotated[int, Meta(ge=0, lt=PARTS)]


class Digests(Struct, frozen=True, array_like=True, tag="doc-digests"):
    """What a member has of all documents: a digest for each part, in order."""

    parts: Annotated[tuple[Hash, ...], Meta(min_length=PARTS, max_length=PARTS)]


class Version(Struct, frozen=True, array_like=True):
    """A document, and a digest of its heads."""

    document: DocumentName
    state: Hash


class Versions(Struct, frozen=True, array_like=True, tag="doc-versions"):
    """A member's documents of one part whose names lie in [low, high), by name; "" is open."""

    part: Part
    low: AnyName
    high: AnyName
    versions: Annotated[tuple[Version, ...], Meta(max_length=VERSIONS_MAX)]


class Taken(Struct, frozen=True, array_like=True, tag="doc-taken"):
    """So many bytes of `Sync` messages were worked off since the connection began.

    Who sends keeps to a window, so that a long catch-up waits here and not in the receiver."""

    bytes: Count


class Open(Struct, frozen=True, array_like=True, tag="doc-open"):
    """A client wants a document and all that becomes of it."""

    document: DocumentName


class Claim(Struct, frozen=True, array_like=True, tag="doc-claim"):
    """A client wants receipts for these operations, as soon as they are durable."""

    document: DocumentName
    operations: Annotated[tuple[Hash, ...], Meta(max_length=CLAIMS_MAX)]


class ImageAsk(Struct, frozen=True, array_like=True, tag="doc-image-ask"):
    """Whoever lacks what was collected asks for the agreed image, one part after the other."""

    document: DocumentName
    image: Hash
    offset: Annotated[int, Meta(ge=0, le=IMAGE_BYTES_MAX)]


class ImagePart(Struct, frozen=True, array_like=True, tag="doc-image"):
    """A part of an image from `offset` on; `total` bytes are all of it, 0: it is not here."""

    document: DocumentName
    image: Hash
    offset: Annotated[int, Meta(ge=0, le=IMAGE_BYTES_MAX)]
    total: Annotated[int, Meta(ge=0, le=IMAGE_BYTES_MAX)]
    data: Annotated[bytes, Meta(max_length=IMAGE_PART_BYTES)]


class Denied(Struct, frozen=True, array_like=True, tag="doc-denied"):
    """A replica's refusal: an enumerated word, and a sentence. It binds nobody."""

    document: AnyName
    reason: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=1024)]


GossipMessage = Digests | Versions | Taken | SyncMessage | ImageAsk | ImagePart
"""Between members."""
ClientGossip = Open | SyncMessage | Taken | Claim | ImageAsk
"""From a client."""
ReplicaGossip = SyncMessage | Taken | Receipt | Denied | ImagePart
"""To a client."""
PeerFrame = Frame | GossipMessage
"""All that may come over a connection between members."""

_TOKEN: Final = re.compile(r"DWCP ([0-9a-f]{64}) ([0-9]{1,16}) ([0-9a-f]{128})")
_encoder = msgspec.msgpack.Encoder()
_decode_frame: Callable[[bytes], PeerFrame] = decoder_of(PeerFrame)
_decode_client: Callable[[bytes], ClientGossip] = decoder_of(ClientGossip)
_decode_replica: Callable[[bytes], ReplicaGossip] = decoder_of(ReplicaGossip)


def part_of(document: str) -> int:
    """The part in which a document lies."""
    return digest("document-part", document.encode())[0] % PARTS


def is_gossip(message: PeerFrame) -> bool:
    """True for what is about documents, and nothing to the engine."""
    return isinstance(message, GossipMessage)


def encode_gossip(message: GossipMessage | ClientGossip | ReplicaGossip) -> bytes:
    """The frame of a message."""
    return _encoder.encode(message)


def decode_frame(frame: bytes) -> PeerFrame:
    """Decode what a member sent. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode_frame(frame)


def decode_client_gossip(frame: bytes) -> ClientGossip:
    """Decode what a client sent. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode_client(frame)


def decode_replica_gossip(frame: bytes) -> ReplicaGossip:
    """Decode what a replica sent. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode_replica(frame)


class ReadToken(Struct, frozen=True, array_like=True):
    """A client's word that whoever shows this may read a document (or "": about conflicts).

    `expires_ms` is milliseconds since 1970; replicas take what expires within an hour.
    """

    client: PublicKey
    expires_ms: Count
    sig: Signature

    def signing_bytes(self, genesis: bytes, document: str) -> bytes:
        """What the client signs."""
        payload = self.expires_ms.to_bytes(8, "big") + document.encode()
        return Scope(genesis, ZERO_HASH).signing_bytes("document-read", payload)

    def header(self) -> str:
        """The value of an Authorization header."""
        return f"DWCP {self.client.hex()} {self.expires_ms} {self.sig.hex()}"


def sign_read_token(genesis: bytes, document: str, expires_ms: int, signer: Signer) -> ReadToken:
    """A token for one document of the cluster whose genesis has this hash."""
    token = ReadToken(signer.public_key, expires_ms, bytes(SIGNATURE_BYTES))
    sig = signer.sign(token.signing_bytes(genesis, document))
    return ReadToken(token.client, expires_ms, sig)


def read_token(header: str) -> ReadToken | None:
    """The token in an Authorization header; None when there is none."""
    found = _TOKEN.fullmatch(header)
    if found is None:
        return None
    client, expires_ms, sig = found.groups()
    return ReadToken(bytes.fromhex(client), int(expires_ms), bytes.fromhex(sig))
