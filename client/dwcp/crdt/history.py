"""What became of conflicts: a bounded history, counts, latency, and which strategies settle them.

The caller says what time it is; this module only subtracts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dwcp.crdt.conflicts import (
    FALLBACK_ERRORS,
    Conflict,
    Custom,
    LastWriteWins,
    Path,
    Strategies,
    Strategy,
    Unresolved,
    conflicts,
)
from dwcp.crdt.document import Document
from dwcp.crdt.values import BadValue, Value

HISTORY_MAX: Final = 1000
QUEUE_MAX: Final = 1000
KNOWN_MAX: Final = 256
"""Answers of users' functions that are remembered: one may take long."""

Outcome = Literal["resolved", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """One conflict as it was shown. `latency_ms` counts from when it was first seen here."""

    document: str
    path: Path
    strategy: str
    outcome: Outcome
    values: int
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a strategy made of a conflict."""

    value: Value
    outcome: Outcome


@dataclass(slots=True)
class Effect:
    """How a strategy does: conflicts it resolved, failed on, and left to people."""

    resolved: int = 0
    failed: int = 0
    waiting: int = 0
    latency_ms_total: int = 0

    @property
    def seen(self) -> int:
        """All conflicts that came to this strategy."""
        return self.resolved + self.failed + self.waiting

    @property
    def effectiveness(self) -> float:
        """The share that it resolved, 0 to 1; 0 when it saw none."""
        return self.resolved / self.seen if self.seen else 0.0

    @property
    def latency_ms_mean(self) -> float:
        """Mean latency of those resolved, in milliseconds."""
        return self.latency_ms_total / self.resolved if self.resolved else 0.0


@dataclass(slots=True)
class Resolutions:
    """Resolves conflicts by the strategies chosen, and remembers, within bounds.

    A conflict is counted once for each set of concurrent values, however often it is looked at.
    """

    strategies: Strategies = field(default_factory=Strategies)
    history: deque[Resolution] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    effects: dict[str, Effect] = field(default_factory=dict)
    queue: dict[tuple[str, Path], Conflict] = field(default_factory=dict)
    queue_dropped: int = 0
    _known: dict[tuple[str, Path], tuple[frozenset[bytes], Answer]] = field(default_factory=dict)
    _first_seen_ms: dict[tuple[str, Path], int] = field(default_factory=dict)
    _counted: dict[tuple[str, Path], frozenset[bytes]] = field(default_factory=dict)

    @property
    def conflict_count(self) -> int:
        """All conflicts ever counted here."""
        return sum(effect.seen for effect in self.effects.values())

    def resolve(self, conflict: Conflict, now_ms: int) -> Value:
        """The value to show for a conflict. `now_ms` is the caller's clock, in milliseconds.

        A strategy that fails, or leaves it to people, shows the last writer's value meanwhile.
        """
        strategy = self.strategies.of(conflict.document, conflict.path)
        answer = self._of_before(conflict) or answer_of(strategy, conflict)
        self._count(conflict, strategy.name, answer.outcome, now_ms)
        return answer.value

    def due(self, document: Document) -> Sequence[tuple[Strategy, Conflict]]:
        """Conflicts whose users' functions were not asked yet: ask `answer_of`, on any thread."""
        asked = ((self.strategies.of(c.document, c.path), c) for c in conflicts(document))
        waiting = [(s, c) for s, c in asked if isinstance(s, Custom) and not self._of_before(c)]
        return waiting[:KNOWN_MAX]

    def know(self, strategy: Strategy, conflict: Conflict, answer: Answer) -> None:
        """What `answer_of` gave for one that was due."""
        key = (conflict.document, conflict.path)
        if self.strategies.of(*key) is not strategy:
            return  # others were chosen meanwhile
        self._known.pop(key, None)
        self._known[key] = _values(conflict), answer
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _of_before(self, conflict: Conflict) -> Answer | None:
        known = self._known.get((conflict.document, conflict.path))
        return known[1] if known is not None and known[0] == _values(conflict) else None

    def follow(self, strategies: Strategies) -> None:
        """Resolve by these from now on; what waits for people does so only if they say it anew."""
        self.strategies = strategies
        self.queue.clear()
        self._known.clear()
        self._counted.clear()

    def settled(self, document: str, path: Path) -> None:
        """A conflict is no more: its register holds one value again."""
        key = (document, path)
        self.queue.pop(key, None)
        self._known.pop(key, None)
        self._first_seen_ms.pop(key, None)
        self._counted.pop(key, None)

    def keep(self, document: str, paths: Collection[Path]) -> None:
        """Of this document only these conflicts are left."""
        for name, path in [key for key in self._counted if key[0] == document]:
            if path not in paths:
                self.settled(name, path)

    def waiting(self) -> list[Conflict]:
        """Conflicts that wait for people, by document and path."""
        return [self.queue[key] for key in sorted(self.queue)]

    def _count(self, conflict: Conflict, strategy: str, outcome: Outcome, now_ms: int) -> None:
        key = (conflict.document, conflict.path)
        first_ms = self._first_seen_ms.setdefault(key, now_ms)
        if outcome == "waiting":
            self._enqueue(key, conflict)
        values = _values(conflict)
        if self._counted.get(key) == values:
            return
        self._counted[key] = values
        self._bound()
        latency_ms = max(0, now_ms - first_ms)
        effect = self.effects.setdefault(strategy, Effect())
        setattr(effect, outcome, getattr(effect, outcome) + 1)
        if outcome == "resolved":
            effect.latency_ms_total += latency_ms
        self.history.append(
            Resolution(conflict.document, conflict.path, strategy, outcome, len(values), latency_ms)
        )

    def _enqueue(self, key: tuple[str, Path], conflict: Conflict) -> None:
        if key not in self.queue and len(self.queue) >= QUEUE_MAX:
            self.queue_dropped += 1
            return
        self.queue[key] = conflict

    def _bound(self) -> None:
        """Forget the oldest notes; a conflict looked at again after that is counted again."""
        for notes in (self._first_seen_ms, self._counted):
            while len(notes) > 10 * HISTORY_MAX:
                del notes[next(iter(notes))]


def answer_of(strategy: Strategy, conflict: Conflict) -> Answer:
    """Ask a strategy; one that fails, or leaves it to people, shows the last writer's value."""
    try:
        return Answer(strategy.resolve(conflict), "resolved")
    except Unresolved:
        return Answer(LastWriteWins().resolve(conflict), "waiting")
    except (BadValue, *FALLBACK_ERRORS):
        return Answer(LastWriteWins().resolve(conflict), "failed")


def _values(conflict: Conflict) -> frozenset[bytes]:
    return frozenset(candidate.operation for candidate in conflict.candidates)


def show(document: Document, resolutions: Resolutions, now_ms: int) -> Value:
    """The document as JSON, with what the strategies make of its conflicts.

    A multi-value register shows all its values unless a strategy was chosen for it.
    """
    view = document.view()
    strategies = resolutions.strategies
    paths = []
    for conflict in conflicts(document):
        paths.append(conflict.path)
        if conflict.kind == "mv" and not strategies.chose(document.name, conflict.path):
            continue
        _put(view, conflict.path, resolutions.resolve(conflict, now_ms))
    resolutions.keep(document.name, paths)
    return view


def _put(view: Value, path: Path, value: Value) -> None:
    """Show a value at a path, if the view shows what lies around it."""
    place: Any = view
    for key in path[:-1]:
        place = place.get(key) if isinstance(place, dict) else None
    if isinstance(place, dict) and path[-1] in place:
        place[path[-1]] = value


def described(resolutions: Resolutions, readable: Callable[[str], bool]) -> dict[str, Any]:
    """All of it as JSON: what waits for people, what became of conflicts, how strategies do."""
    return {
        "waiting": [
            {
                "document": conflict.document,
                "path": list(conflict.path),
                "base": conflict.base,
                "values": [
                    {"value": c.value, "author": c.author.hex(), "operation": c.operation.hex()}
                    for c in conflict.candidates
                ],
            }
            for conflict in resolutions.waiting()
            if readable(conflict.document)
        ],
        "history": [
            {
                "document": one.document,
                "path": list(one.path),
                "strategy": one.strategy,
                "outcome": one.outcome,
                "values": one.values,
                "latencyMs": one.latency_ms,
            }
            for one in resolutions.history
            if readable(one.document)
        ],
        "strategies": {
            name: {
                "seen": effect.seen,
                "resolved": effect.resolved,
                "failed": effect.failed,
                "waiting": effect.waiting,
                "effectiveness": effect.effectiveness,
                "latencyMsMean": effect.latency_ms_mean,
            }
            for name, effect in sorted(resolutions.effects.items())
        },
    }
