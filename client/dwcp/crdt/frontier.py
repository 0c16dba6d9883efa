"""Collection: which operations still count once a frontier is agreed.

A frontier is a set of operations, none in another's past, that quorum(n) members committed through
the log. From then on an operation counts if and only if it is in the frontier's past, or has all
of the frontier in its own and follows only operations that count. The rule looks at the graph
alone, so that every replica that knows the frontier keeps the same operations, whatever it held
before. What is left in between is *stranded*: its author replays it on top (`rebase`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dwcp.crdt.graph import Graph


@dataclass(frozen=True, slots=True)
class Division:
    """Numbers of a graph's operations, ascending: below the frontier, above it, stranded."""

    below: list[int]
    above: list[int]
    stranded: list[int]


def divide(graph: Graph, frontier: Collection[int]) -> Division:
    """Divide all operations above the graph's floor by a frontier."""
    below = graph.past(frontier)
    bit = {number: 1 << at for at, number in enumerate(sorted(frontier))}
    everything = (1 << len(bit)) - 1
    seen: dict[int, int] = dict(bit)
    lost: set[int] = set()
    division = Division([], [], [])
    for number in range(graph.floor, len(graph)):
        if number in below:
            division.below.append(number)
            continue
        mask = 0
        for parent in graph.parents[number]:
            mask |= seen.get(parent, 0)
        counts = mask == everything and lost.isdisjoint(graph.parents[number])
        if counts:
            seen[number] = mask
            division.above.append(number)
        else:
            lost.add(number)
            division.stranded.append(number)
    return division


def follows(graph: Graph, parents: Collection[int]) -> bool:
    """True when an operation with these parents has the whole collected frontier in its past.

    Every operation above the floor does; so one such parent is enough.
    """
    return any(parent >= graph.floor for parent in parents) or set(graph.frontier) <= set(parents)
