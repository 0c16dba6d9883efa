"""Many lives until the time is over; each failure with the command that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dwcp.wire.records import Protocol
from dwcp_replica.sim.checks import Violation
from dwcp_replica.sim.host import BROKEN
from dwcp_replica.sim.page import rewritten
from dwcp_replica.sim.run import Report, Simulation
from dwcp_replica.sim.scenario import Scenario, derive, short

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
    with_more_epochs: int = 0
    by_protocol: dict[str, int] = field(default_factory=dict)
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
        _count(self.by_protocol, [f"{scenario.protocol} {scenario.trust}"])
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
        self.with_more_epochs += report.epochs > 1
        self.operations += report.operations
        self.entries_final += report.executed
        self.messages_refused += report.refused
        self.recovered_ms_max = max(self.recovered_ms_max, report.recovered_ms)

    def groups(self) -> dict[str, dict[str, int]]:
        """Lives by what was in them."""
        return {"replicas": self.by_replicas, "lie": self.by_liar, "fault": self.by_fault}


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
    protocol: Protocol | None = None,
    *,
    brief: bool = False,
) -> Summary:
    """Live from `first_seed` on until `enough` (asked with the lives so far) says so.

    `brief` lives are those of `scenario.short`, whatever else is asked for.
    """
    if brief:
        n, operations, protocol = 4, 20, "pbft"
    summary = Summary(first_seed)
    while not enough(summary.runs):
        seed = first_seed + summary.runs
        scenario = short(seed) if brief else derive(seed, n, operations, protocol)
        summary.begin(scenario)
        result = attempt(scenario)
        if isinstance(result, Report):
            summary.add(scenario, result)
            continue
        summary.violations += 1
        found = Failed(seed, result[:2000], replay(scenario, n, protocol))
        summary.failures.append(found)
        failed(found)
    return summary


def replay(scenario: Scenario, n: int | None = None, protocol: Protocol | None = None) -> str:
    """The command that lives this life again; names what differs from the seed's own."""
    own = derive(scenario.seed, n, scenario.operations, protocol)
    words = [f"dwcp sim --seed {scenario.seed} --operations {scenario.operations}"]
    if n is not None:
        words.append(f"--replicas {n}")
    if protocol is not None:
        words.append(f"--protocol {protocol}")
    if scenario.faults != own.faults:
        kept = [str(own.faults.index(fault)) for fault in scenario.faults]
        words.append(f"--faults {','.join(kept) or 'none'}")
    if scenario.liars != own.liars:
        kept = [f"{member}:{lie}" for member, lie in sorted(scenario.liars.items())]
        words.append(f"--liars {','.join(kept) or 'none'}")
    if scenario.weather != own.weather or scenario.uneven != own.uneven:
        words.append("--calm")
    return " ".join(words)


def write_summary(page: str, summary: Summary, seconds: float, commit: str) -> str:
    """The page with this campaign's summary between its marks; `commit` is what was run."""
    words = f"dwcp sim campaign --seconds {seconds:.0f} --write docs/assurance.md"
    a_minute = 60 * summary.runs / seconds
    head = (
        f"{summary.runs:,} lives in {seconds:,.0f} s ({a_minute:,.0f} a minute), "
        f"{summary.violations} violations, first seed {summary.first_seed}, at commit {commit} "
        f"(`{words}`)."
    )
    rows = {
        "with a crash or a view change": summary.with_crash_or_view_change,
        "with a view change": summary.with_view_changes,
        "with a crash": summary.with_crashes,
        "with liars": summary.with_liars,
        "in which somebody was convicted": summary.with_evidence,
        "with Ed25519 and encoded frames": summary.with_real_signatures,
        "operations answered": summary.operations,
        "entries made final": summary.entries_final,
        "messages refused": summary.messages_refused,
        "virtual ms to recover, at most": summary.recovered_ms_max,
    }
    lines = [f"| {name} | {value:,} |" for name, value in rows.items()]
    lines += [f"| by {name} | {_counted(counts)} |" for name, counts in summary.groups().items()]
    lines += [f"| **violation** | `{found.replay}` |" for found in summary.failures]
    return rewritten(page, "campaign", "\n".join([head, "", "| | |", "|---|---|", *lines]))


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {counts[name]:,}" for name in sorted(counts, key=_natural))
