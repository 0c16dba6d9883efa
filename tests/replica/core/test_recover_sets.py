"""Whichever quorum of SEALs comes together, the start history holds what had been promised.

A small history is drawn: terms begin where a quorum's statements say, leaders propose, members ack,
certificates form. f members lie: they vote for everything, their terms may have two chains, and
their SEALs show any chain that they could have signed. Then every quorum of SEALs is recovered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from dwcp.wire.peer import Header
from dwcp.wire.signing import digest
from dwcp_replica.core import recover as recovery
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.quorum import quorum
from dwcp_replica.core.recover import Statement, recover

START = Point(0, digest("start"), 0)
EMPTY = Branch.of(START, ())
ENTRIES_MAX = 3


def extended(branch: Branch, term: int, *names: str) -> Branch:
    headers = list(branch.headers)
    at = branch.tip
    for name in names:
        batch = digest("batch", name.encode())
        headers.append(Header(0, term, at.index + 1, batch, at.hash, bytes(64)))
        at = Point(at.index + 1, headers[-1].hash(), term)
    return Branch.of(START, headers)


@dataclass
class Member:
    log: Branch = EMPTY
    certified: Branch | None = None
    term: int = 1
    acked: dict[int, Branch] = field(default_factory=dict)

    def statement(self) -> Statement:
        return Statement(self.log, self.certified, None)


@dataclass
class Term:
    """A leader's term: one chain, or two when it lies."""

    leader_lies: bool
    start: Branch
    chains: list[Branch]


class Model:
    """Members 0 to f-1 lie; the others keep the rules of epochs.md."""

    def __init__(self, n: int, draw: st.DrawFn) -> None:
        self.n, self.f, self.q = n, (n - 1) // 3, quorum(n)
        self.draw = draw
        self.honest = {m: Member() for m in range(self.f, n)}
        self.terms: dict[int, Term] = {}
        self.certificates: list[Branch] = []
        self.final: list[Point] = []
        self.committed: list[Point] = []

    def pick(self, upto: int) -> int:
        return self.draw(st.integers(0, upto))

    def begin(self, term: int) -> None:
        """A quorum gives the terms below up; what it states is where this one starts."""
        lies = bool(self.pick(1))
        liars = self.pick(self.f)
        asking = list(self.draw(st.permutations(list(self.honest))))[: self.q - liars]
        statements = [self.honest[m].statement() for m in asking]
        statements += [self.lie() for _ in range(liars)]
        start = recover(statements) if term > 1 else EMPTY
        chains = [
            extended(start, term, *(f"{term}{face}{i}" for i in range(1 + self.pick(1))))
            for face in ("this", "that")[: 1 + lies]
        ]
        self.terms[term] = Term(lies, start, chains)
        for m in asking:
            self.honest[m].term = term

    def ack(self, term: int) -> None:
        """Each honest member may take a part of one chain of the term over."""
        chains = self.terms[term].chains
        for member in self.honest.values():
            if member.term > term or not self.pick(4):
                continue
            member.term = term
            chain = chains[self.pick(len(chains) - 1)]
            low = self.terms[term].start.tip.index + 1
            member.log = chain.prefix(low + self.pick(chain.tip.index - low))
            member.acked[term] = member.log

    def certify(self, term: int) -> None:
        """Certificates form, become known to some who hold the entry, and are cert-acked."""
        for chain in self.terms[term].chains:
            for index in range(self.terms[term].start.tip.index + 1, chain.tip.index + 1):
                part = chain.prefix(index)
                holders = [m for m in self.honest.values() if self._acked(m, term, part.tip)]
                if len(holders) + self.f >= self.q:
                    self._certified(part, term, holders)

    def _certified(self, part: Branch, term: int, holders: list[Member]) -> None:
        self.certificates.append(part)
        if not self.terms[term].leader_lies:
            self.committed.append(part.tip)
        knowing = [m for m in holders if m.term == term and self.pick(3)]
        for member in knowing:
            member.certified = part
        if len(knowing) + self.f >= self.q:
            self.final.append(part.tip)

    def _acked(self, member: Member, term: int, point: Point) -> bool:
        held = member.acked.get(term)
        return held is not None and point.index <= held.tip.index and held.contains(point)

    def lie(self) -> Statement:
        """Any chain that some leader signed, or that a lying one signs now; any certificate."""
        known = [EMPTY, *(chain for term in self.terms.values() for chain in term.chains)]
        for number, term in self.terms.items():
            if term.leader_lies:
                late = (f"{number}late{i}" for i in range(1 + self.pick(ENTRIES_MAX)))
                known.append(extended(term.start, number, *late))
        certified = [None, *self.certificates]
        shown = known[self.pick(len(known) - 1)]
        return Statement(shown, certified[self.pick(len(certified) - 1)], None)

    def seal_sets(self) -> Iterator[tuple[Statement, ...]]:
        statements = [self.lie() for _ in range(self.f)]
        statements += [member.statement() for member in self.honest.values()]
        return combinations(statements, self.q)


@st.composite
def histories(draw: st.DrawFn, n: int) -> Model:
    model = Model(n, draw)
    for term in range(1, 2 + draw(st.integers(0, 2))):
        model.begin(term)
        model.ack(term)
        model.certify(term)
    return model


def lost(model: Model) -> list[Point]:
    """Promises that some quorum of SEALs does not keep."""
    promised = {*model.final, *model.committed}
    found: set[Point] = set()
    for chosen in model.seal_sets():
        start = recovery.recover(chosen)
        assert recovery.recover(chosen[::-1]) == start, "the order of SEALs decides nothing"
        found |= {p for p in promised if p.index > start.tip.index or not start.contains(p)}
    return sorted(found, key=lambda point: point.index)


@settings(max_examples=150, deadline=None)
@given(histories(4))
def test_every_quorum_of_seals_keeps_what_was_promised_of_4(model: Model) -> None:
    assert not lost(model)


@settings(max_examples=60, deadline=None)
@given(histories(7))
def test_every_quorum_of_seals_keeps_what_was_promised_of_7(model: Model) -> None:
    assert not lost(model)


# --- every other order of the rules loses something (epochs.md, last table) ---------------------


def chains_of(statements: Sequence[Statement]) -> list[Branch]:
    return [s.log for s in statements] + [s.certified for s in statements if s.certified]


def longest(chains: Sequence[Branch]) -> Branch:
    return max(chains, key=lambda chain: (chain.tip.index, chain.tip.hash))


def of_the_top_term(chains: Sequence[Branch]) -> list[Branch]:
    top = max(chain.tip.term for chain in chains)
    return [chain for chain in chains if chain.tip.term == top]


def length_first(statements: Sequence[Statement]) -> Branch:
    return longest(chains_of(statements))


def certificate_ignored(statements: Sequence[Statement]) -> Branch:
    return longest(of_the_top_term([s.log for s in statements]))


def certificate_before_term(statements: Sequence[Statement]) -> Branch:
    certified = [s.certified for s in statements if s.certified]
    bound = longest(certified).tip if certified else START
    return longest(of_the_top_term([c for c in chains_of(statements) if c.contains(bound)]))


def reports_before_certificate(statements: Sequence[Statement]) -> Branch:
    chains = of_the_top_term(chains_of(statements))
    logs = [s.log for s in statements]
    needed = (len(statements) + 1) // 2  # f + 1 of a quorum of 2f + 1
    shown = [c for c in chains if sum(log.contains(c.tip) for log in logs) >= needed]
    return longest(shown) if shown else recover(statements)


def certified_tail_dropped(statements: Sequence[Statement]) -> Branch:
    certified = [s.certified for s in statements if s.certified]
    return longest(certified) if certified else EMPTY


WRONG = (
    length_first,
    certificate_ignored,
    certificate_before_term,
    reports_before_certificate,
    certified_tail_dropped,
)


SEARCHING = settings(
    max_examples=20_000, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_any_other_rule_loses_a_promise(
    wrong: Callable[[Sequence[Statement]], Branch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "recover", wrong)
    assert find(histories(4), lost, settings=SEARCHING)
