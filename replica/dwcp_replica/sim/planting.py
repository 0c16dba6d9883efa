"""Planting a bug from outside, hunting it with the simulator, and the table of what was caught.

A checker that has never caught anything is worth nothing. Every planted bug is a mutation of the
engine, applied for one hunt and taken back after it; the engine's own source never knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dwcp.wire.records import Protocol
from dwcp_replica.sim.campaign import attempt
from dwcp_replica.sim.explore import Bound
from dwcp_replica.sim.page import rewritten
from dwcp_replica.sim.scenario import Fault, Scenario, derive
from dwcp_replica.sim.scenes import ALL, explore
from dwcp_replica.sim.world import Link


class Patches:
    """Attributes that have another value for a while."""

    def __init__(self) -> None:
        self._old: list[tuple[Any, str, Any]] = []

    def set(self, where: Any, name: str, value: Any) -> Any:
        """Give an attribute another value; returns the one that it had."""
        old = getattr(where, name)
        self._old.append((where, name, old))
        setattr(where, name, value)
        return old

    def undo(self) -> None:
        """Everything is as it was."""
        while self._old:
            setattr(*self._old.pop())


@dataclass(frozen=True, slots=True)
class Setting:
    """The lives in which a bug is hunted; what is None is as the seed says."""

    n: int | None = None
    operations: int = 20
    interval: int | None = None
    liars: dict[int, str] | None = None
    faults: tuple[Fault, ...] | None = None
    weather: Link | None = None
    fast_reads: bool | None = None
    protocol: Protocol = "pbft"

    def scenario(self, seed: int) -> Scenario:
        """The life of a seed in this setting."""
        scenario = derive(seed, self.n, self.operations, self.protocol)
        if self.interval is not None:
            scenario = replace(scenario, interval=self.interval)
        if self.liars is not None:
            scenario = replace(scenario, liars=self.liars)
        if self.faults is not None:
            scenario = replace(scenario, faults=self.faults)
        elif self.liars is not None:
            scenario = replace(scenario, faults=_bearable(scenario))
        if self.fast_reads is not None:
            scenario = replace(scenario, fast_reads=self.fast_reads)
        if self.weather is not None:
            scenario = replace(scenario, weather=self.weather, uneven=False)
        assert len(scenario.faulty) <= (scenario.n - 1) // 3, "more liars than f"
        return scenario


@dataclass(frozen=True, slots=True)
class Exploring:
    """A scene in which a bug is hunted, to this depth or to its short bound (scenes.py)."""

    scene: str
    depth: int | None = None


Hunted = Setting | Exploring
"""Where a bug is hunted: in lives, or in every order of one scene's messages."""


def _bearable(scenario: Scenario) -> tuple[Fault, ...]:
    """The seed's faults without those that would count among f, which the liars use up."""
    return tuple(f for f in scenario.faults if type(f).__name__ not in ("Rot", "Amnesia"))


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug: what it is, how it is switched on, where it is hunted, and with how many seeds."""

    name: str
    what: str
    plant: Callable[[Patches], None]
    setting: Hunted
    seeds_max: int


@dataclass(frozen=True, slots=True)
class Caught:
    """How a hunt ended: by what it was caught, after how many seeds, in how many seconds."""

    name: str
    caught: bool
    seeds: int
    seconds: float
    by: str


@contextmanager
def planted(bug: Planted) -> Iterator[None]:
    """The engine with the bug in it."""
    patches = Patches()
    bug.plant(patches)
    try:
        yield
    finally:
        patches.undo()


def hunt(bug: Planted, stop: Callable[[], bool] = lambda: False) -> Caught:
    """Live seeds from 1 on until one fails, which must not fail without the bug."""
    seed, what = 0, ""
    with planted(bug):
        while seed < bug.seeds_max and not what and not (seed and stop()):
            seed += 1
            what = _tried(bug.setting, seed)
    # any other error says that the mutation no longer fits the engine
    caught = what.startswith(("Violation", "AssertionError"))
    without = _tried(bug.setting, seed) if caught else ""
    if without:
        caught, what = False, f"fails without the bug too: {without}"
    return Caught(bug.name, caught=caught, seeds=seed, seconds=0.0, by=what[:160])


def _tried(setting: Hunted, seed: int) -> str:
    """How a life of this seed, or an exploration, fails; empty when it does not."""
    if isinstance(setting, Exploring):
        bound = None if setting.depth is None else Bound(setting.depth, ALL.states_max)
        violation = explore(setting.scene, bound).violation
        return f"Violation: {violation}, exploring {setting.scene}" if violation else ""
    result = attempt(setting.scenario(seed))
    return result if isinstance(result, str) else ""


def write_table(page: str, found: Sequence[Caught], commit: str) -> str:
    """The page with the table between its markers made anew."""
    rows = [
        f"| {one.name} | {'yes' if one.caught else '**no**'} | {one.seeds} | {one.seconds:.1f} "
        f"| {_cell(one.by)} |"
        for one in found
    ]
    total = sum(one.seconds for one in found)
    head = (
        f"{len(found)} bugs, {sum(one.caught for one in found)} caught, {total:.0f} s on one "
        f"core, at commit {commit} (`dwcp sim planted --write docs/assurance.md`).\n\n"
        "| planted bug | caught | seeds | seconds | by |\n|---|---|---|---|---|\n"
    )
    return rewritten(page, "planted", head + "\n".join(rows))


def _cell(text: str) -> str:
    """What caught it, short enough for a table."""
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= 100 else f"{text[:97]}..."
