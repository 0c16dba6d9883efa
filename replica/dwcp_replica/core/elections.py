"""Election certificates: who may lead a term, and from which entry (epochs.md, EC).

A term after the first carries a quorum of VIEW-CHANGEs; `recover` computes its start from
them. A chain that shows entries of a term is valid only where its first entry of that term
extends the start of one such certificate. Certificates go by digest inside VIEW-CHANGEs, so
that they do not nest, and are fetched on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dwcp.wire.peer import Certificate, Election, ElectionRef, Header, ViewChange
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.recover import Statement, recover

HEADERS_MAX = 65_536
"""Headers that one VIEW-CHANGE may show."""
ELECTIONS_MAX = 64
"""Election certificates that one VIEW-CHANGE may name."""


Starts = Mapping[bytes, tuple[Election, Point]]
"""Verified election certificates by digest, each with the start it fixes."""


class InvalidError(Exception):
    """A statement that proves nothing; the argument is an enumerated word."""


class MissingElectionsError(Exception):
    """The statement may hold, but these certificates must be fetched first."""

    def __init__(self, digests: tuple[bytes, ...]) -> None:
        super().__init__(f"{len(digests)} election certificates are not held")
        self.digests = digests


def statement(membership: Membership, change: ViewChange, starts: Starts) -> Statement:
    """What a VIEW-CHANGE states, after checking every signature and link in it.

    Raises InvalidError, or MissingElectionsError when certificates that it names are not held.
    """
    if change.epoch != membership.record.epoch:
        raise InvalidError("epoch")
    if not membership.signed(change.member, change.signing_bytes(membership.scope), change.sig):
        raise InvalidError("signature")
    too_many_headers = len(change.log) + len(change.branch) > HEADERS_MAX
    if too_many_headers or len(change.elections) > ELECTIONS_MAX:
        raise InvalidError("size")
    base = _base(membership, change.checkpoint)
    by_term = _starts_by_term(change, starts)
    log = _branch(membership, base, change.log, change.view, by_term)
    certified = _certified(membership, change, base, log, by_term)
    return Statement(log, certified, base if change.checkpoint is not None else None)


def start_of(membership: Membership, election: Election, starts: Starts) -> Branch:
    """The chain that an election certificate obliges its view to start from.

    Raises InvalidError, MissingElectionsError, or UnsafeStartError (more than f members lied).
    """
    members = [change.member for change in election.changes]
    if election.epoch != membership.record.epoch:
        raise InvalidError("epoch")
    if len(members) != membership.quorum or members != sorted(set(members)):
        raise InvalidError("quorum")
    if any(change.view != election.view for change in election.changes):
        raise InvalidError("view")
    return recover([statement(membership, change, starts) for change in election.changes])


def _base(membership: Membership, checkpoint: Certificate | None) -> Point:
    if checkpoint is None:
        return Point(membership.record.start_index, membership.record.start_hash, 0)
    if checkpoint.kind != "checkpoint" or not membership.certificate_holds(checkpoint):
        raise InvalidError("checkpoint")
    header = checkpoint.header
    return Point(header.index, header.hash(), header.term)


def _starts_by_term(change: ViewChange, starts: Starts) -> dict[int, list[Point]]:
    missing = tuple(ref.digest for ref in change.elections if ref.digest not in starts)
    if missing:
        raise MissingElectionsError(missing)
    by_term: dict[int, list[Point]] = {}
    for ref in change.elections:
        election, start = starts[ref.digest]
        if election.view != ref.term:
            raise InvalidError("election-term")
        by_term.setdefault(ref.term, []).append(start)
    return by_term


def _branch(
    membership: Membership,
    base: Point,
    headers: Iterable[Header],
    below_view: int,
    by_term: Mapping[int, list[Point]],
) -> Branch:
    branch = Branch.of(base, headers)
    at = base
    for header, hash_ in zip(branch.headers, branch.hashes, strict=True):
        if header.index != at.index + 1 or header.prev != at.hash:
            raise InvalidError("link")
        if not at.term <= header.term < below_view:
            raise InvalidError("term")
        if not membership.header_holds(header):
            raise InvalidError("header-signature")
        if header.term > at.term and not _starts_here(membership, header, at, by_term):
            raise InvalidError("election")
        at = Point(header.index, hash_, header.term)
    return branch


def _starts_here(
    membership: Membership, header: Header, at: Point, by_term: Mapping[int, list[Point]]
) -> bool:
    if header.term == 1:  # the epoch record is the first term's certificate
        record = membership.record
        return (at.index, at.hash) == (record.start_index, record.start_hash)
    return any(
        (start.index, start.hash) == (at.index, at.hash) for start in by_term.get(header.term, ())
    )


def _certified(
    membership: Membership,
    change: ViewChange,
    base: Point,
    log: Branch,
    by_term: Mapping[int, list[Point]],
) -> Branch | None:
    if change.cc is None:
        if change.branch:
            raise InvalidError("branch-without-cc")
        return None
    header = change.cc.header
    if change.cc.kind != "prepare" or header.term >= change.view:
        raise InvalidError("cc")
    if not membership.certificate_holds(change.cc):
        raise InvalidError("cc")
    chain = log
    if change.branch:
        chain = _branch(membership, base, change.branch, change.view, by_term)
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
