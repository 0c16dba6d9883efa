"""Conflicts are views: concurrent values stay stored, a strategy says what to show.

Two writes conflict when neither author saw the other's; no clock takes part. A strategy never
changes the document: it looks at the values that no write replaced and gives one value, so that
replicas may use different ones, or change theirs, without diverging. What settles a conflict is an
ordinary write over all its values (`settle`). The order of candidates is the document's total
order, the same on every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from dwcp.crdt.document import Document
from dwcp.crdt.merge3 import merge3
from dwcp.crdt.objects import MapObject, Object, Register
from dwcp.crdt.transaction import Transaction
from dwcp.crdt.values import Value, check_value, plain
from dwcp.wire.documents import Assign, decode_operation_body

Path = tuple[str, ...]
RegisterKind = Literal["lww", "mv"]
FALLBACK_ERRORS: Final = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError,
)  # fmt: skip
"""What a user's resolver may raise: the conflict then shows its last writer, and is counted."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One concurrent value and who wrote it."""

    value: Value
    author: bytes
    operation: bytes
    lamport: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Concurrent values at a path, the last writer's last. `base` is what all of them replaced."""

    document: str
    path: Path
    candidates: tuple[Candidate, ...]
    base: Value = None
    kind: RegisterKind = "lww"


class Strategy(Protocol):
    """Gives one value for a conflict; deterministic, without side effects."""

    @property
    def name(self) -> str:
        """Names the strategy in history and counts."""
        ...

    def resolve(self, conflict: Conflict) -> Value:
        """The value to show. Raises Unresolved when people have to decide."""
        ...


class Unresolved(Exception):  # noqa: N818 - named as the protocol names it
    """This strategy leaves the conflict to people."""


@dataclass(frozen=True, slots=True)
class LastWriteWins:
    """The value of the last write in the order that extends causality."""

    name: str = "LastWriteWins"

    def resolve(self, conflict: Conflict) -> Value:
        """The last candidate's value."""
        return conflict.candidates[-1].value


@dataclass(frozen=True, slots=True)
class MultiValue:
    """All values, in order."""

    name: str = "MultiValue"

    def resolve(self, conflict: Conflict) -> Value:
        """A list of the candidates' values."""
        return [candidate.value for candidate in conflict.candidates]


@dataclass(frozen=True, slots=True)
class ThreeWayMerge:
    """JSON objects merged key by key against the value that all candidates replaced."""

    name: str = "ThreeWayMerge"

    def resolve(self, conflict: Conflict) -> Value:
        """The candidates, merged one after another in their order."""
        merged = conflict.candidates[0].value
        for candidate in conflict.candidates[1:]:
            merged = merge3(conflict.base, merged, candidate.value)
        return merged


@dataclass(frozen=True, slots=True)
class Priority:
    """The value of the author with the highest priority; among equals the last write."""

    of_author: Mapping[bytes, int]
    name: str = "Priority"

    def resolve(self, conflict: Conflict) -> Value:
        """The value of the candidate that ranks highest; unlisted authors have priority 0."""
        ranked = enumerate(conflict.candidates)
        _, winner = max(ranked, key=lambda item: (self.of_author.get(item[1].author, 0), item[0]))
        return winner.value


@dataclass(frozen=True, slots=True)
class Manual:
    """People decide; until then the conflict waits in the queue."""

    name: str = "Manual"

    def resolve(self, conflict: Conflict) -> Value:
        """Always raises Unresolved."""
        raise Unresolved(f"{len(conflict.candidates)} values wait for a decision")


Resolver = Callable[[Sequence[Value]], Value]
"""A user's function: the concurrent values, in order, to the one to show."""


@dataclass(frozen=True, slots=True)
class Custom:
    """A user's function over the values; see `check_resolver` for what it should satisfy."""

    name: str
    function: Resolver

    def resolve(self, conflict: Conflict) -> Value:
        """What the function gives, checked to be JSON."""
        value = self.function([plain(candidate.value) for candidate in conflict.candidates])
        check_value(value)
        return plain(value)


@dataclass(slots=True)
class Strategies:
    """Which strategy applies: by document and path prefix, else by document, else the default.

    Keys are (document, path prefix) in `chosen`, where the document "" stands for every document,
    and (beginning of documents' names, path prefix) in `below`.
    """

    default: Strategy = field(default_factory=LastWriteWins)
    chosen: dict[tuple[str, Path], Strategy] = field(default_factory=dict)
    below: dict[tuple[str, Path], Strategy] = field(default_factory=dict)

    def of(self, document: str, path: Path) -> Strategy:
        """The strategy with the longest prefix; a document's own first, the cluster's last.

        Among beginnings of names the longest that says something of the path.
        """
        begins = {name for name, _ in self.below if document.startswith(name)}
        places = [(self.chosen, document)]
        places += [(self.below, name) for name in sorted(begins, key=len, reverse=True)]
        for table, name in (*places, (self.chosen, "")):
            for length in range(len(path), -1, -1):
                found = table.get((name, path[:length]))
                if found is not None:
                    return found
        return self.default

    def chose(self, document: str, path: Path) -> bool:
        """True when somebody chose a strategy for this place: it is not the default."""
        return self.of(document, path) is not self.default


def conflicts(document: Document) -> Iterator[Conflict]:
    """Every register that holds concurrent values, by path."""
    for path, found in _objects((), document.state.root):
        if isinstance(found, Register) and len(found.writes) > 1:
            yield _conflict(document, path, found)


def conflict_at(document: Document, path: Path) -> Conflict | None:
    """The conflict at a path, or None when there is none."""
    kinds: tuple[RegisterKind, ...] = ("lww", "mv")
    for kind in kinds:
        found = document.find(path, kind)
        if isinstance(found, Register) and len(found.writes) > 1:
            return _conflict(document, path, found)
    return None


def settle(transaction: Transaction, conflict: Conflict, value: Value) -> None:
    """Write a value over all values of a conflict: an ordinary edit, signed by who decides."""
    transaction.set(conflict.path, value, conflict.kind)


def _objects(path: Path, place: MapObject) -> Iterator[tuple[Path, Object]]:
    for key in sorted(place.children):
        for found in place.kinds(key):
            yield (*path, key), found
            if isinstance(found, MapObject):
                yield from _objects((*path, key), found)


def _conflict(document: Document, path: Path, register: Register) -> Conflict:
    graph = document.graph
    candidates = []
    for number, value in register.ordered():
        lamport, author, name = graph.order(number)
        candidates.append(Candidate(plain(value), author, name, lamport))
    base = _base(document, path, register)
    return Conflict(document.name, path, tuple(candidates), base, register.kind)


def _base(document: Document, path: Path, register: Register) -> Value:
    """The newest value that every candidate's write replaced; None when there is none here."""
    shared: set[int] | None = None
    values: dict[int, Value] = {}
    for number in register.writes:
        replaced = dict(_replaced(document, path, number))
        values |= replaced
        shared = set(replaced) if shared is None else shared & set(replaced)
    if not shared:
        return None
    return plain(values[max(shared, key=document.graph.order)])


def _replaced(document: Document, path: Path, number: int) -> Iterator[tuple[int, Value]]:
    """(operation, value) of the writes that this one replaced, directly or not."""
    stack, seen = [number], {number}
    while stack:
        operation = document.operation(document.graph.hashes[stack.pop()])
        if operation is None:  # collected: what it replaced is not known any more
            continue
        body = decode_operation_body(operation.body)
        names = [-1, *(document.graph.numbers[name] for name in (*body.heads, *body.names))]
        writes = [e for e in body.edits if isinstance(e, Assign) and e.path == path]
        for replaced in {names[k] for edit in writes for k in edit.over} - seen - {-1}:
            seen.add(replaced)
            stack.append(replaced)
            value = _written(document, path, replaced)
            if value is not None:
                yield replaced, value[0]


def _written(document: Document, path: Path, number: int) -> tuple[Value] | None:
    operation = document.operation(document.graph.hashes[number])
    if operation is None:
        return None
    edits = decode_operation_body(operation.body).edits
    writes = [e for e in edits if isinstance(e, Assign) and e.path == path]
    return (writes[-1].value,) if writes else None
