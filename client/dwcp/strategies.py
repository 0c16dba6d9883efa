"""The agreed choice of strategies, made into what shows conflicts here.

A resolver that is not installed here, or an expression that does not compile, is no reason to show
nothing: such a conflict shows its last writer and counts as failed, with the reason in `problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dwcp import errors
from dwcp.crdt import (
    BadValue,
    Custom,
    LastWriteWins,
    Manual,
    MultiValue,
    Priority,
    Resolutions,
    Strategies,
    ThreeWayMerge,
)
from dwcp.crdt.conflicts import Strategy
from dwcp.crdt.values import Value
from dwcp.dochooks import Hooks
from dwcp.resolvers import ResolverError, cel_resolver, load_resolvers
from dwcp.wire.records import EpochRecord
from dwcp.wire.strategies import StrategyRule

_SIMPLE: Mapping[str, Callable[[], Strategy]] = {
    "LastWriteWins": LastWriteWins,
    "MultiValue": MultiValue,
    "ThreeWayMerge": ThreeWayMerge,
    "Manual": Manual,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Strategies by place, and what was wrong with some rules, as sentences."""

    strategies: Strategies
    problems: list[str] = field(default_factory=list)


def choose(rules: Iterable[StrategyRule], record: EpochRecord) -> Chosen:
    """The strategies of these rules; Priority finds its authors among the record's clients."""
    made = Chosen(Strategies())
    authors = {client.name: client.key for client in record.clients}
    for rule in rules:
        strategy = _strategy(rule, authors, made.problems)
        if rule.match == "Prefix":
            made.strategies.below[rule.document, rule.path] = strategy
        else:
            made.strategies.chosen[rule.document, rule.path] = strategy
    return made


def _strategy(rule: StrategyRule, authors: Mapping[str, bytes], problems: list[str]) -> Strategy:
    if rule.strategy == "Custom":
        return _custom(rule, problems)
    if rule.strategy == "Priority":
        known = {authors[r.client]: r.priority for r in rule.priorities if r.client in authors}
        problems += [
            f"Priority names {ranked.client!r}, which is no client of this cluster"
            for ranked in rule.priorities
            if ranked.client not in authors
        ]
        return Priority(known)
    return _SIMPLE[rule.strategy]()


def _custom(rule: StrategyRule, problems: list[str]) -> Strategy:
    name = rule.resolver or "CEL"
    try:
        if rule.expression:
            return cel_resolver(name, rule.expression)
        resolvers = load_resolvers()
        if rule.resolver in resolvers:
            return resolvers[rule.resolver]
        problem = f"the resolver {rule.resolver!r} is not installed here"
    except ResolverError as error:
        problem = str(error)
    problems.append(problem)

    def missing(values: Sequence[Value]) -> Value:  # noqa: ARG001
        raise BadValue(problem)

    return Custom(name, missing)


class Followed:
    """The agreed strategies, as a client learned them last.

    `on` False: this client chooses its `resolutions.strategies` itself.
    """

    def __init__(self, resolutions: Resolutions, hooks: Hooks) -> None:
        self.on = True
        self.problems: list[str] = []
        self._resolutions = resolutions
        self._hooks = hooks
        self._rules: tuple[StrategyRule, ...] = ()

    async def follow(self, timeout_ms: int) -> bool:
        """Show conflicts as is agreed now; False, and as before, without an answer in time."""
        try:
            rules = (await self._hooks.settings(timeout_ms=timeout_ms)).rules
        except errors.DWCPError:
            return False
        if self.on and rules != self._rules:
            self._rules = rules
            chosen = choose(rules, self._hooks.genesis)
            self.problems = chosen.problems
            self._resolutions.follow(chosen.strategies)
        return True
