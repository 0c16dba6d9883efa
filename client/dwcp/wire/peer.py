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

In a Raft epoch every term belongs to one member, as a view does (`EpochRecord.primary`), and a
member stands for election in its own terms only. Raft's messages (Ongaro 2014) are these:

| epochs.md | here |
|---|---|
| VOTE | `VoteRequest` shows a log, `Vote` binds it; q of those are a `VoteCertificate` |
| APPEND | `Append`: entries for one follower, with certificates and heartbeats |
| ACK, CERT-ACK | `Prepare` and `Commit`, to the leader only |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

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
    "MAX_FRAME_BYTES", "AnyElection", "Append", "Appended", "Bodies", "Certificate",
    "CheckpointVote", "Commit", "DoubleVote", "Election", "ElectionRef", "Elections", "Entries",
    "Entry", "EpochMessage", "Equivocation", "Evidence", "Fetch", "FetchBodies", "FetchElections",
    "Fork", "Forward", "Header", "Index", "MemberId", "NewView", "PeerMessage", "PrePrepare",
    "PreVote", "Prepare", "StateMessage", "Status", "TermStart", "Transfer", "View", "ViewChange",
    "Vote", "VoteCertificate", "VoteKind", "VoteRequest", "VoteSig", "decode_message",
    "elect_signing_bytes", "encode_message", "vote_signing_bytes",
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


class Vote(Struct, frozen=True, array_like=True, tag="vote"):
    """VOTE: for the candidate that owns `term`, binding the log that it must extend.

    Ongaro 2014, section 3.4; what is bound, by epochs.md. `last_term`, `last_index` and
    `last_hash` name the candidate's last entry, or where the epoch's log begins.
    """

    epoch: Count
    term: View
    last_term: Count
    last_index: Count
    last_hash: Hash
    member: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs."""
        return elect_signing_bytes(
            scope, self.epoch, self.term, (self.last_term, self.last_index, self.last_hash)
        )


def elect_signing_bytes(scope: Scope, epoch: int, term: int, last: tuple[int, int, bytes]) -> bytes:
    """What a voter signs: the term, and the candidate's last (term, index, hash)."""
    last_term, last_index, last_hash = last
    numbers = (epoch, term, last_term, last_index)
    payload = b"".join(number.to_bytes(8, "big") for number in numbers) + last_hash
    return scope.signing_bytes("elect", payload)


class VoteCertificate(Struct, frozen=True, array_like=True, tag="vote-certificate"):
    """EC of a Raft term: a quorum's identical votes, by ascending member.

    `view` is the term. The term starts at the entry that the votes bind.
    """

    epoch: Count
    view: View
    last_term: Count
    last_index: Count
    last_hash: Hash
    votes: Annotated[tuple[VoteSig, ...], Meta(max_length=1024)]

    def digest(self) -> bytes:
        """Names the certificate: 32 bytes."""
        return digest("vote-certificate", msgspec.msgpack.encode(self))

    def signing_bytes(self, scope: Scope) -> bytes:
        """What each voter has signed."""
        return elect_signing_bytes(
            scope, self.epoch, self.view, (self.last_term, self.last_index, self.last_hash)
        )


class Election(Struct, frozen=True, array_like=True, tag="election"):
    """EC: a quorum's view changes for one view, by ascending member; fixes the view's start."""

    epoch: Count
    view: View
    changes: tuple[ViewChange, ...]

    def digest(self) -> bytes:
        """Names the certificate: 32 bytes."""
        return digest("election", msgspec.msgpack.encode(self))


AnyElection = Election | VoteCertificate
"""EC: what proves that a term or view may start where it starts."""


class NewView(Struct, frozen=True, array_like=True, tag="new-view"):
    """The new primary's proof that its view may start, and the view's first, empty entry."""

    election: Election
    first: Entry


class Transfer(Struct, frozen=True, array_like=True, tag="transfer"):
    """The leader of `term` wants `to` to take over: others need not wait for its silence.

    Ongaro 2014, section 3.10.
    """

    epoch: Count
    term: View
    to: MemberId
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the leader signs."""
        numbers = (self.epoch, self.term, self.to)
        payload = b"".join(number.to_bytes(8, "big") for number in numbers)
        return scope.signing_bytes("transfer", payload)


class VoteRequest(Struct, frozen=True, array_like=True, tag="vote-request"):
    """A candidate asks for votes in its term `term`, and shows the log that it would lead from.

    `log` holds the signed headers above `checkpoint` (above the epoch's start when there is
    none), `elections` names the certificates of the terms in it. `pre`: would I be elected
    (Ongaro 2014, section 9.6)? `transfer`: the present leader wants it.
    """

    epoch: Count
    term: View
    pre: bool
    checkpoint: Certificate | None
    log: tuple[Header, ...]
    elections: tuple[ElectionRef, ...]
    transfer: Transfer | None = None


class PreVote(Struct, frozen=True, array_like=True, tag="pre-vote"):
    """The answer to a request that is only a question; a hint that binds nobody.

    `view` is the term that the voter is in.
    """

    epoch: Count
    term: View
    granted: bool
    view: View


class Append(Struct, frozen=True, array_like=True, tag="append"):
    """The leader of `term` to one follower: entries that follow `prev`, certificates, a heartbeat.

    Ongaro 2014, section 3.5. `certificates`: the newest CC and final certificate, as far as they
    are news; `elections`: certificates of the terms that begin in `entries`, and that of `term`
    until the follower has entered it. `beat` is not 0 when an answer is wanted, which repeats it.
    """

    epoch: Count
    term: View
    prev_index: Count
    prev_term: Count
    prev_hash: Hash
    entries: tuple[Entry, ...]
    certificates: Annotated[tuple[Certificate, ...], Meta(max_length=2)] = ()
    elections: tuple[AnyElection, ...] = ()
    beat: Count = 0


class Appended(Struct, frozen=True, array_like=True, tag="appended"):
    """A follower's answer for flow control, believed by nobody; an ack is a `Prepare`.

    `index`: up to where my log is the leader's; when `rejected`, my last place (with its term)
    that could be. `prepared` and `final`: my highest indexes of either kind.
    """

    epoch: Count
    term: View
    index: Count
    rejected: bool
    hint_term: Count
    prepared: Count
    final: Count
    beat: Count = 0


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
    elections: tuple[AnyElection, ...]


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

    elections: tuple[AnyElection, ...]


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
    | VoteRequest
    | PreVote
    | Vote
    | Transfer
    | Append
    | Appended
)

_encoder = msgspec.msgpack.Encoder()
_decode_message: Callable[[bytes], PeerMessage] = decoder_of(PeerMessage)


def encode_message(message: PeerMessage) -> bytes:
    """The frame of a message."""
    return _encoder.encode(message)


def decode_message(frame: bytes) -> PeerMessage:
    """Decode a frame. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode_message(frame)
