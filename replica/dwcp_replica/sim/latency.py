"""How long an answer takes, counted in message delays, over links of wide-area length.

The engine, store and client are the real ones; computing and disks take no time, so that what is
left is the protocol: request, pre-prepare, prepare, commit, reply; or query and answer. `floor_ms`
computes the same from nothing but the delays (the fastest quorum at each step), and shares no code
with the engine.
Castro and Liskov 1999, section 4.2, figure 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from dwcp.outcomes import Answered
from dwcp.wire.operations import RangeRequest
from dwcp_replica.sim.client import Call
from dwcp_replica.sim.host import Machine
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import derive
from dwcp_replica.sim.world import Link

SIZES: Final = (4, 7, 10, 13)
REGIONS: Final = ("Frankfurt", "Virginia", "Oregon", "Singapore", "Sydney")
ONE_WAY_MS: Final[Mapping[frozenset[str], int]] = {
    frozenset({"Frankfurt"}): 1,
    frozenset({"Virginia"}): 1,
    frozenset({"Oregon"}): 1,
    frozenset({"Singapore"}): 1,
    frozenset({"Sydney"}): 1,
    frozenset({"Frankfurt", "Virginia"}): 45,
    frozenset({"Frankfurt", "Oregon"}): 75,
    frozenset({"Frankfurt", "Singapore"}): 80,
    frozenset({"Frankfurt", "Sydney"}): 140,
    frozenset({"Virginia", "Oregon"}): 35,
    frozenset({"Virginia", "Singapore"}): 110,
    frozenset({"Virginia", "Sydney"}): 100,
    frozenset({"Oregon", "Singapore"}): 85,
    frozenset({"Oregon", "Sydney"}): 70,
    frozenset({"Singapore", "Sydney"}): 47,
}
"""Delays of one direction between regions and within one: symmetrical, chosen by us, of the size
that such distances have."""
ORDERED: Final = "ordered"
ORDERED_BESIDE_FAST: Final = "ordered, with fastReads"
FAST_READ: Final = "fast read"
DELAYS: Final[Mapping[str, int]] = {ORDERED: 5, ORDERED_BESIDE_FAST: 5, FAST_READ: 2}
"""One-way delays from the question to the answer, at least."""
OPERATIONS: Final = 12
EQUAL_MS: Final = 40
EQUAL: Final = f"any, all links {EQUAL_MS} ms"

OneWay = Callable[[str, str], int]
"""The one-way delay between two regions, in ms."""


def wide_area(one: str, other: str) -> int:
    """The delays of the table above."""
    return ONE_WAY_MS[frozenset({one, other})]


def uniform(delay_ms: int) -> OneWay:
    """Every link is as long as every other."""
    return lambda _one, _other: delay_ms


@dataclass(frozen=True, slots=True)
class Row:
    """One client's operations of one kind: the median from asking to the believed answer."""

    n: int
    client: str
    kind: str
    measured_ms: int
    floor_ms: int

    @property
    def delays(self) -> float:
        """The time in message delays; more than the kind's when a message waited for another."""
        return DELAYS[self.kind] * self.measured_ms / self.floor_ms


def region_of(member: int) -> str:
    """Members are spread over the regions in turn; member 0 leads."""
    return REGIONS[member % len(REGIONS)]


# --- measured ------------------------------------------------------------------------------------


def measured_ms(n: int, client: str, one_way_ms: OneWay) -> dict[str, int]:
    """The median of each kind of operation, asked one after the other.

    Raises AssertionError when not all of them are answered in the first view.
    """
    plain = [call for call in _calls(n, client, one_way_ms, fast_reads=False) if _linear(call)]
    beside = [call for call in _calls(n, client, one_way_ms, fast_reads=True) if _linear(call)]
    return {
        ORDERED: _median_ms(plain),
        ORDERED_BESIDE_FAST: _median_ms([call for call in beside if _ordered(call)]),
        FAST_READ: _median_ms([call for call in beside if not _ordered(call)]),
    }


def _calls(n: int, client: str, one_way_ms: OneWay, *, fast_reads: bool) -> list[Call]:
    scenario = replace(
        derive(1, n, OPERATIONS, "pbft"),
        interval=100,
        think_ms=5000,
        weather=Link(),
        uneven=False,
        machines=(Machine(sync_ms=0),) * n,
        liars={},
        faults=(),
        clients=1,
        timeout_ms=60_000,
        fast_reads=fast_reads,
    )
    life = Simulation(scenario)
    regions = {host.name: region_of(host.me) for host in life.hosts} | {"client": client}
    for source, there in regions.items():
        for target, here in regions.items():
            delay_ms = one_way_ms(there, here)
            life.world.links[source, target] = Link(delay_ms, delay_ms)
    (asking,) = life.clients
    asking.release()
    with hashes_remembered():
        finished = life.world.run(600_000, lambda: asking.done)
    assert finished, f"n={n}: {asking.waiting} operations have no answer"
    assert life.checker.views == 1, f"n={n}: the view changed"
    return asking.calls[1:]  # the first one waits for the session to open


def _linear(call: Call) -> bool:
    return not (isinstance(call.operation, RangeRequest) and call.operation.serializable)


def _ordered(call: Call) -> bool:
    assert isinstance(call.outcome, Answered), "every operation was answered"
    return call.outcome.ordered


def _median_ms(calls: Sequence[Call]) -> int:
    return int(median((call.returned_ms or 0) - call.invoked_ms for call in calls))


# --- computed ------------------------------------------------------------------------------------


def floor_ms(n: int, client: str, one_way_ms: OneWay) -> dict[str, int]:
    """What the messages of each kind take, each step as soon as its fastest quorum allows."""
    f = (n - 1) // 3
    members = range(n)
    there = [one_way_ms(client, region_of(i)) for i in members]
    back = [one_way_ms(region_of(i), client) for i in members]

    def between(a: int, b: int) -> int:
        return 0 if a == b else one_way_ms(region_of(a), region_of(b))

    proposed = [there[0] + between(0, i) for i in members]
    prepared = [
        max(proposed[i], sorted(proposed[j] + between(j, i) for j in members if j)[2 * f - 1])
        for i in members
    ]
    committed = [sorted(prepared[j] + between(j, i) for j in members)[2 * f] for i in members]
    answered = sorted(max(prepared[i], committed[i]) + back[i] for i in members)
    read = sorted(there[i] + back[i] for i in members)
    return {ORDERED: answered[f], ORDERED_BESIDE_FAST: answered[2 * f], FAST_READ: read[2 * f]}


def rows() -> list[Row]:
    """Every size: links of one length, then a client in each region."""
    equal = uniform(EQUAL_MS)
    settings = [(EQUAL, REGIONS[0], equal)] + [(client, client, wide_area) for client in REGIONS]
    found: list[Row] = []
    for n in SIZES:
        for label, client, one_way_ms in settings:
            measured, floor = measured_ms(n, client, one_way_ms), floor_ms(n, client, one_way_ms)
            found += [Row(n, label, kind, measured[kind], floor[kind]) for kind in DELAYS]
    return found
