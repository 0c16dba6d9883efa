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


def candidate(graph: Graph, count: int) -> list[int]:
    """The newest frontier among the first `count` operations that would strand none of ours.

    That is all heads when nothing came since, else one operation that all before it lead to and
    all after it follow. Empty when there is none above the last frontier.
    """
    if count >= len(graph):
        return sorted(graph.heads) if len(graph) > graph.floor else []
    heads = set(graph.frontier)
    alone: set[int] = set()
    for number in range(graph.floor, count):
        heads.difference_update(graph.parents[number])
        heads.add(number)
        if len(heads) == 1:
            alone.add(number)
    lowest = len(graph)
    for number in range(len(graph) - 1, graph.floor - 1, -1):
        if number in alone and lowest >= number:
            return [number]
        lowest = min(lowest, max(graph.parents[number], default=-1))
    return []


def strands(graph: Graph, frontier: Collection[int]) -> bool:
    """True when this frontier would strand an operation that is here."""
    return bool(divide(graph, frontier).stranded)
