"""When is an answer true? When f+1 replicas signed the same one.

At most f of the n = 3f+1 replicas lie, so among f+1 that agree at least one is honest, and an
honest replica answers only what was executed at `final`. Nothing less counts: not the
primary's word, not a majority of those heard so far, not a reply whose signature fails.
In a cluster with fast reads (reads.py) it takes quorum(n): see there.

    reply   signed; one vote per member for (index, revision, results). `epoch` and `view`
            take no part in matching; the epoch is checked, the view is a hint.
    lie     a signed reply that contradicts the accepted answer, whenever it arrives, or
            another signed reply of the same member. See `contradict`.
    busy    signed; says nothing about the request's fate.
    rejected
            signed, one replica's word. The request is given up when f+1 give the same
            reason, so that an honest one is among them, or when n-f reject for any reasons.
            Without signatures, whoever sits between client and replicas could end requests.

Under Crash trust nobody lies: one reply counts, if it comes with the certificate by which a
majority holds its entry (`Committed`).

An honest replica may sign two different answers to one request, one after the other: when a
repeated envelope's results are no longer kept, when a read is executed again, when an
envelope is refused because its session is gone. So members may have a few votes each (every
content still needs f+1 members), and not every difference is a lie.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from dwcp.epochs import RecordChain
from dwcp.wire.committed import Committed, proves
from dwcp.wire.envelope import (
    Busy,
    Rejected,
    Reply,
    decode_results,
    refusal_signing_bytes,
    reply_signing_bytes,
)
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.operations import EnvelopeFailure, Result
from dwcp.wire.query import QueryReply, query_reply_signing_bytes
from dwcp.wire.quorum import liars, quorum
from dwcp.wire.records import EpochRecord, Member, scope_of
from dwcp.wire.signing import Verifier
from dwcp.wire.watch import Page, page_signing_bytes

ReplicaMessage = Reply | Committed | QueryReply | Busy | Rejected
"""What a replica sends to a client."""

Content = tuple[int, int, bytes]
"""What must match: index, revision, results."""

RefusedReason = Literal[
    "not-a-member",
    "another-request",
    "another-member",
    "another-epoch",
    "signature",
    "liar",
    "unproven",
]

VOTES_PER_MEMBER_MAX: Final = 4
ANSWER_DROPPED: Final = 15
"""Code of the EnvelopeFailure that answers an executed envelope again, its results gone."""
MIXED: Final = "mixed"
"""The reason of a rejection on whose reason no f+1 members agree."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What f+1 members signed alike; `results` is the MessagePack of a tuple of Result."""

    index: int
    revision: int
    results: bytes
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Rejection:
    """The request will not be answered; `reason` is MIXED when members gave different ones."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Lie:
    """Proof against `member`: what it signed, and the f+1 replies that say otherwise.

    `accepted` is empty when the member contradicts itself (`said` then holds two replies).
    """

    member: int
    said: tuple[Reply | QueryReply, ...]
    accepted: tuple[Reply | QueryReply, ...]

    def describe(self) -> str:
        """One sentence for people."""
        request = self.said[0].request.hex()[:12]
        if not self.accepted:
            return f"signed two different answers to request {request}"
        said, truth = self.said[0], self.accepted[0]
        return (
            f"signed an answer to request {request} (index {said.index}, revision "
            f"{said.revision}) against that of {len(self.accepted)} others (index "
            f"{truth.index}, revision {truth.revision})"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What one message brought besides a vote: why it was dropped, or lies that it proved."""

    refused: RefusedReason | None = None
    lies: tuple[Lie, ...] = ()


NOTHING: Final = Finding()


class ReplyChecker:
    """Knows the epoch records that were verified, and checks what their members sign.

    `peers` are all members that a record ever named, in the order in which they were learned of:
    the numbers by which a client knows them. `f`, `quorum` and `needed` are those of the newest
    record; `needed` equal replies, all of one record, answer what went through the log.
    """

    def __init__(self, genesis: EpochRecord, verifier: Verifier) -> None:
        self.records = RecordChain(genesis, verifier)
        self.peers: list[Member] = []
        self.unknown_epoch = 0
        self._verifier = verifier
        self.enter(genesis)

    def enter(self, record: EpochRecord) -> None:
        """Count by this record from now on."""
        members = len(record.members)
        self.f = liars(members, record.trust)
        self.quorum = quorum(members, record.trust)
        self.wants_proof = record.trust == "Crash"
        self.needed = self.quorum if record.parameters.fast_reads else self.f + 1
        known = {peer.identity: place for place, peer in enumerate(self.peers)}
        for member in record.members:
            if member.identity in known:
                self.peers[known[member.identity]] = member
            else:
                self.peers.append(member)
        self._current = tuple(
            next(i for i, p in enumerate(self.peers) if p.identity == member.identity)
            for member in record.members
        )

    @property
    def n(self) -> int:
        """How many members were ever known: every number of one is below."""
        return len(self.peers)

    @property
    def current(self) -> tuple[int, ...]:
        """The numbers of the newest record's members, in its order."""
        return self._current

    @property
    def epoch(self) -> int:
        """The newest epoch whose record was verified."""
        return self.records.current.epoch

    @property
    def wants_records(self) -> bool:
        """True when a replica answered in an epoch whose record is not known here."""
        return self.unknown_epoch > self.epoch

    def learn(self, certified: Iterable[CertifiedRecord]) -> str | None:
        """Follow epochs; why a record does not hold, or None."""
        before = self.records.current.epoch
        fault = self.records.extend(certified)
        for record in self.records.records[before + 1 :]:
            self.enter(record)
        return fault

    def needed_in(self, epoch: int) -> int:
        """How many equal replies, all made in this epoch, are an answer."""
        record = self.records.record(epoch)
        if record is None or epoch == self.records.current.epoch:
            return self.needed
        return self.quorum_in(epoch) if record.parameters.fast_reads else self.liars_in(epoch) + 1

    def quorum_in(self, epoch: int) -> int:
        """quorum(n) of an epoch whose record was verified."""
        record = self._record(epoch)
        return quorum(len(record.members), record.trust)

    def liars_in(self, epoch: int) -> int:
        """How many members of an epoch, whose record was verified, may lie."""
        record = self._record(epoch)
        return liars(len(record.members), record.trust)

    def _record(self, epoch: int) -> EpochRecord:
        record = self.records.record(epoch)
        assert record is not None, f"the record of epoch {epoch} is not known"
        return record

    def refuse(
        self, member: int, said: ReplicaMessage | Page, envelope_sig: bytes
    ) -> RefusedReason | None:
        """Why this does not count as the member's word; None when it does.

        `envelope_sig` is the signature on what was asked; a refusal is bound to it.
        """
        record = self.records.record(said.epoch)
        if record is None:
            self.unknown_epoch = max(self.unknown_epoch, said.epoch)
            return "another-epoch"
        identity = self.peers[member].identity
        members = record.members
        if said.member >= len(members) or members[said.member].identity != identity:
            return "another-member"
        scope = scope_of(self.records.genesis, record)
        match said:
            case Reply():
                message = reply_signing_bytes(scope, said)
            case Committed():
                return self.refuse(member, said.reply, envelope_sig)
            case QueryReply():
                message = query_reply_signing_bytes(scope, said)
            case Page():
                message = page_signing_bytes(scope, said)
            case Busy() | Rejected():
                message = refusal_signing_bytes(scope, said, envelope_sig)
        if not self._verifier.verify(identity, message, said.sig):
            return "signature"
        return None

    def is_proven(self, said: Committed) -> bool:
        """True when a quorum has signed for the entry of this reply."""
        record = self.records.record(said.epoch)
        if record is None:
            return False
        scope = scope_of(self.records.genesis, record)
        return proves(record, scope, self._verifier, said)


def content_of(reply: Reply) -> Content:
    """The part of a reply on which f+1 members must agree."""
    return (reply.index, reply.revision, reply.results)


def _counted(reply: Reply) -> tuple[int, Content]:
    """What must be equal for two replies to add up: also the epoch, whose members they are."""
    return (reply.epoch, content_of(reply))


def results_of(results: bytes) -> tuple[Result, ...] | None:
    """Decode a reply's results; None when they are none."""
    try:
        return decode_results(results)
    except (msgspec.DecodeError, RecursionError):
        return None


def contradict(one: Reply, other: Reply, *, read_only: bool) -> bool:
    """True when no honest replica can have signed one of the two answers to one request.

    An envelope is executed once at an index; one that writes, at one index only, while one that
    only reads may be executed again later. An EnvelopeFailure may say that the envelope was refused
    as a whole, which can happen at an index besides the one where it was executed; or that its
    results are dropped, which names the first index.
    """
    if content_of(one) == content_of(other):
        return False
    failures = [_envelope_failure(reply) for reply in (one, other)]
    if any(failure is not None and failure.code == ANSWER_DROPPED for failure in failures):
        return False
    return one.index == other.index or (not read_only and failures == [None, None])


def _envelope_failure(reply: Reply) -> EnvelopeFailure | None:
    match results_of(reply.results):
        case (EnvelopeFailure() as failure,):
            return failure
        case _:
            return None


class Collector:
    """Gathers what the replicas say about one request, named by its digest.

    `envelope_sig` is the client's signature on it; `read_only` says that its operations, if any,
    only read.
    """

    def __init__(
        self, checker: ReplyChecker, request: bytes, envelope_sig: bytes, *, read_only: bool
    ) -> None:
        self.request = request
        self._envelope_sig = envelope_sig
        self.answer: Answer | None = None
        self.heard: set[int] = set()
        self._checker = checker
        self._read_only = read_only
        self._votes: dict[int, list[Reply]] = {}
        self._liars: set[int] = set()
        self._busy: dict[int, int] = {}
        self._rejected: dict[int, Rejected] = {}

    def add(self, member: int, message: ReplicaMessage) -> Finding:
        """Take what arrived over the connection of `member`; anything unfit changes nothing."""
        if not 0 <= member < self._checker.n:
            return Finding(refused="not-a-member")
        if message.request != self.request:
            return Finding(refused="another-request")
        if isinstance(message, Reply | Committed):
            return self._add_answer(member, message)
        if (reason := self._refuse(member, message)) is not None:
            return Finding(refused=reason)
        match message:
            case QueryReply():
                return Finding(refused="another-request")
            case Busy():
                self._busy[member] = message.retry_after_ms
            case Rejected():
                self._rejected[member] = message
        return NOTHING

    @property
    def matching(self) -> int:
        """How many members agree on the answer that most give."""
        if self.answer is not None:
            return len(self.answer.replies)
        votes = (_counted(vote) for votes in self._votes.values() for vote in votes)
        return max(Counter(votes).values(), default=0)

    @property
    def rejection(self) -> Rejection | None:
        """Why the request is given up: f+1 members with one reason, or n-f with any."""
        if self.answer is not None:
            return None
        for reason, count in Counter(r.reason for r in self._rejected.values()).items():
            if count > self._checker.f:
                return Rejection(reason, self._message(reason))
        members = len(self._checker.current)
        if len(self._rejected) >= members - self._checker.f:
            words = sorted({r.reason for r in self._rejected.values()})
            return Rejection(MIXED, f"the replicas rejected it for different reasons: {words}")
        return None

    @property
    def busy_ms(self) -> int | None:
        """How long to back off when f+1 members are busy: the (f+1)-th longest time they ask."""
        if len(self._busy) <= self._checker.f:
            return None
        return sorted(self._busy.values(), reverse=True)[self._checker.f]

    @property
    def busy(self) -> frozenset[int]:
        """The members that said they were busy since the last `forget_busy`."""
        return frozenset(self._busy)

    @property
    def rejected(self) -> frozenset[int]:
        """The members that rejected the request."""
        return frozenset(self._rejected)

    def forget_busy(self) -> None:
        """The request is sent again: earlier words about being busy are out of date."""
        self._busy.clear()

    def _add_answer(self, member: int, message: Reply | Committed) -> Finding:
        """Under Crash trust a reply counts with its proof, under Byzantine trust by itself."""
        if isinstance(message, Reply) == self._checker.wants_proof:
            return Finding(refused="unproven")
        if isinstance(message, Reply):
            return self._add_reply(member, message)
        if self.answer is None and not self._checker.is_proven(message):
            return Finding(refused="unproven")
        return self._add_reply(member, message.reply)

    def _add_reply(self, member: int, reply: Reply) -> Finding:
        if member in self._liars:
            return Finding(refused="liar")
        content = content_of(reply)
        if self.answer is not None and content == content_of(self.answer.replies[0]):
            # It can change nothing any more, so its signature is not worth a check.
            self.heard.add(member)
            return NOTHING
        own = self._votes.get(member, [])
        if any(_counted(vote) == _counted(reply) for vote in own):
            return NOTHING
        if (reason := self._refuse(member, reply)) is not None:
            return Finding(refused=reason)
        self.heard.add(member)
        for vote in own:
            if self._contradict(vote, reply):
                self._votes.pop(member)
                return Finding(lies=(self._convict(member, (vote, reply), ()),))
        self._busy.pop(member, None)
        self._rejected.pop(member, None)
        self._votes[member] = [*own[1 - VOTES_PER_MEMBER_MAX :], reply]
        return self._decide(reply) if self.answer is None else self._compare([member])

    def _refuse(self, member: int, message: ReplicaMessage) -> RefusedReason | None:
        return self._checker.refuse(member, message, self._envelope_sig)

    def _decide(self, reply: Reply) -> Finding:
        """Count what agrees with a reply: within its epoch's record, never across two."""
        said = _counted(reply)
        agreeing = tuple(
            vote for own in self._votes.values() for vote in own if _counted(vote) == said
        )
        if len(agreeing) < self._checker.needed_in(reply.epoch):
            return NOTHING
        self.answer = Answer(*content_of(reply), agreeing)
        return self._compare(list(self._votes))

    def _compare(self, members: list[int]) -> Finding:
        """Hold the votes of `members` against the accepted answer."""
        assert self.answer is not None, "nothing to compare with"
        accepted = self.answer.replies
        lies = []
        for member in members:
            for vote in self._votes[member]:
                if self._contradict(accepted[0], vote):
                    lies.append(self._convict(member, (vote,), accepted))
                    break
        return Finding(lies=tuple(lies))

    def _contradict(self, one: Reply, other: Reply) -> bool:
        return contradict(one, other, read_only=self._read_only)

    def _convict(self, member: int, said: tuple[Reply, ...], accepted: tuple[Reply, ...]) -> Lie:
        self._liars.add(member)
        return Lie(member, said, accepted)

    def _message(self, reason: str) -> str:
        return next(r.message for r in self._rejected.values() if r.reason == reason)


class History:
    """The collectors of settled requests, kept for a while so that late lies are still named.

    Bounded by requests and by the bytes of the replies that were held when one was added.
    """

    def __init__(self, requests_max: int = 256, bytes_max: int = 8 * 1024 * 1024) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[bytes, tuple[Collector, int]] = OrderedDict()
        self._bytes = 0

    def get(self, request: bytes) -> Collector | None:
        """The collector of a request that was settled lately."""
        kept = self._kept.get(request)
        return kept[0] if kept is not None else None

    def add(self, collector: Collector) -> None:
        """Keep a settled request's collector, and forget the oldest beyond the bounds."""
        replies = collector.answer.replies if collector.answer is not None else ()
        size_bytes = sum(256 + len(reply.results) for reply in replies)
        self._kept[collector.request] = (collector, size_bytes)
        self._bytes += size_bytes
        while len(self._kept) > self._requests_max or self._bytes > self._bytes_max:
            self._bytes -= self._kept.popitem(last=False)[1][1]
