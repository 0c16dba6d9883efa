"""Our spans against the tree of the paper, written out without any cleverness."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random

import pytest

from dwcp.crdt.sequence import ElementSequence

SESSIONS = int(os.environ.get("DWCP_CRDT_EXAMPLES", "60"))


@dataclass
class Node:
    """One element of Fugue's tree (Weidner and Kleppmann 2023, algorithm 1)."""

    name: tuple[int, int]
    value: str
    deleted: bool = False
    lefts: list[Node] = field(default_factory=list)
    rights: list[Node] = field(default_factory=list)

    def walk(self) -> list[Node]:
        """In reading order, without recursion: these trees are as deep as the text is long."""
        found: list[Node] = []
        stack: list[tuple[Node, bool]] = [(self, False)]
        while stack:
            node, open_ = stack.pop()
            if open_:
                found.append(node)
                continue
            rights = sorted(node.rights, key=lambda n: n.name, reverse=True)
            lefts = sorted(node.lefts, key=lambda n: n.name, reverse=True)
            stack += [(n, False) for n in rights]
            stack.append((node, True))
            stack += [(n, False) for n in lefts]
        return found


class Tree:
    def __init__(self) -> None:
        self.root = Node((-1, 0), "", deleted=True)
        self.nodes = {self.root.name: self.root}

    def insert(
        self, operation: int, offset: int, parent: tuple[int, int], content: str, *, right: bool
    ) -> None:
        for value in content:
            node = Node((operation, offset), value)
            self.nodes[node.name] = node
            siblings = self.nodes[parent].rights if right else self.nodes[parent].lefts
            siblings.append(node)
            parent, right, offset = node.name, True, offset + 1

    def text(self) -> str:
        return "".join(node.value for node in self.root.walk() if not node.deleted)


def name_of(sequence: ElementSequence, element: int) -> tuple[int, int]:
    return sequence.name(element) if element else (-1, 0)


class Session:
    """Random edits, well-placed ones and ones that no editor would make, on both at once."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        # Operation k ranks as ranks[k]: siblings are ordered by something else than arrival.
        self.ranks = self.random.sample(range(10_000), 400)
        self.sequence = ElementSequence("", lambda operation: self.ranks[operation])
        self.tree = Tree()
        self.counts: dict[int, int] = {}

    def step(self, operation: int) -> None:
        for _ in range(self.random.randint(1, 3)):
            choice = self.random.random()
            if choice < 0.4:
                at = self.random.randint(0, len(self.sequence))
                parent, right = self.sequence.place(at)
                self.insert(operation, parent, right=right)
            elif choice < 0.75:
                parent = self.random.randint(0, self.sequence.elements)
                self.insert(operation, parent, right=parent == 0 or self.random.random() < 0.5)
            elif self.sequence.elements:
                self.delete()

    def insert(self, operation: int, parent: int, *, right: bool) -> None:
        content = "".join(self.random.choices("abcdef", k=self.random.choice([1, 1, 3, 40])))
        offset = self.counts.get(operation, 0)
        self.tree.insert(self.ranks[operation], offset, self.twin(parent), content, right=right)
        self.sequence.insert(operation, parent, content, right=right)
        self.counts[operation] = offset + len(content)

    def twin(self, element: int) -> tuple[int, int]:
        operation, offset = name_of(self.sequence, element)
        return (self.ranks[operation], offset) if element else (-1, 0)

    def delete(self) -> None:
        first = self.random.randint(1, self.sequence.elements)
        count = min(self.random.choice([1, 2, 30]), self.sequence.elements - first + 1)
        self.sequence.delete(first, count)
        for element in range(first, first + count):
            self.tree.nodes[self.twin(element)].deleted = True

    def compare(self) -> None:
        text = self.tree.text()
        assert self.sequence.content() == text
        assert len(self.sequence) == len(text)
        for position in self.random.sample(range(len(text)), min(len(text), 5)):
            element = self.sequence.element_at(position)
            assert self.tree.nodes[self.twin(element)].value == text[position]
            assert self.sequence.position_of(element) == position


@pytest.mark.parametrize("seed", range(SESSIONS))
def test_spans_read_like_the_tree(seed: int) -> None:
    """Replay one: pytest 'tests/client/crdt/test_sequence.py' -k 'tree and [SEED]'."""
    session = Session(seed)
    for operation in range(session.random.choice([20, 60, 120])):
        session.step(operation)
        if operation % 10 == 0:
            session.compare()
    session.compare()


def test_typing_costs_one_span() -> None:
    sequence = ElementSequence("", lambda operation: operation)
    for operation in range(500):
        parent, right = sequence.place(operation)
        sequence.insert(operation, parent, "x", right=right)
    assert sum(1 for _ in sequence._spans) == 1


def test_deleting_backwards_costs_one_span() -> None:
    sequence = ElementSequence("", lambda operation: operation)
    sequence.insert(0, 0, "x" * 500, right=True)
    for position in reversed(range(100, 500)):
        sequence.delete(sequence.element_at(position), 1)
    assert len(sequence) == 100
    assert sum(1 for _ in sequence._spans) == 2


def test_deleted_siblings_are_not_taken_for_a_run() -> None:
    """Elements 1 and 2 stand side by side with consecutive numbers, but 2 is no child of 1."""
    ranks = [0, 2, 1, 3]
    sequence = ElementSequence("", lambda operation: ranks[operation])
    sequence.insert(0, 0, "a", right=True)
    sequence.insert(1, 0, "b", right=True)
    sequence.delete(1, 2)
    sequence.insert(2, 0, "x", right=True)
    sequence.insert(3, 2, "y", right=True)
    assert sequence.content() == "xy"


def test_concurrent_runs_do_not_interleave() -> None:
    """Two authors type a word each at one place, letter by letter, one of them backwards."""
    sequence = ElementSequence("", lambda operation: operation)
    forwards, backwards = 0, 0
    for letter in range(5):
        forwards = sequence.insert(2 * letter, forwards, "HELLO"[letter], right=True)
        if letter == 0:
            backwards = sequence.insert(1, 0, "D", right=True)
        else:
            backwards = sequence.insert(2 * letter + 1, backwards, "WORLD"[4 - letter], right=False)
    assert sequence.content() in {"HELLOWORLD", "WORLDHELLO"}
