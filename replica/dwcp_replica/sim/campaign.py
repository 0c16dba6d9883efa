"""Many lives until the time is over; each failure with the command that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dwcp_replica.sim.checks import Violation
from dwcp_replica.sim.host import BROKEN
from dwcp_replica.sim.run import Report, Simulation
from dwcp_replica.sim.scenario import Scenario, derive

FAILURES: Final = (Violation, *BROKEN)
"""How a life fails: a check, an invariant of the engine, or code that does not work."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A life that broke a promise."""

    seed: int
    what: str
    replay: str


@dataclass(slots=True)
class Summary:
    """What a campaign did; counts of lives, but for the last four."""

    first_seed: int
    runs: int = 0
    violations: int = 0
    with_view_changes: int = 0
    with_crashes: int = 0
    with_crash_or_view_change: int = 0
    with_liars: int = 0
    with_evidence: int = 0
    with_real_signatures: int = 0
    by_replicas: dict[str, int] = field(default_factory=dict)
    by_liar: dict[str, int] = field(default_factory=dict)
    by_fault: dict[str, int] = field(default_factory=dict)
    operations: int = 0
    entries_final: int = 0
    messages_refused: int = 0
    recovered_ms_max: int = 0
    failures: list[Failed] = field(default_factory=list)

    def begin(self, scenario: Scenario) -> None:
        """Count a life that is about to be lived."""
        self.runs += 1
        _count(self.by_replicas, [str(scenario.n)])
        _count(self.by_liar, scenario.liars.values())
        _count(self.by_fault, [type(fault).__name__ for fault in scenario.faults])

    def add(self, scenario: Scenario, report: Report) -> None:
        """Count a life that kept every promise."""
        self.with_view_changes += report.views > 1
        self.with_crashes += report.crashes > 0
        self.with_crash_or_view_change += report.views > 1 or report.crashes > 0
        self.with_liars += bool(report.liars)
        self.with_evidence += report.evidence > 0
        self.with_real_signatures += scenario.real
        self.operations += report.operations
        self.entries_final += report.executed
        self.messages_refused += report.refused
        self.recovered_ms_max = max(self.recovered_ms_max, report.recovered_ms)


def _count(counts: dict[str, int], names: Iterable[str]) -> None:
    for name in names:
        counts[name] = counts.get(name, 0) + 1


def attempt(scenario: Scenario) -> Report | str:
    """Live one life: its report, or what it broke."""
    try:
        return Simulation(scenario).run()
    except FAILURES as broken:
        return f"{type(broken).__name__}: {broken}"


def campaign(
    first_seed: int,
    enough: Callable[[int], bool],
    failed: Callable[[Failed], None],
    n: int | None = None,
    operations: int = 20,
) -> Summary:
    """Live from `first_seed` on until `enough` (asked with the lives so far) says so."""
    summary = Summary(first_seed)
    while not enough(summary.runs):
        seed = first_seed + summary.runs
        scenario = derive(seed, n, operations)
        summary.begin(scenario)
        result = attempt(scenario)
        if isinstance(result, Report):
            summary.add(scenario, result)
            continue
        summary.violations += 1
        found = Failed(seed, result[:2000], replay(scenario, n))
        summary.failures.append(found)
        failed(found)
    return summary


def replay(scenario: Scenario, n: int | None = None) -> str:
    """The command that lives this life again; names what differs from the seed's own."""
    own = derive(scenario.seed, n, scenario.operations)
    words = [f"dwcp sim --seed {scenario.seed} --operations {scenario.operations}"]
    if n is not None:
        words.append(f"--replicas {n}")
    if scenario.faults != own.faults:
        kept = [str(own.faults.index(fault)) for fault in scenario.faults]
        words.append(f"--faults {','.join(kept) or 'none'}")
    if scenario.liars != own.liars:
        kept = [f"{member}:{lie}" for member, lie in sorted(scenario.liars.items())]
        words.append(f"--liars {','.join(kept) or 'none'}")
    if scenario.weather != own.weather or scenario.uneven != own.uneven:
        words.append("--calm")
    return " ".join(words)
