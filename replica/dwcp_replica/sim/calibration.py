"""How far predictions (core.modes.predict) are from what the real engine takes in the simulator.

Members and a client are dealt to sites at random, links jitter, disks sync. A prediction knows the
middle of each link and what a sync takes, as `dwcp predict` would be told; the answer that it
predicts is compared with the median answer of a client that asks for one write after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import Final

from dwcp.wire.records import Protocol
from dwcp_replica.core.modes.predict import Costs, Matrix, ranking
from dwcp_replica.sim.host import Machine
from dwcp_replica.sim.latency import REGIONS, wide_area
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import Scenario, derive
from dwcp_replica.sim.world import Link

JITTER: Final = 0.15
"""A delay is up to this share of its middle above or below it."""
SYNC_MS: Final = 2
OPERATIONS: Final = 16
TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Case:
    """Members and a client at these sites, the first of which leads."""

    protocol: Protocol
    sites: tuple[str, ...]
    client: str

    def delays_ms(self) -> list[list[float]]:
        """One-way delays between members, 0 from each to itself."""
        numbered = list(enumerate(self.sites))
        return [[0.0 if i == j else wide_area(a, b) for j, b in numbered] for i, a in numbered]

    def answer_ms(self) -> tuple[float, int]:
        """What is predicted for the first member as leader, and its place among all leaders."""
        client_ms = [float(wide_area(self.client, site)) for site in self.sites]
        costs = Costs(persist_ms=SYNC_MS)
        found = ranking(self.protocol, self.delays_ms(), costs=costs, client_ms=client_ms)
        place = next(n for n, one in enumerate(found) if one.leader == 0)
        answer_ms = found[place].answer_ms
        assert answer_ms is not None, "there is a client"
        return answer_ms, place


@dataclass(frozen=True, slots=True)
class Compared:
    """A case, what was predicted for it, and what was measured; milliseconds."""

    case: Case
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """The share of the measured time by which the prediction is off."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms


def deal(dice: Random, n: int, protocol: Protocol) -> Case:
    """A case at random."""
    return Case(protocol, tuple(dice.choice(REGIONS) for _ in range(n)), dice.choice(REGIONS))


def compare(case: Case, seed: int) -> Compared:
    """Run a case. Raises AssertionError when not everything is answered under the first leader."""
    client_ms = [float(wide_area(case.client, site)) for site in case.sites]
    took_ms = simulated_ms(case.protocol, case.delays_ms(), client_ms, sync_ms=SYNC_MS, seed=seed)
    return Compared(case, case.answer_ms()[0], took_ms)


def simulated_ms(
    protocol: Protocol, delay_ms: Matrix, client_ms: Sequence[float], *,
    sync_ms: int, jitter: float = JITTER, seed: int = 1,
) -> float:  # fmt: skip
    """The median answer of the real engine over such links, with member 0 as leader.

    One-way delays, in whole milliseconds; 1, 3 and 5 members trust each other.
    """
    life = Simulation(_scenario(protocol, len(delay_ms), sync_ms, seed))
    names = [host.name for host in life.hosts]
    middles = {
        (a, b): delay_ms[i][j] for i, a in enumerate(names) for j, b in enumerate(names) if i != j
    }
    for name, middle_ms in zip(names, client_ms, strict=True):
        middles["client", name] = middles[name, "client"] = middle_ms
    for pair, middle_ms in middles.items():
        spread_ms = round(middle_ms * jitter)
        life.world.links[pair] = Link(round(middle_ms) - spread_ms, round(middle_ms) + spread_ms)
    (asking,) = life.clients
    asking.release()
    with hashes_remembered():
        finished = life.world.run(10 * TIMEOUT_MS, lambda: asking.done)
    assert finished, f"{asking.waiting} operations have no answer"
    assert life.hosts[0].core.standing().primary == 0, "another leads"
    return median((call.returned_ms or 0) - call.invoked_ms for call in asking.calls[1:])


def error_at_median(found: Sequence[Compared]) -> float:
    """The median over cases of how far a prediction was off, as a share."""
    return median(one.error for one in found)


def _scenario(protocol: Protocol, n: int, sync_ms: int, seed: int) -> Scenario:
    return replace(
        derive(seed, n, OPERATIONS, protocol),
        interval=100,
        think_ms=3000,
        weather=Link(),
        uneven=False,
        machines=(Machine(sync_ms=sync_ms),) * n,
        liars={},
        faults=(),
        real=False,
        clients=1,
        timeout_ms=TIMEOUT_MS,
        fast_reads=False,
    )
