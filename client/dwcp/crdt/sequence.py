"""Lists and text: Fugue over local element numbers.

Theory. Elements form a tree: each is a left or a right child of another; reading the tree in order
gives the sequence (Weidner and Kleppmann 2023, "The Art of the Fugue", section 3). Inserting after
element L makes a right child of L if L has none, else a left child of the element N that follows L,
deleted ones included. Siblings on one side are ordered by (author, counter, hash, offset) of the
operations that made them. So the order of any two elements follows from the set of operations, and
concurrent runs of typing never interleave.

A replica numbers the elements of a sequence in the order in which it learns of them. Runs dominate:
element e+1 is usually the right child of e. Only elements for which this is not so are recorded
(`_parents`), hence a run typed in one go costs one span, by whatever number of operations it came.
A deleted element stays as a number without content.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from msgspec import Struct

from dwcp.crdt.spans import SPAN_ELEMENTS_MAX, Content, Span, Spans
from dwcp.wire.signing import Count

Ranker = Callable[[int], Any]
"""From an operation's local number to what orders its elements among siblings, on every replica."""
ROOT_ELEMENT = 0


class SequenceImage(Struct, frozen=True, array_like=True):
    """A sequence as data: spans (start, length, content), who inserted what, recorded parents."""

    spans: tuple[tuple[Count, Count, Any], ...]
    first: tuple[Count, ...]
    owner: tuple[Count, ...]
    parents: tuple[tuple[Count, Count, bool], ...]


class ElementSequence:
    """One list or text. `empty` is "" or (): what content is made of.

    Elements are numbered from 1; 0 is the root, the place before all.
    """

    def __init__(self, empty: Content, ranker: Ranker) -> None:
        self._empty = empty
        self._ranker = ranker
        self._spans = Spans()
        self._span_of: list[Span | None] = [None]
        self._first = array("q")  # per inserting operation: its first element,
        self._owner = array("q")  # and its number; both ascend
        self._parents: dict[int, tuple[int, bool]] = {}
        self._rights: dict[int, list[int]] = {}
        self._lefts: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """How many elements are visible."""
        return len(self._spans)

    @property
    def elements(self) -> int:
        """How many elements there ever were."""
        return len(self._span_of) - 1

    def content(self) -> Content:
        """All visible content, in order."""
        parts = [span.content for span in self._spans if span.content is not None]
        if isinstance(self._empty, str):
            return "".join(parts)
        return tuple(item for part in parts for item in part)

    # names: (operation, offset) <-> element

    def count_of(self, operation: int) -> int:
        """How many elements this operation inserted here."""
        index = bisect_left(self._owner, operation)
        if index == len(self._owner) or self._owner[index] != operation:
            return 0
        end = self._first[index + 1] if index + 1 < len(self._first) else len(self._span_of)
        return int(end - self._first[index])

    def element(self, operation: int, offset: int) -> int:
        """The number of the offset-th element that this operation inserted here."""
        index = bisect_left(self._owner, operation)
        assert self._owner[index] == operation, f"operation {operation} inserted nothing here"
        return int(self._first[index]) + offset

    def name(self, element: int) -> tuple[int, int]:
        """(operation, offset) of an element."""
        index = bisect_right(self._first, element) - 1
        return int(self._owner[index]), element - int(self._first[index])

    # what an editor asks

    def element_at(self, position: int) -> int:
        """The visible element at this position."""
        span, offset = self._spans.find(position)
        return span.start + offset

    def place(self, position: int) -> tuple[int, bool]:
        """The parent and side that put a new element before the visible one at `position`."""
        left = ROOT_ELEMENT if position == 0 else self.element_at(position - 1)
        if not self._has_right(left):
            return left, True
        return self._next(left), False

    def runs(self, position: int, count: int) -> Iterator[tuple[int, int]]:
        """The visible elements from `position` on, as (first element, how many) runs."""
        span: Span | None
        span, offset = self._spans.find(position)
        while count > 0:
            assert span is not None, "fewer elements than counted"
            if span.content is not None:
                taken = min(count, span.length - offset)
                yield span.start + offset, taken
                count -= taken
            offset = 0
            span = self._spans.following(span)

    def position_of(self, element: int) -> int:
        """How many visible elements stand before this one."""
        span = self._span(element)
        inside = element - span.start if span.content is not None else 0
        return self._spans.position(span) + inside

    # applying edits

    def insert(self, operation: int, parent: int, content: Content, *, right: bool) -> int:
        """Insert a run as a child of `parent`; return its first element's number."""
        first = len(self._span_of)
        if not self._owner or self._owner[-1] != operation:
            self._owner.append(operation)
            self._first.append(first)
        if right and parent == first - 1:
            self._extend(parent, content)
            return first
        if right and parent != ROOT_ELEMENT:
            self._end_span_at(parent)
        before, after = self._gap(operation, first, parent, right=right)
        self._parents[first] = (parent, right)
        children = self._rights if right else self._lefts
        children.setdefault(parent, []).append(first)
        self._lay(first, content, before, after)
        return first

    def delete(self, element: int, count: int) -> None:
        """Delete `count` elements by number; those already deleted stay so."""
        end = element + count
        while element < end:
            span = self._span(element)
            if span.content is None:
                element = span.end
                continue
            if element > span.start:
                span = self._cut(span, element - span.start)
            if end < span.end:
                self._cut(span, end - span.start)
            element = span.end
            self._spans.hide(span)
            self._join_deleted(span)

    def retain(self, operations: Collection[int]) -> None:
        """Delete every element that none of these operations inserted."""
        for index, operation in enumerate(self._owner):
            if operation not in operations:
                first = int(self._first[index])
                self.delete(first, self.count_of(operation))

    # as an image

    def image(self) -> SequenceImage:
        """All that there is to know, in reading order."""
        spans = tuple((span.start, span.length, span.content) for span in self._spans)
        parents = tuple((child, *place) for child, place in self._parents.items())
        return SequenceImage(spans, tuple(self._first), tuple(self._owner), parents)

    def load(self, image: SequenceImage) -> None:
        """Become what an image shows; only a new sequence can."""
        assert not self.elements, "only a new sequence loads an image"
        self._first.extend(image.first)
        self._owner.extend(image.owner)
        count = sum(length for _, length, _ in image.spans)
        self._span_of += [None] * count
        last: Span | None = None
        for start, length, content in image.spans:
            span = Span(start, length, tuple(content) if isinstance(content, list) else content)
            self._spans.insert_after(last, span)
            self._span_of[start : start + length] = [span] * length
            last = span
        for child, parent, right in image.parents:
            self._parents[child] = (parent, right)
            (self._rights if right else self._lefts).setdefault(parent, []).append(child)

    # the tree

    def _span(self, element: int) -> Span:
        span = self._span_of[element]
        assert span is not None, "the root is in no span"
        return span

    def _has_right(self, element: int) -> bool:
        return element in self._rights or self._runs_on(element)

    def _runs_on(self, element: int) -> bool:
        """True when element + 1 is the right child of element, as it is inside a run."""
        follower = element + 1
        return follower < len(self._span_of) and follower not in self._parents

    def _next(self, element: int) -> int:
        """The element right after this one, deleted ones included; it has to exist."""
        if element != ROOT_ELEMENT:
            span = self._span(element)
            if element + 1 < span.end:
                return element + 1
            following = self._spans.following(span)
        else:
            following = self._spans.first_span()
        assert following is not None, f"nothing follows element {element}"
        return following.start

    def _rank(self, element: int) -> tuple[Any, int]:
        operation, offset = self.name(element)
        return self._ranker(operation), offset

    def _right_children(self, element: int) -> list[int]:
        explicit = self._rights.get(element, [])
        return [*explicit, element + 1] if self._runs_on(element) else explicit

    def _gap(
        self, operation: int, first: int, parent: int, *, right: bool
    ) -> tuple[int | None, int | None]:
        """Where a new child goes: behind one element, or in front of another (the other None)."""
        siblings = self._right_children(parent) if right else self._lefts.get(parent, [])
        if not siblings:
            return (parent, None) if right else (None, parent)
        rank = (self._ranker(operation), first - int(self._first[-1]))
        lower = [sibling for sibling in siblings if self._rank(sibling) < rank]
        if right:
            if not lower:
                return parent, None
            return self._last_below(max(lower, key=self._rank)), None
        higher = [sibling for sibling in siblings if sibling not in lower]
        if not higher:
            return None, parent
        return None, self._first_below(min(higher, key=self._rank))

    def _last_below(self, element: int) -> int:
        """The last element of the subtree, in reading order."""
        while True:
            children = self._right_children(element)
            if not children:
                return element
            child = max(children, key=self._rank) if len(children) > 1 else children[0]
            # Inside a span each element's only right child is the next (`_end_span_at`).
            element = self._span(child).end - 1

    def _first_below(self, element: int) -> int:
        """The first element of the subtree, in reading order."""
        while children := self._lefts.get(element):
            element = min(children, key=self._rank) if len(children) > 1 else children[0]
        return element

    # the spans

    def _cut(self, span: Span, offset: int) -> Span:
        right = self._spans.cut(span, offset)
        self._span_of[right.start : right.end] = [right] * right.length
        return right

    def _end_span_at(self, element: int) -> None:
        """Make a recorded parent the last of its span, so that `_last_below` may jump."""
        span = self._span(element)
        if element + 1 < span.end:
            self._cut(span, element + 1 - span.start)

    def _join_deleted(self, span: Span) -> None:
        """Join a deleted span with deleted neighbours that continue its numbers."""
        leaf = span.leaf
        index = leaf.spans.index(span)
        if index + 1 < len(leaf.spans):
            span = self._join(span, leaf.spans[index + 1])
        if index:
            self._join(leaf.spans[index - 1], span)

    def _join(self, left: Span, right: Span) -> Span:
        """One span for two where that is right; returns the one that holds the right part."""
        deleted = left.content is None and right.content is None
        chained = left.end == right.start and right.start not in self._parents
        if not deleted or not chained or right.start - 1 in self._rights:
            return left  # `_last_below` jumps over spans: in one, each follows the one before
        small, large = (left, right) if left.length < right.length else (right, left)
        self._span_of[small.start : small.end] = [large] * small.length
        large.start = left.start
        large.length = left.length + right.length
        small.leaf.spans.remove(small)
        return large

    def _extend(self, last: int, content: Content) -> None:
        """Continue the run that ends with the newest element of all."""
        span = self._span_of[last]
        room = 0
        if span is not None and span.content is not None:
            room = max(0, SPAN_ELEMENTS_MAX - span.length)
        if span is not None and room:
            taken = content[:room]
            span.content = span.content + taken
            span.length += len(taken)
            self._spans.grow(span.leaf, len(taken))
            self._span_of.extend([span] * len(taken))
            content = content[room:]
        if content:
            first = len(self._span_of)
            self._lay(first, content, first - 1, None)

    def _lay(self, first: int, content: Content, before: int | None, after: int | None) -> None:
        """Put new elements behind `before` (0: at the very start) or in front of `after`."""
        pieces = _pieces(content)
        left = self._left_of(before, after)
        start = first
        for piece in pieces:
            span = Span(start, len(piece), piece)
            self._spans.insert_after(left, span)
            self._span_of.extend([span] * len(piece))
            start += len(piece)
            left = span

    def _left_of(self, before: int | None, after: int | None) -> Span | None:
        """The span behind which new elements go; cuts one where they go inside it."""
        if before is not None:
            if before == ROOT_ELEMENT:
                return None
            span = self._span(before)
            if before + 1 < span.end:
                self._cut(span, before + 1 - span.start)
            return span
        assert after is not None, "a gap has a side"
        span = self._span(after)
        if after > span.start:
            self._cut(span, after - span.start)
            return span
        return self._spans.preceding(span)


def _pieces(content: Content) -> Sequence[Content]:
    step = SPAN_ELEMENTS_MAX
    return [content[at : at + step] for at in range(0, len(content), step)]
