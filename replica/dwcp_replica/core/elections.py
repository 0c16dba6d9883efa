"""Election certificates: who may lead a term, and from which entry (epochs.md, EC).

A PBFT view after the first carries a quorum of VIEW-CHANGEs; `recover` computes its start from
them. A Raft term after the first carries a quorum of identical votes, which bind its start. A chain
that shows entries of a term is valid only where its first entry of that term extends the start of
one such certificate. Certificates go by digest inside VIEW-CHANGEs, so that they do not nest, and
are fetched on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from dwcp.wire.peer import (
    AnyElection,
    Certificate,
    ElectionRef,
    Header,
    TermStart,
    ViewChange,
    VoteCertificate,
    VoteRequest,
)
from dwcp.wire.signing import Scope
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.recover import Statement, recover
from dwcp_replica.core.state import IN_FLIGHT_MAX, window

HEADERS_MAX = 8192
"""Headers that one VIEW-CHANGE may show: a quorum of them fits a frame."""

Starts = Mapping[bytes, tuple[AnyElection, Point]]
"""Verified election certificates by digest, each with the start it fixes."""


class InvalidError(Exception):
    """A statement that proves nothing; the argument is an enumerated word."""


class MissingElectionsError(Exception):
    """The statement may hold, but these certificates must be fetched first."""

    def __init__(self, digests: tuple[bytes, ...], starts: tuple[TermStart, ...]) -> None:
        super().__init__(f"election certificates are not held: {digests} {starts}")
        self.digests = digests
        self.starts = starts


def statement(membership: Membership, change: ViewChange, starts: Starts) -> Statement:
    """What a VIEW-CHANGE states, after checking every signature and link in it.

    Raises InvalidError, or MissingElectionsError when certificates that it needs are not held.
    """
    return shown_statement(membership, change, change.view, starts)


class Shown(Protocol):
    """What a VIEW-CHANGE and a SEAL have in common."""

    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def checkpoint(self) -> Certificate | None: ...  # noqa: D102
    @property
    def log(self) -> tuple[Header, ...]: ...  # noqa: D102
    @property
    def cc(self) -> Certificate | None: ...  # noqa: D102
    @property
    def branch(self) -> tuple[Header, ...]: ...  # noqa: D102
    @property
    def elections(self) -> tuple[ElectionRef, ...]: ...  # noqa: D102
    @property
    def member(self) -> int: ...  # noqa: D102
    @property
    def sig(self) -> bytes: ...  # noqa: D102
    def signing_bytes(self, scope: Scope) -> bytes: ...  # noqa: D102


def shown_statement(
    membership: Membership, shown: Shown, below_view: int, starts: Starts
) -> Statement:
    """What a VIEW-CHANGE or a SEAL states of terms below `below_view`. Raises as `statement`."""
    if shown.epoch != membership.record.epoch:
        raise InvalidError("epoch")
    if not membership.signed(shown.member, shown.signing_bytes(membership.scope), shown.sig):
        raise InvalidError("signature")
    headers = (*shown.log, *shown.branch)
    terms = {header.term for header in headers}
    if len(headers) > HEADERS_MAX or len(shown.elections) > 2 * len(terms):
        raise InvalidError("size")
    base = _base(membership, shown.checkpoint)
    known = _Known(starts, shown.elections)
    log = _branch(membership, base, shown.log, below_view, known)
    certified = _certified(membership, shown, below_view, base, log, known)
    return Statement(log, certified, base if shown.checkpoint is not None else None)


def candidate_log(membership: Membership, request: VoteRequest, starts: Starts) -> Branch:
    """The log that a candidate shows, after checking every signature and link in it.

    Raises InvalidError, or MissingElectionsError when certificates that it needs are not held.
    """
    terms = {header.term for header in request.log}
    if len(request.log) > HEADERS_MAX or len(request.elections) > 2 * len(terms):
        raise InvalidError("size")
    base = _base(membership, request.checkpoint)
    known = _Known(starts, request.elections)
    return _branch(membership, base, request.log, request.term, known)


class _Known:
    """The starts of terms that are held, and how to ask for one that is not."""

    def __init__(self, starts: Starts, named: tuple[ElectionRef, ...]) -> None:
        self._starts: dict[int, set[tuple[int, bytes]]] = {}
        for election, start in starts.values():
            self._starts.setdefault(election.view, set()).add((start.index, start.hash))
        self._held = starts
        self._named = named

    def check(self, term: int, at: Point) -> None:
        """Raise MissingElectionsError unless `term` is known to begin above `at`."""
        if (at.index, at.hash) in self._starts.get(term, ()):
            return
        unknown = tuple(
            ref.digest for ref in self._named if ref.term == term and ref.digest not in self._held
        )
        raise MissingElectionsError(unknown, (TermStart(term, at.hash),))


def start_of(membership: Membership, election: AnyElection, starts: Starts) -> Branch:
    """The chain that an election certificate obliges its view or term to start from.

    Raises InvalidError, MissingElectionsError, or UnsafeStartError (more than f members lied).
    """
    if isinstance(election, VoteCertificate):
        return Branch(_voted_start(membership, election), (), ())
    if membership.record.protocol != "pbft":
        raise InvalidError("protocol")
    members = [change.member for change in election.changes]
    if election.epoch != membership.record.epoch:
        raise InvalidError("epoch")
    if len(members) != membership.quorum or members != sorted(set(members)):
        raise InvalidError("quorum")
    if any(change.view != election.view for change in election.changes):
        raise InvalidError("view")
    return recover([statement(membership, change, starts) for change in election.changes])


def _voted_start(membership: Membership, election: VoteCertificate) -> Point:
    record = membership.record
    members = [vote.member for vote in election.votes]
    if election.epoch != record.epoch:
        raise InvalidError("epoch")
    if record.protocol != "raft":
        raise InvalidError("protocol")
    if len(members) != membership.quorum or members != sorted(set(members)):
        raise InvalidError("quorum")
    if election.last_term >= election.view or election.last_index < record.start_index:
        raise InvalidError("start")
    message = election.signing_bytes(membership.scope)
    if not all(membership.signed(vote.member, message, vote.sig) for vote in election.votes):
        raise InvalidError("signature")
    return Point(election.last_index, election.last_hash, election.last_term)


def _base(membership: Membership, checkpoint: Certificate | None) -> Point:
    if checkpoint is None:
        return Point(membership.record.start_index, membership.record.start_hash, 0)
    if checkpoint.kind != "checkpoint" or not membership.certificate_holds(checkpoint):
        raise InvalidError("checkpoint")
    header = checkpoint.header
    return Point(header.index, header.hash(), header.term)


def _branch(
    membership: Membership,
    base: Point,
    headers: Iterable[Header],
    below_view: int,
    known: _Known,
) -> Branch:
    branch = Branch.of(base, headers)
    at = first = base
    for header, hash_ in zip(branch.headers, branch.hashes, strict=True):
        if header.index != at.index + 1 or header.prev != at.hash:
            raise InvalidError("link")
        if not at.term <= header.term < below_view:
            raise InvalidError("term")
        if not membership.header_holds(header):
            raise InvalidError("header-signature")
        if header.term > at.term:
            first = at
            if header.term == 1:  # the epoch record is the first term's certificate
                _check_first_term(membership, at)
            else:
                known.check(header.term, at)
        if header.index > first.index + window(membership.record) + IN_FLIGHT_MAX:
            raise InvalidError("window")  # no honest member accepts so much of one leader
        at = Point(header.index, hash_, header.term)
    return branch


def _check_first_term(membership: Membership, at: Point) -> None:
    record = membership.record
    if (at.index, at.hash) != (record.start_index, record.start_hash):
        raise InvalidError("election")


def _certified(
    membership: Membership,
    shown: Shown,
    below_view: int,
    base: Point,
    log: Branch,
    known: _Known,
) -> Branch | None:
    if shown.cc is None:
        if shown.branch:
            raise InvalidError("branch-without-cc")
        return None
    header = shown.cc.header
    if shown.cc.kind != "prepare" or header.term >= below_view:
        raise InvalidError("cc")
    if not membership.certificate_holds(shown.cc):
        raise InvalidError("cc")
    chain = log
    if shown.branch:
        chain = _branch(membership, base, shown.branch, below_view, known)
    if header.index < base.index or chain.hash_at(header.index) != header.hash():
        raise InvalidError("cc-chain")
    return chain.prefix(header.index)


def refs_for(headers: Iterable[Header], starts: Starts, base_term: int) -> tuple[ElectionRef, ...]:
    """Names of the certificates that these headers need, by term."""
    refs: dict[tuple[int, bytes], ElectionRef] = {}
    at_term = base_term
    for header in headers:
        if header.term != at_term and header.term > 1:
            for digest, (election, start) in starts.items():
                if election.view == header.term and start.hash == header.prev:
                    refs[(header.term, digest)] = ElectionRef(header.term, digest)
                    break
        at_term = header.term
    return tuple(refs[key] for key in sorted(refs))
