"""The hash graph of a document: who said what after what.

Theory. Operations are vertices, their predecessors' hashes the edges, so that the graph can hold no
cycle and one hash fixes a whole past (Kleppmann and Howard 2020, "Byzantine Eventual Consistency").
A replica numbers operations in the order in which it applied them, which is one of the topological
orders. These numbers are local: nothing that two replicas must agree on depends on them, only on
`order` and `rank`, which every replica derives alike.

Numbers below `floor` were collected: everything above follows all of them (see `frontier`), so that
no walk ever needs to go below it.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from dwcp.wire.signing import Count, Hash, PublicKey, digest

Order = tuple[int, bytes, bytes]
"""(lamport, author, hash): a total order that extends causality."""
Rank = tuple[bytes, int, bytes]
"""(author, counter, hash): the order of siblings in a sequence."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where an operation stands in the graph: what its signature and its past fix."""

    author: bytes
    counter: int
    lamport: int
    epoch: int


class Table(Struct, frozen=True, array_like=True):
    """Operations by number, in columns; `author` counts in `authors`."""

    hashes: tuple[Hash, ...]
    authors: tuple[PublicKey, ...]
    author: tuple[Count, ...]
    counter: tuple[Count, ...]
    lamport: tuple[Count, ...]
    epoch: tuple[Count, ...]


class Graph:
    """Operations by local number, with the frontier of those that none follows."""

    def __init__(self) -> None:
        self.floor = 0
        self.frontier: tuple[int, ...] = ()
        self.hashes: list[bytes] = []
        self.numbers: dict[bytes, int] = {}
        self.parents: list[tuple[int, ...]] = []
        self.heads: dict[int, None] = {}
        self.equivocations: dict[tuple[bytes, int], list[bytes]] = {}
        self._authors: list[bytes] = []
        self._author_numbers: dict[bytes, int] = {}
        self._author = array("q")
        self._counter = array("q")
        self._lamport = array("q")
        self._epoch = array("q")
        self._chains: list[array[int]] = []  # by author: the first operation of each counter

    def __len__(self) -> int:
        return len(self.hashes)

    def __contains__(self, name: bytes) -> bool:
        return name in self.numbers

    def links(self, number: int) -> Links:
        """What is known of an operation besides its edits."""
        author = self._authors[self._author[number]]
        return Links(author, self._counter[number], self._lamport[number], self._epoch[number])

    def order(self, number: int) -> Order:
        """Where this operation stands among all: last means last writer."""
        author = self._authors[self._author[number]]
        return self._lamport[number], author, self.hashes[number]

    def rank(self, number: int) -> Rank:
        """How this operation's elements are ordered among siblings."""
        author = self._authors[self._author[number]]
        return author, self._counter[number], self.hashes[number]

    def latest(self, author: bytes) -> int | None:
        """The number of this author's operation with the highest counter."""
        known = self._author_numbers.get(author)
        return None if known is None else self._chains[known][-1]

    def head_hashes(self) -> list[bytes]:
        """The frontier, sorted."""
        return sorted(self.hashes[number] for number in self.heads)

    def state(self) -> bytes:
        """Names the version: 32 bytes over the frontier."""
        return digest("document-heads", *self.head_hashes())

    def add(self, name: bytes, parents: Sequence[int], links: Links) -> int:
        """Append an operation whose parents are all here; return its number."""
        assert name not in self.numbers, "an operation is added once"
        number = len(self.hashes)
        self.hashes.append(name)
        self.numbers[name] = number
        self.parents.append(tuple(parents))
        for parent in parents:
            self.heads.pop(parent, None)
        self.heads[number] = None
        author = self._number_of(links.author)
        self._author.append(author)
        self._counter.append(links.counter)
        self._lamport.append(links.lamport)
        self._epoch.append(links.epoch)
        self._note_author(author, number, links.counter)
        return number

    def _number_of(self, author: bytes) -> int:
        known = self._author_numbers.setdefault(author, len(self._authors))
        if known == len(self._authors):
            self._authors.append(author)
            self._chains.append(array("q"))
        return known

    def _note_author(self, author: int, number: int, counter: int) -> None:
        """Note the author's next operation; a second one under a counter is an equivocation."""
        chain = self._chains[author]
        assert counter <= len(chain) + 1, "an author's counters have no gap"
        if counter == len(chain) + 1:
            chain.append(number)
            return
        first = self.hashes[chain[counter - 1]]
        key = (self._authors[author], counter)
        self.equivocations.setdefault(key, [first]).append(self.hashes[number])

    def beyond(self, base: Iterable[int], tips: Iterable[int] | None = None) -> list[int]:
        """Operations in the past of `tips` (default: all) and not in that of `base`, ascending.

        Walks down from both sides, highest number first, until only shared history is left: the
        cost follows the difference, not the length of the history.
        """
        side: dict[int, int] = dict.fromkeys(self.heads if tips is None else tips, 1)
        for number in base:
            side[number] = 2
        side = {number: flag for number, flag in side.items() if number >= self.floor}
        wanted = sum(1 for flag in side.values() if flag == 1)
        queue = [-number for number in side]
        heapq.heapify(queue)
        found: list[int] = []
        while wanted:
            number = -heapq.heappop(queue)
            flag = side.pop(number)
            if flag == 1:
                found.append(number)
                wanted -= 1
            for parent in self.parents[number]:
                if parent < self.floor:
                    continue
                before = side.get(parent, 0)
                if before == 0:
                    heapq.heappush(queue, -parent)
                after = before | flag
                wanted += (after == 1) - (before == 1)
                side[parent] = after
        found.reverse()
        return found

    def past(self, tips: Iterable[int]) -> set[int]:
        """Every operation that one of `tips` is or follows; what was collected has no parents."""
        seen = set(tips)
        stack = list(seen)
        while stack:
            for parent in self.parents[stack.pop()]:
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return seen

    def table(self) -> Table:
        """What is kept of every operation when it is collected."""
        return Table(
            tuple(self.hashes),
            tuple(self._authors),
            tuple(self._author),
            tuple(self._counter),
            tuple(self._lamport),
            tuple(self._epoch),
        )

    @classmethod
    def of(cls, table: Table, frontier: Iterable[int]) -> Graph:
        """A graph of collected operations, with these as its heads."""
        graph = cls()
        for number, name in enumerate(table.hashes):
            author = table.authors[table.author[number]]
            counter, lamport = table.counter[number], table.lamport[number]
            graph.add(name, (), Links(author, counter, lamport, table.epoch[number]))
        graph.floor = len(graph)
        graph.frontier = tuple(frontier)
        graph.heads = dict.fromkeys(graph.frontier)
        return graph

    def prefix_heads(self, count: int) -> list[bytes]:
        """The frontier as it was when only the first `count` operations were here, sorted."""
        inside = (*self.frontier, *range(self.floor, count))
        inner = {parent for number in inside for parent in self.parents[number]}
        return sorted(self.hashes[number] for number in inside if number not in inner)
