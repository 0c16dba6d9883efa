"""An ordered list of spans that finds a visible position in logarithmic time.

A span is a run of elements with consecutive numbers that stand side by side: all visible or all
deleted. Spans hang in leaves, leaves in a tree of small fan-out, and every node knows how many
visible elements are below it (an order-statistic B+ tree). Spans are never taken out: a deleted
element stays as a place that others may refer to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

LEAF_SPANS_MAX: Final = 48
FANOUT_MAX: Final = 32
SPAN_ELEMENTS_MAX: Final = 1024

Content = Any
"""A str (text) or a tuple of values (list): both are sliced and joined alike."""


class Span:
    """Elements `start` to `start + length - 1`; `content` is None once they are deleted."""

    __slots__ = ("content", "leaf", "length", "start")

    def __init__(self, start: int, length: int, content: Content | None) -> None:
        self.start = start
        self.length = length
        self.content = content
        self.leaf: Leaf

    @property
    def end(self) -> int:
        """The number after the last element."""
        return self.start + self.length


class Leaf:
    """Spans in order, and the leaves before and after."""

    __slots__ = ("after", "before", "parent", "spans", "visible")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.visible = 0
        self.parent: Branch | None = None
        self.before: Leaf | None = None
        self.after: Leaf | None = None


class Branch:
    """Leaves or branches in order."""

    __slots__ = ("children", "parent", "visible")

    def __init__(self, children: list[Any]) -> None:
        self.children = children
        self.visible = sum(child.visible for child in children)
        self.parent: Branch | None = None
        for child in children:
            child.parent = self


class Spans:
    """The list of spans."""

    def __init__(self) -> None:
        self.first = Leaf()
        self._root: Leaf | Branch = self.first

    def __len__(self) -> int:
        """How many elements are visible."""
        return self._root.visible

    def __iter__(self) -> Iterator[Span]:
        leaf: Leaf | None = self.first
        while leaf is not None:
            yield from leaf.spans
            leaf = leaf.after

    def find(self, position: int) -> tuple[Span, int]:
        """The span that holds the visible element at `position`, and the offset in it."""
        assert 0 <= position < self._root.visible, f"no visible element at {position}"
        node: Any = self._root
        while isinstance(node, Branch):
            for child in node.children:
                if position < child.visible:
                    node = child
                    break
                position -= child.visible
        for span in node.spans:
            if span.content is not None:
                if position < span.length:
                    return span, position
                position -= span.length
        raise AssertionError("a leaf holds fewer visible elements than it says")

    def position(self, span: Span) -> int:
        """How many visible elements stand before this span."""
        count = 0
        for other in span.leaf.spans:
            if other is span:
                break
            if other.content is not None:
                count += other.length
        node: Any = span.leaf
        while (parent := node.parent) is not None:
            for child in parent.children:
                if child is node:
                    break
                count += child.visible
            node = parent
        return count

    def following(self, span: Span) -> Span | None:
        """The span right after this one."""
        leaf: Leaf | None = span.leaf
        assert leaf is not None, "a span in use hangs in a leaf"
        index = leaf.spans.index(span) + 1
        if index < len(leaf.spans):
            return leaf.spans[index]
        leaf = leaf.after
        return None if leaf is None else leaf.spans[0]

    def preceding(self, span: Span) -> Span | None:
        """The span right before this one."""
        leaf = span.leaf
        index = leaf.spans.index(span)
        if index:
            return leaf.spans[index - 1]
        return None if leaf.before is None else leaf.before.spans[-1]

    def first_span(self) -> Span | None:
        """The span at the very start."""
        return self.first.spans[0] if self.first.spans else None

    def insert_after(self, left: Span | None, span: Span) -> None:
        """Put a span behind `left`, or at the very start."""
        leaf = self.first if left is None else left.leaf
        leaf.spans.insert(0 if left is None else leaf.spans.index(left) + 1, span)
        span.leaf = leaf
        if span.content is not None:
            self.grow(leaf, span.length)
        if len(leaf.spans) > LEAF_SPANS_MAX:
            self._split_leaf(leaf)

    def cut(self, span: Span, offset: int) -> Span:
        """Cut a span in two; return the right part, which starts at `offset`."""
        assert 0 < offset < span.length, f"offset {offset} does not cut {span.length} elements"
        content = span.content
        right = Span(span.start + offset, span.length - offset, None)
        span.length = offset
        if content is not None:
            right.content = content[offset:]
            span.content = content[:offset]
        leaf = span.leaf
        leaf.spans.insert(leaf.spans.index(span) + 1, right)
        right.leaf = leaf
        if len(leaf.spans) > LEAF_SPANS_MAX:
            self._split_leaf(leaf)
        return right

    def hide(self, span: Span) -> None:
        """Delete the elements of a span."""
        span.content = None
        self.grow(span.leaf, -span.length)

    @staticmethod
    def grow(leaf: Leaf, count: int) -> None:
        """Note that so many more elements of this leaf are visible."""
        node: Any = leaf
        while node is not None:
            node.visible += count
            node = node.parent

    def _split_leaf(self, leaf: Leaf) -> None:
        new = Leaf()
        half = len(leaf.spans) // 2
        new.spans = leaf.spans[half:]
        del leaf.spans[half:]
        for span in new.spans:
            span.leaf = new
            if span.content is not None:
                new.visible += span.length
        leaf.visible -= new.visible
        new.before, new.after = leaf, leaf.after
        if leaf.after is not None:
            leaf.after.before = new
        leaf.after = new
        self._adopt(leaf, new)

    def _adopt(self, node: Leaf | Branch, new: Leaf | Branch) -> None:
        """Hang `new` behind `node` in its parent, splitting upwards where a branch is full."""
        parent = node.parent
        if parent is None:
            self._root = Branch([node, new])
            return
        parent.children.insert(parent.children.index(node) + 1, new)
        new.parent = parent
        if len(parent.children) > FANOUT_MAX:
            half = len(parent.children) // 2
            moved = Branch(parent.children[half:])
            del parent.children[half:]
            parent.visible -= moved.visible
            self._adopt(parent, moved)
