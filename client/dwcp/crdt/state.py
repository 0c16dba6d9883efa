"""A document's state: edits judged by what their operation names, then applied.

`check` looks only at the edits and at the operations that they name, all of which are in the causal
past. So every replica gives the same verdict, whatever else it holds. `apply` follows `check` and
can not fail.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from dwcp.crdt.objects import (
    Counter,
    MapObject,
    Object,
    Orders,
    Register,
    SequenceObject,
    SetObject,
    find,
)
from dwcp.crdt.sequence import ROOT_ELEMENT
from dwcp.crdt.values import BadValue, Value, check_text, check_value
from dwcp.wire.documents import (
    ROOT,
    Add,
    Assign,
    Delete,
    Discard,
    Edit,
    Element,
    Increment,
    Insert,
    Kind,
    Make,
    Remove,
)

Concurrent = Callable[[], Collection[int]]
"""The operations here that are not in the causal past of the one being applied."""


class BadEdit(ValueError):  # noqa: N818 - named as the protocol names it
    """An edit that no honest author makes; the message says which."""


class State:
    """The root map, and what edits do to it."""

    def __init__(self, orders: Orders) -> None:
        self.root = MapObject(orders)

    def view(self) -> Value:
        """The document as JSON."""
        return self.root.view()

    def find(self, path: tuple[str, ...], kind: Kind) -> Object | None:
        """The object at a path, or None when nobody ever touched it."""
        return find(self.root, path, kind)

    def object_at(self, path: tuple[str, ...], kind: Kind) -> Object:
        """The object at a path, made when it is missing."""
        return self._map_at(path[:-1]).child(path[-1], kind)

    def _map_at(self, path: tuple[str, ...]) -> MapObject:
        place = self.root
        for key in path:
            place = cast("MapObject", place.child(key, "map"))
        return place

    # judging

    def check(self, edits: Sequence[Edit], names: Sequence[int]) -> None:
        """Raise BadEdit or BadValue unless every edit holds; `names[k]` is what k refers to."""
        inserted: Tally[tuple[tuple[str, ...], str]] = Tally()
        for edit in edits:
            match edit:
                case Assign() | Discard():
                    check_value(edit.value)
                    _check_references(edit.over, names)
                case Add():
                    check_value(edit.value)
                case Increment():
                    if edit.kind == "g-counter" and edit.amount < 1:
                        raise BadEdit("a g-counter only grows: use a pn-counter")
                case Insert():
                    self._check_insert(edit, names, inserted[edit.path, edit.kind])
                    inserted[edit.path, edit.kind] += len(edit.content)
                case Delete():
                    self._check_delete(edit, names, inserted[edit.path, edit.kind])
                case _:
                    pass

    def _check_insert(self, edit: Insert, names: Sequence[int], own: int) -> None:
        if isinstance(edit.content, str) != (edit.kind == "text") or not edit.content:
            raise BadEdit("an insertion into a text is a string, into a list values; never empty")
        if isinstance(edit.content, str):
            check_text(edit.content)
        else:
            for value in edit.content:
                check_value(value)
        reference, offset = edit.parent
        if reference == ROOT:
            if offset or not edit.right:
                raise BadEdit("the root of a sequence has right children only, and no offset")
            return
        self._check_elements(edit, names, own, reference, offset + 1)

    def _check_delete(self, edit: Delete, names: Sequence[int], own: int) -> None:
        if not edit.ranges:
            raise BadEdit("a deletion names at least one range")
        for reference, offset, count in edit.ranges:
            if reference == ROOT or count < 1:
                raise BadEdit("a deletion names elements of operations, at least one")
            self._check_elements(edit, names, own, reference, offset + count)

    def _check_elements(
        self, edit: Insert | Delete, names: Sequence[int], own: int, reference: int, needed: int
    ) -> None:
        """An operation inserted at least `needed` elements into the sequence of this edit."""
        _check_references((reference,), names)
        if reference == 0:
            count = own
        else:
            found = self.find(edit.path, edit.kind)
            count = 0
            if isinstance(found, SequenceObject):
                count = found.elements.count_of(names[reference])
        if count < needed:
            raise BadEdit(f"an edit names element {needed - 1} of an insertion of {count}")

    # applying

    def apply(self, edits: Sequence[Edit], names: Sequence[int], concurrent: Concurrent) -> None:
        """Apply checked edits in order; `names[0]` is the operation's own number."""
        for edit in edits:
            if isinstance(edit, Remove):
                self._map_at(edit.path[:-1]).remove(edit.path[-1], concurrent())
            else:
                _APPLY[type(edit)](self, edit, names)

    def _touched(self, edit: Any, operation: int) -> Object:
        """Only what adds touches: taking a part away never brings a removed key back."""
        found = self.object_at(edit.path, edit.kind)
        found.touch(operation)
        return found

    def _make(self, edit: Make, names: Sequence[int]) -> None:
        self._touched(edit, names[0])

    def _assign(self, edit: Assign, names: Sequence[int]) -> None:
        register = cast("Register", self._touched(edit, names[0]))
        register.assign(names[0], edit.value, [names[k] for k in edit.over])

    def _increment(self, edit: Increment, names: Sequence[int]) -> None:
        cast("Counter", self._touched(edit, names[0])).increment(names[0], edit.amount)

    def _add(self, edit: Add, names: Sequence[int]) -> None:
        cast("SetObject", self._touched(edit, names[0])).add(names[0], edit.value)

    def _discard(self, edit: Discard, names: Sequence[int]) -> None:
        members = cast("SetObject", self.object_at(edit.path, edit.kind))
        members.discard(names[0], edit.value, [names[k] for k in edit.over])

    def _insert(self, edit: Insert, names: Sequence[int]) -> None:
        elements = cast("SequenceObject", self._touched(edit, names[0])).elements
        parent = _element(elements, edit.parent, names)
        elements.insert(names[0], parent, edit.content, right=edit.right)

    def _delete(self, edit: Delete, names: Sequence[int]) -> None:
        elements = cast("SequenceObject", self.object_at(edit.path, edit.kind)).elements
        for reference, offset, count in edit.ranges:
            elements.delete(elements.element(names[reference], offset), count)


def _element(elements: Any, name: Element, names: Sequence[int]) -> int:
    reference, offset = name
    return ROOT_ELEMENT if reference == ROOT else elements.element(names[reference], offset)


def _check_references(references: Sequence[int], names: Sequence[int]) -> None:
    for reference in references:
        if not 0 <= reference < len(names):
            raise BadEdit(f"reference {reference} names nothing")


_APPLY: dict[type, Callable[..., None]] = {
    Make: State._make,
    Assign: State._assign,
    Increment: State._increment,
    Add: State._add,
    Discard: State._discard,
    Insert: State._insert,
    Delete: State._delete,
}

__all__ = ["BadEdit", "BadValue", "Concurrent", "State"]
