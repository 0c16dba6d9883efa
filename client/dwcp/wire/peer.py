"""Messages between replicas.

One chain entry is a header and a body. The term's leader signs the header (epochs.md: APPEND);
every vote names an entry by its hash, and the hash covers all entries below it.
In a PBFT epoch the term is the view, and the paper's messages are these:

| paper (Castro and Liskov 1999) | here |
|---|---|
| PRE-PREPARE | `PrePrepare`: signed header and body |
| PREPARE | `Prepare`: echoes the signed header, so that equivocation shows at once |
| COMMIT | `Commit` |
| CHECKPOINT | `CheckpointVote` |
| VIEW-CHANGE | `ViewChange`: the fields of a SEAL, plus the view |
| NEW-VIEW | `NewView`: the election certificate and the view's first, empty entry |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.chain import (
    Certificate,
    DoubleVote,
    ElectionRef,
    Entry,
    Equivocation,
    Evidence,
    Fork,
    Header,
    Index,
    MemberId,
    View,
    VoteKind,
    VoteSig,
    vote_signing_bytes,
)
from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import Envelope
from dwcp.wire.epochs import EpochMessage
from dwcp.wire.signing import Count, Hash, Scope, Signature, digest
from dwcp.wire.state import StateMessage

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""A longer frame closes the connection and is counted."""

__all__ = [
    "MAX_FRAME_BYTES", "Bodies", "Certificate", "CheckpointVote", "Commit", "DoubleVote",
    "Election", "ElectionRef", "Elections", "Entries", "Entry", "EpochMessage", "Equivocation",
    "Evidence", "Fetch", "FetchBodies", "FetchElections", "Fork", "Forward", "Header", "Index",
    "MemberId", "NewView", "PeerMessage", "PrePrepare", "Prepare", "StateMessage", "Status",
    "TermStart", "View",
    "ViewChange", "VoteKind", "VoteSig", "decode_message", "encode_message",
    "vote_signing_bytes",
]  # fmt: skip


class PrePrepare(Struct, frozen=True, array_like=True, tag="pre-prepare"):
    """The primary's proposal of one entry. Castro and Liskov 1999, section 4.2."""

    entry: Entry


class Prepare(Struct, frozen=True, array_like=True, tag="prepare"):
    """A backup's vote for an entry; the header carries the primary's signature."""

    header: Header
    member: MemberId
    sig: Signature


class Commit(Struct, frozen=True, array_like=True, tag="commit"):
    """A replica's vote that an entry is prepared; sent once its CC is durable (CERT-ACK)."""

    header: Header
    member: MemberId
    sig: Signature


class CheckpointVote(Struct, frozen=True, array_like=True, tag="checkpoint"):
    """The digest of the state after an executed entry. Castro and Liskov 1999, section 4.3."""

    header: Header
    state: Hash
    member: MemberId
    sig: Signature


class ViewChange(Struct, frozen=True, array_like=True, tag="view-change"):
    """A replica's durable statement of its log when it asks for `view`.

    `log` holds the signed headers above `checkpoint` (above the epoch's start when there is
    none); `cc` is its highest CC and `branch` that certificate's chain above the checkpoint,
    given only where it is not a prefix of `log`. `elections` names the election certificates
    of the terms shown. The fields of a SEAL in epochs.md.
    """

    epoch: Count
    view: View
    checkpoint: Certificate | None
    log: tuple[Header, ...]
    cc: Certificate | None
    branch: tuple[Header, ...]
    elections: tuple[ElectionRef, ...]
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs: every field but the signature."""
        unsigned = msgspec.structs.replace(self, sig=bytes(64))
        return scope.signing_bytes("view-change", msgspec.msgpack.encode(unsigned))


class Election(Struct, frozen=True, array_like=True, tag="election"):
    """EC: a quorum's view changes for one view, by ascending member; fixes the view's start."""

    epoch: Count
    view: View
    changes: tuple[ViewChange, ...]

    def digest(self) -> bytes:
        """Names the certificate: 32 bytes."""
        return digest("election", msgspec.msgpack.encode(self))


class NewView(Struct, frozen=True, array_like=True, tag="new-view"):
    """The new primary's proof that its view may start, and the view's first, empty entry."""

    election: Election
    first: Entry


class Forward(Struct, frozen=True, array_like=True, tag="forward"):
    """Client envelopes that a backup passes on to the primary."""

    envelopes: tuple[Envelope, ...]


class Status(Struct, frozen=True, array_like=True, tag="status"):
    """Where a replica stands; a heartbeat and a hint, believed by nobody.

    `last`, `prepared`, `final` and `stable` are chain indexes. `mute`: it signs nothing, and
    should not be waited for as a primary.
    """

    epoch: Count
    view: View
    active: bool
    last: Count
    prepared: Count
    final: Count
    stable: Count
    mute: bool = False


class Fetch(Struct, frozen=True, array_like=True, tag="fetch"):
    """Asks for final entries from `start` on (FETCH in epochs.md)."""

    epoch: Count
    start: Index


class Entries(Struct, frozen=True, array_like=True, tag="entries"):
    """Consecutive entries, and proof that they are final.

    `links` are the headers from the last entry (not included) up to the certificate's entry,
    so that the hash chain reaches it; `certificate` is final (commit) or a stable checkpoint.
    `elections` are the certificates of the terms shown, so that the receiver can show them on.
    """

    entries: tuple[Entry, ...]
    links: tuple[Header, ...]
    certificate: Certificate
    elections: tuple[Election, ...]


class FetchBodies(Struct, frozen=True, array_like=True, tag="fetch-bodies"):
    """Asks for the bodies with these digests."""

    batches: tuple[Hash, ...]


class Bodies(Struct, frozen=True, array_like=True, tag="bodies"):
    """Bodies that were asked for; the receiver checks their digests."""

    bodies: tuple[bytes, ...]


class TermStart(Struct, frozen=True, array_like=True):
    """Where a term of some chain began: the hash of the entry below its first one."""

    term: View
    hash: Hash


class FetchElections(Struct, frozen=True, array_like=True, tag="fetch-elections"):
    """Asks for election certificates: by digest, and by the start that they fix."""

    digests: tuple[Hash, ...]
    starts: tuple[TermStart, ...] = ()


class Elections(Struct, frozen=True, array_like=True, tag="elections"):
    """Election certificates that were asked for."""

    elections: tuple[Election, ...]


PeerMessage = (
    PrePrepare
    | Prepare
    | Commit
    | CheckpointVote
    | ViewChange
    | NewView
    | Forward
    | Equivocation
    | DoubleVote
    | Fork
    | Status
    | Fetch
    | Entries
    | StateMessage
    | FetchBodies
    | Bodies
    | FetchElections
    | Elections
    | EpochMessage
)

_encoder = msgspec.msgpack.Encoder()
_decode_message: Callable[[bytes], PeerMessage] = decoder_of(PeerMessage)


def encode_message(message: PeerMessage) -> bytes:
    """The frame of a message."""
    return _encoder.encode(message)


def decode_message(frame: bytes) -> PeerMessage:
    """Decode a frame. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode_message(frame)
