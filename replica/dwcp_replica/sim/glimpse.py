"""What can be seen of a member's engine, and what must hold of all members together.

The invariants of epochs.md that no member can assert by itself: all finals lie on one chain, one
certificate stands at a place, one record begins an epoch and covers what was final before it, and
every quorum of SEALs that members made or could make now recovers to all finals of the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.pbft.view_change import shown_certificate
from dwcp_replica.core.quorum import quorum
from dwcp_replica.core.recover import Statement, UnsafeStartError, recover
from dwcp_replica.core.replica import Replica


@dataclass(frozen=True, slots=True)
class Executed:
    """An entry that was executed, which is irrevocable.

    `by_record`: a later epoch's record made it final, and not a certificate of its own epoch.
    """

    index: int
    epoch: int
    hash: bytes
    by_record: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """A decided record: its epoch, its hash, where it starts."""

    epoch: int
    hash: bytes
    start_index: int
    start_hash: bytes


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What is final here, the records and the highest CC; `statement` is what its SEAL says.

    `certified` is the CC's epoch, term, index and hash, `leader` who led that term.
    """

    executed: tuple[Executed, ...]
    records: tuple[Begun, ...]
    certified: tuple[int, int, int, bytes] | None
    leader: int | None
    epoch: int
    sealed: bool
    statement: Statement


def glimpse(replica: Replica, executed: Sequence[Executed]) -> Glimpse:
    """What can be seen of an engine that has executed these entries."""
    core = replica._core
    cc = None if core.cc is None else core.cc.header
    return Glimpse(
        executed=tuple(executed),
        records=tuple(
            Begun(r.epoch, r.hash(), r.start_index, r.start_hash)
            for r in (one.record for one in replica.certified)
        ),
        certified=None if cc is None else (cc.epoch, cc.term, cc.index, cc.hash()),
        leader=None if cc is None else core.record.primary(cc.term),
        epoch=core.record.epoch,
        sealed=core.sealed,
        statement=statement_of(replica),
    )


def statement_of(replica: Replica) -> Statement:
    """What the SEAL of this engine says, or would say if it sealed its epoch now."""
    core = replica._core
    held = core.ending.statements.get(core.me) if core.sealed else None
    if held is not None:
        return held
    point = core.stable_point
    base = point or Point(core.record.start_index, core.record.start_hash, 0)
    log = Branch.of(base, [slot.header for slot in core.log.slots(base.index)])
    cc, headers = shown_certificate(core, core.low)
    certified = None if cc is None else Branch.of(base, headers or log.headers)
    if certified is not None and cc is not None:
        certified = certified.prefix(cc.header.index)
    return Statement(log, certified, point)


def broken(
    n: int, seen: Sequence[Glimpse], lies: Sequence[Glimpse] = (), liar: int | None = None
) -> str:
    """What honest members of n broke together, as a sentence; empty when nothing.

    `lies` are what engines with the liar's key hold: its SEAL may say any of it, or nothing.
    """
    found = _chains(seen) or _places(seen) or _records(seen)
    return found or _seals(n, seen, lies, liar)


def _chains(seen: Sequence[Glimpse]) -> str:
    chain: dict[int, bytes] = {}
    for one in seen:
        for entry in one.executed:
            if chain.setdefault(entry.index, entry.hash) != entry.hash:
                return f"agreement: two entries were executed at {entry.index}"
    return ""


def _places(seen: Sequence[Glimpse]) -> str:
    places: dict[tuple[int, int, int], bytes] = {}
    for one in seen:
        if one.certified is not None:
            epoch, term, index, hash_ = one.certified
            if places.setdefault((epoch, term, index), hash_) != hash_:
                return f"agreement: two CCs in epoch {epoch}, term {term} at {index}"
    return ""


def _records(seen: Sequence[Glimpse]) -> str:
    records: dict[int, Begun] = {}
    for begun in (one for member in seen for one in member.records):
        if records.setdefault(begun.epoch, begun) != begun:
            return f"agreement: two records of epoch {begun.epoch}"
    for entry in (one for member in seen for one in member.executed):
        following = records.get(entry.epoch + 1)
        if following is None:
            continue
        if entry.index > following.start_index:
            return f"final: epoch {following.epoch} starts below the final entry {entry.index}"
        if entry.index == following.start_index and entry.hash != following.start_hash:
            return f"final: epoch {following.epoch} starts on another chain"
    return ""


def _seals(n: int, seen: Sequence[Glimpse], lies: Sequence[Glimpse], liar: int | None) -> str:
    """Every quorum of SEALs that may come together keeps finals, and what the honest led to a CC.

    Once the next record is decided, only the SEALs in it count: what it dropped is lost by right.
    """
    for epoch in sorted({one.epoch for one in seen}):
        honest = [one.statement for one in seen if one.epoch == epoch]
        lying = [one.statement for one in lies if one.epoch == epoch]
        lying += [Statement(s.log.prefix(s.log.base.index), None, s.checkpoint) for s in honest[:1]]
        promised = {
            Point(entry.index, entry.hash, 0)
            for one in seen
            for entry in one.executed
            if entry.epoch == epoch and not entry.by_record
        }
        if all(one.epoch <= epoch for one in seen):
            promised |= _committed(seen, epoch, liar)
        for chosen in _choices(honest, lying, quorum(n)) if promised else ():
            if not _extends(chosen, promised):
                return f"final: a quorum of SEALs of epoch {epoch} loses what was promised"
    return ""


def _committed(seen: Sequence[Glimpse], epoch: int, liar: int | None) -> set[Point]:
    """Entries with a CC of a term that an honest member led."""
    return {
        Point(one.certified[2], one.certified[3], 0)
        for one in seen
        if one.certified is not None and one.certified[0] == epoch and one.leader != liar
    }


def _choices(
    honest: list[Statement], lying: list[Statement], size: int
) -> Iterator[tuple[Statement, ...]]:
    yield from combinations(honest, size)
    for some, lie in product(combinations(honest, size - 1), lying):
        yield (*some, lie)


def _extends(statements: tuple[Statement, ...], finals: Iterable[Point]) -> bool:
    try:
        start = recover(statements)
    except UnsafeStartError:
        return False
    return all(point.index <= start.tip.index and start.contains(point) for point in finals)
