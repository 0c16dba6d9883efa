"""The types: registers, counters, sets, maps and sequences, each a set of live contributions.

Theory. An object's state is a function of the set of operations that touched it, not of their
order. What an operation put in is a *contribution* under the operation's local number. Three things
take contributions away, and all three are decided by the operations alone: an edit that names them
(a register's overwritten writes, an or-set's observed additions, deleted elements), a 2P-set's
removal, and the removal of a map key, which drops all that is in its causal past (`retain` keeps
what is concurrent). Dropping twice is dropping once, and what is dropped never comes back, so the
order in which concurrent operations arrive does not matter. Shapiro et al. 2011, "A comprehensive
study of Convergent and Commutative Replicated Data Types", sections 3.2 to 3.4.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never, cast

from dwcp.crdt.sequence import ElementSequence, Ranker
from dwcp.crdt.values import Value, canonical, plain
from dwcp.wire.documents import Kind

Orderer = Callable[[int], Any]
"""From an operation's local number to its place in the total order that extends causality."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the graph tells the types: who is the last writer, and how siblings are ordered."""

    order: Orderer
    rank: Ranker


class Object:
    """What all types share: an object is there while an operation that touched it is live."""

    kind: Kind

    def __init__(self, orders: Orders) -> None:
        self.touched = array("q")
        self._orders = orders

    @property
    def present(self) -> bool:
        """True while something that touched it has not been removed."""
        return bool(self.touched)

    def touch(self, operation: int) -> None:
        """Note that an operation changed this object."""
        if not self.touched or self.touched[-1] != operation:
            self.touched.append(operation)

    def retain(self, operations: Collection[int]) -> None:
        """Drop every contribution but those of these operations."""
        self.touched = array("q", [number for number in self.touched if number in operations])
        self._retain(operations)

    def _retain(self, operations: Collection[int]) -> None:
        raise NotImplementedError

    def view(self) -> Value:
        """The object as JSON."""
        raise NotImplementedError


class Register(Object):
    """Writes that no other write names as replaced; more than one means a conflict."""

    kind: Literal["lww", "mv"]

    def __init__(self, kind: Literal["lww", "mv"], orders: Orders) -> None:
        super().__init__(orders)
        self.kind = kind
        self.writes: dict[int, Value] = {}

    def assign(self, operation: int, value: Value, over: Collection[int]) -> None:
        """Write a value in place of the writes of `over`."""
        for replaced in over:
            self.writes.pop(replaced, None)
        self.writes[operation] = value

    def ordered(self) -> list[tuple[int, Value]]:
        """(operation, value) of the live writes; the last one is the last writer's."""
        return sorted(self.writes.items(), key=lambda item: self._orders.order(item[0]))

    def _retain(self, operations: Collection[int]) -> None:
        self.writes = {n: value for n, value in self.writes.items() if n in operations}

    def view(self) -> Value:
        """lww: the last writer's value, or null. mv: all concurrent values, in order."""
        values = [plain(value) for _, value in self.ordered()]
        if self.kind == "mv":
            return values
        return values[-1] if values else None


class Counter(Object):
    """A sum of amounts, each counted once, under the operation that gave it."""

    def __init__(self, kind: Literal["g-counter", "pn-counter"], orders: Orders) -> None:
        super().__init__(orders)
        self.kind = kind
        self.total = 0
        self._given = array("q")
        self._amounts = array("q")

    def increment(self, operation: int, amount: int) -> None:
        """Add an amount."""
        self.total += amount
        self._given.append(operation)
        self._amounts.append(amount)

    def given(self) -> Iterator[tuple[int, int]]:
        """(operation, amount) of every live contribution."""
        return zip(self._given, self._amounts, strict=True)

    def _retain(self, operations: Collection[int]) -> None:
        kept = [pair for pair in self.given() if pair[0] in operations]
        self._given = array("q", [number for number, _ in kept])
        self._amounts = array("q", [amount for _, amount in kept])
        self.total = sum(amount for _, amount in kept)

    def view(self) -> Value:
        """The sum."""
        return self.total


@dataclass(slots=True)
class _Member:
    value: Value
    added: dict[int, None]
    removed: dict[int, None]


class SetObject(Object):
    """A set of JSON values; what tells two apart is their canonical JSON."""

    def __init__(self, kind: Literal["g-set", "2p-set", "or-set"], orders: Orders) -> None:
        super().__init__(orders)
        self.kind = kind
        self._members: dict[bytes, _Member] = {}

    def _member(self, value: Value) -> _Member:
        return self._members.setdefault(canonical(value), _Member(value, {}, {}))

    def add(self, operation: int, value: Value) -> None:
        """Add a value."""
        self._member(value).added[operation] = None

    def discard(self, operation: int, value: Value, over: Collection[int]) -> None:
        """Take a value out: for good (2P-set), or the additions of `over` only (or-set)."""
        if self.kind == "2p-set":
            self._member(value).removed[operation] = None
            return
        name = canonical(value)
        member = self._members.get(name)
        if member is None:
            return
        for addition in over:
            member.added.pop(addition, None)
        if not member.added:
            del self._members[name]

    def additions(self, value: Value) -> list[int]:
        """The operations whose additions of this value are live."""
        member = self._members.get(canonical(value))
        return [] if member is None else list(member.added)

    def contributions(self) -> Iterator[tuple[Value, list[int], list[int]]]:
        """(value, additions, removals) of every value that has any."""
        for member in self._members.values():
            yield member.value, list(member.added), list(member.removed)

    def restore(self, value: Value, added: Iterable[int], removed: Iterable[int]) -> None:
        """Put back what `contributions` gave."""
        member = self._member(value)
        member.added.update(dict.fromkeys(added))
        member.removed.update(dict.fromkeys(removed))

    def __contains__(self, value: Value) -> bool:
        member = self._members.get(canonical(value))
        return member is not None and bool(member.added) and not member.removed

    def _retain(self, operations: Collection[int]) -> None:
        for name, member in list(self._members.items()):
            member.added = {n: None for n in member.added if n in operations}
            member.removed = {n: None for n in member.removed if n in operations}
            if not member.added and not member.removed:
                del self._members[name]

    def view(self) -> Value:
        """The values, sorted by their canonical JSON."""
        return [
            plain(member.value)
            for _, member in sorted(self._members.items())
            if member.added and not member.removed
        ]


class SequenceObject(Object):
    """A list or a text. Removal of its key deletes its elements; their places stay."""

    def __init__(self, kind: Literal["list", "text"], orders: Orders) -> None:
        super().__init__(orders)
        self.kind = kind
        self.elements = ElementSequence("" if kind == "text" else (), orders.rank)

    def _retain(self, operations: Collection[int]) -> None:
        self.elements.retain(operations)

    def view(self) -> Value:
        """The text, or the list of values."""
        content = self.elements.content()
        return content if self.kind == "text" else plain(content)


VIEW_PRECEDENCE: Final[tuple[Kind, ...]] = (
    "map", "text", "list", "or-set", "2p-set", "g-set", "pn-counter", "g-counter", "mv", "lww",
)  # fmt: skip
"""Which object a JSON view shows when concurrent edits made several kinds under one key."""


class MapObject(Object):
    """Keys with an object of each kind that was ever used under them.

    Two authors who concurrently make an object of one kind under one key edit the same object.
    """

    kind: Kind = "map"

    def __init__(self, orders: Orders) -> None:
        super().__init__(orders)
        self.children: dict[str, dict[Kind, Object]] = {}

    @property
    def present(self) -> bool:
        """True while it or something in it is there."""
        return bool(self.touched) or any(
            found.present for kinds in self.children.values() for found in kinds.values()
        )

    def child(self, key: str, kind: Kind) -> Object:
        """The object of this kind under this key, made when it is missing."""
        kinds = self.children.setdefault(key, {})
        found = kinds.get(kind)
        if found is None:
            found = kinds[kind] = make_object(kind, self._orders)
        return found

    def items(self) -> Iterator[tuple[str, Object]]:
        """(key, object) of what is there, keys sorted; the first kind by VIEW_PRECEDENCE."""
        for key in sorted(self.children):
            there = self.kinds(key)
            if there:
                yield key, there[0]

    def kinds(self, key: str) -> list[Object]:
        """The objects that are there under a key, by VIEW_PRECEDENCE."""
        kinds = self.children.get(key, {})
        ordered = (kinds[kind] for kind in VIEW_PRECEDENCE if kind in kinds)
        return [found for found in ordered if found.present]

    def remove(self, key: str, operations: Collection[int]) -> None:
        """Remove a key, but for what these concurrent operations put there."""
        for found in self.children.get(key, {}).values():
            found.retain(operations)

    def _retain(self, operations: Collection[int]) -> None:
        for key in self.children:
            self.remove(key, operations)

    def view(self) -> Value:
        """A dict of the views of what is there."""
        return {key: found.view() for key, found in self.items()}


def make_object(kind: Kind, orders: Orders) -> Object:
    """A new, untouched object."""
    match kind:
        case "lww" | "mv":
            return Register(kind, orders)
        case "g-counter" | "pn-counter":
            return Counter(kind, orders)
        case "g-set" | "2p-set" | "or-set":
            return SetObject(kind, orders)
        case "map":
            return MapObject(orders)
        case "list" | "text":
            return SequenceObject(kind, orders)
    assert_never(kind)


def find(root: MapObject, path: tuple[str, ...], kind: Kind) -> Object | None:
    """The object at a path of maps, or None when nobody ever touched it."""
    place = root
    for key in path[:-1]:
        inner = place.children.get(key, {}).get("map")
        if inner is None:
            return None
        place = cast("MapObject", inner)
    return place.children.get(path[-1], {}).get(kind)
