"""Edits of our own: applied at once, gathered into one operation.

Positions and values are what the editor sees; references to operations are what the wire carries.
Typing letter by letter becomes one run, and deleting letter by letter one range.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, cast

from dwcp.crdt.graph import Graph
from dwcp.crdt.objects import Register, SequenceObject, SetObject
from dwcp.crdt.sequence import ROOT_ELEMENT
from dwcp.crdt.state import BadEdit, State
from dwcp.crdt.values import Value, check_value, plain
from dwcp.wire.documents import (
    MAX_DEPTH,
    ROOT,
    Add,
    Assign,
    Delete,
    Discard,
    Edit,
    Increment,
    Insert,
    Kind,
    Make,
    Operation,
    OperationBody,
    Range,
    Remove,
)

Path = str | tuple[str, ...]


def path_of(path: Path) -> tuple[str, ...]:
    """A path as a tuple of keys; one key may be given as a string."""
    keys = (path,) if isinstance(path, str) else tuple(path)
    if not keys or len(keys) > MAX_DEPTH:
        raise BadEdit(f"a path has 1 to {MAX_DEPTH} keys, this one {len(keys)}")
    return keys


def _checked(value: Value) -> Value:
    """A copy of the value as the document will hold it. Raises BadValue."""
    check_value(value)
    return plain(value)


class _Run:
    """An insertion that is still growing."""

    def __init__(
        self, path: tuple[str, ...], kind: Any, parent: tuple[int, int], last: int
    ) -> None:
        self.path = path
        self.kind = kind
        self.parent = parent
        self.right = True
        self.parts: list[Any] = []
        self.last = last

    def edit(self) -> Insert:
        content: Any
        if self.kind == "text":
            content = "".join(self.parts)
        else:
            content = tuple(item for part in self.parts for item in part)
        return Insert(self.path, self.kind, self.parent, self.right, content)


class _Cut:
    """A deletion that is still growing: ranges of local element numbers."""

    def __init__(self, path: tuple[str, ...], kind: Any) -> None:
        self.path = path
        self.kind = kind
        self.ranges: list[Range] = []

    def take(self, reference: int, offset: int, count: int) -> None:
        """Add a range; joins the last one when they touch."""
        if self.ranges:
            last, start, length = self.ranges[-1]
            if last == reference and start + length == offset:
                self.ranges[-1] = (last, start, length + count)
                return
            if last == reference and offset + count == start:
                self.ranges[-1] = (last, offset, count + length)
                return
        self.ranges.append((reference, offset, count))

    def edit(self) -> Delete:
        return Delete(self.path, self.kind, tuple(self.ranges))


class Transaction:
    """Edits on the present state. `operation` is what they became, once the block has ended."""

    def __init__(self, state: State, graph: Graph, heads: Collection[int] | None = None) -> None:
        self.operation: Operation | None = None
        self._state = state
        self._graph = graph
        self._number = len(graph)
        chosen = sorted(graph.heads) if heads is None else sorted(heads)
        self._heads = tuple(graph.hashes[number] for number in chosen)
        self._references = {self._number: 0}
        self._references |= {number: at + 1 for at, number in enumerate(chosen)}
        self._names: list[bytes] = []
        self._edits: list[Edit | _Run | _Cut] = []
        self._open = True

    def close(self) -> None:
        """The block has ended: edits from now on would be in no operation."""
        self._open = False

    @property
    def edited(self) -> bool:
        """True once something was changed."""
        return bool(self._edits)

    # the edits

    def set(self, path: Path, value: Value, kind: Literal["lww", "mv"] = "lww") -> None:
        """Write a register in place of all its present values."""
        keys, value = path_of(path), _checked(value)
        found = self._state.find(keys, kind)
        over = tuple(found.writes) if isinstance(found, Register) else ()
        references = tuple(self._reference(number) for number in over)
        self._apply(Assign(keys, kind, value, references))

    def increment(
        self,
        path: Path,
        amount: int = 1,
        kind: Literal["g-counter", "pn-counter"] = "pn-counter",
    ) -> None:
        """Add to a counter."""
        self._apply(Increment(path_of(path), kind, amount))

    def add(
        self, path: Path, value: Value, kind: Literal["g-set", "2p-set", "or-set"] = "or-set"
    ) -> None:
        """Add a value to a set."""
        self._apply(Add(path_of(path), kind, _checked(value)))

    def discard(
        self, path: Path, value: Value, kind: Literal["2p-set", "or-set"] = "or-set"
    ) -> None:
        """Take a value out of a set; from a 2p-set it is gone for good."""
        keys, value = path_of(path), _checked(value)
        found = self._state.find(keys, kind)
        if not isinstance(found, SetObject) or value not in found:
            return
        over = found.additions(value) if kind == "or-set" else []
        references = tuple(self._reference(number) for number in over)
        self._apply(Discard(keys, kind, value, references))

    def make(self, path: Path, kind: Kind) -> None:
        """Make an empty object; needed only to show it while it is empty."""
        self._apply(Make(path_of(path), kind))

    def remove(self, path: Path) -> None:
        """Remove a key of a map with all below it; concurrent additions to it survive."""
        self._apply(Remove(path_of(path)))

    def insert(self, path: Path, position: int, content: str | Sequence[Value]) -> None:
        """Insert before `position`: a string into a text, a sequence of values into a list.

        Positions count Unicode code points, or values. Raises BadEdit outside the sequence.
        """
        kind: Literal["text", "list"] = "text" if isinstance(content, str) else "list"
        run: Any = content if kind == "text" else tuple(_checked(item) for item in content)
        keys = path_of(path)
        length = self._length(keys, kind)
        if not 0 <= position <= length:
            raise BadEdit(f"position {position} is outside a {kind} of {length}")
        if not run:
            return
        self._state.check(
            (Insert(keys, kind, (ROOT, 0), right=True, content=run),), (self._number,)
        )
        found = cast("SequenceObject", self._state.object_at(keys, kind))
        found.touch(self._number)
        parent, right = found.elements.place(position)
        growing = self._growing_run(keys, kind, parent, right=right)
        if growing is None:
            growing = _Run(keys, kind, self._element(found, parent), parent)
            growing.right = right
            self._edits.append(growing)
        first = found.elements.insert(self._number, parent, run, right=right)
        growing.parts.append(run)
        growing.last = first + len(run) - 1

    def delete(
        self, path: Path, position: int, count: int = 1, kind: Literal["list", "text"] = "text"
    ) -> None:
        """Delete `count` elements from `position` on. Raises BadEdit outside the sequence."""
        keys = path_of(path)
        length = self._length(keys, kind)
        if count < 0 or not 0 <= position <= length - count:
            raise BadEdit(f"{count} elements from {position} are outside a {kind} of {length}")
        if not count:
            return
        found = cast("SequenceObject", self._state.object_at(keys, kind))
        runs = list(found.elements.runs(position, count))
        last = self._edits[-1] if self._edits else None
        if not (isinstance(last, _Cut) and (last.path, last.kind) == (keys, kind)):
            last = _Cut(keys, kind)
            self._edits.append(last)
        for first, length in runs:
            self._cut(found, last, first, length)

    def length(self, path: Path, kind: Literal["list", "text"]) -> int:
        """How many elements a sequence has now; 0 where there is none."""
        return self._length(path_of(path), kind)

    # making again what was stranded (rebase)

    def refer(self, name: bytes) -> int | None:
        """The small number under which this operation is named here; None when it is no more."""
        number = self._graph.numbers.get(name)
        return None if number is None else self._reference(number)

    def repeat(self, edits: Collection[Edit]) -> None:
        """Take edits as they stand, without applying them: `receive` judges the operation."""
        self._edits += edits

    # building

    def body(self, document: str, author: bytes, epoch: int) -> OperationBody:
        """What the author signs."""
        latest = self._graph.latest(author)
        previous = 0 if latest is None else self._reference(latest)
        numbers = [number for number in self._references if number != self._number]
        links = [self._graph.links(number) for number in numbers]
        return OperationBody(
            document,
            epoch,
            1 if latest is None else self._graph.links(latest).counter + 1,
            1 + max((link.lamport for link in links), default=0),
            previous,
            self._heads,
            tuple(self._names),
            tuple(e.edit() if isinstance(e, _Run | _Cut) else e for e in self._edits),
        )

    def _apply(self, edit: Edit) -> None:
        """Apply one edit at once: nothing is concurrent with what we do to what we see."""
        assert self._open, "the transaction has ended: begin another"
        names = self._names_by_reference()
        self._state.check((edit,), names)
        self._state.apply((edit,), names, frozenset)
        self._edits.append(edit)

    def _names_by_reference(self) -> list[int]:
        return list(self._references)

    def _reference(self, number: int) -> int:
        """The small number under which this operation names another."""
        known = self._references.get(number)
        if known is None:
            known = self._references[number] = len(self._references)
            self._names.append(self._graph.hashes[number])
        return known

    def _length(self, keys: tuple[str, ...], kind: Kind) -> int:
        assert self._open, "the transaction has ended: begin another"
        found = self._state.find(keys, kind)
        return len(found.elements) if isinstance(found, SequenceObject) else 0

    def _element(self, found: SequenceObject, element: int) -> tuple[int, int]:
        if element == ROOT_ELEMENT:
            return ROOT, 0
        operation, offset = found.elements.name(element)
        return self._reference(operation), offset

    def _growing_run(
        self, keys: tuple[str, ...], kind: Kind, parent: int, *, right: bool
    ) -> _Run | None:
        """The insertion that a new one at this place would continue."""
        last = self._edits[-1] if self._edits else None
        if isinstance(last, _Run) and right and last.parts and last.last == parent:
            return last if (last.path, last.kind) == (keys, kind) else None
        return None

    def _cut(self, found: SequenceObject, cut: _Cut, first: int, count: int) -> None:
        """Delete elements with consecutive numbers, named by the operations that made them."""
        found.elements.delete(first, count)
        while count:
            operation, offset = found.elements.name(first)
            taken = min(count, found.elements.count_of(operation) - offset)
            cut.take(self._reference(operation), offset, taken)
            first += taken
            count -= taken
