"""The agreed choice of strategies, made into what shows conflicts."""

from __future__ import annotations

import pytest

from client.members import Members
from dwcp.crdt import LastWriteWins, Manual, MultiValue, Priority, ThreeWayMerge
from dwcp.crdt.conflicts import Candidate, Conflict
from dwcp.crdt.history import Resolutions
from dwcp.strategies import choose
from dwcp.wire.strategies import Ranked, StrategyName, StrategyRule

RECORD = Members().genesis
(CLIENT,) = RECORD.clients


def rule(document: str, name: StrategyName, *path: str, prefix: bool = False) -> StrategyRule:
    return StrategyRule(document, "Prefix" if prefix else "Name", path, name)


def conflict(*values: object, document: str = "notes") -> Conflict:
    authors = (CLIENT.key, bytes(32), bytes([1]) * 32)
    found = (
        Candidate(value, author, bytes([number]) * 32, number)  # type: ignore[arg-type]
        for number, (value, author) in enumerate(zip(values, authors, strict=False))
    )
    return Conflict(document, ("title",), tuple(found))


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        ("notes", ("title",), Manual),
        ("notes", ("title", "deep"), Manual),
        ("notes", ("other",), MultiValue),
        ("notes/today", ("title",), ThreeWayMerge),
        ("notes/today", ("x",), ThreeWayMerge),
        ("notes-of-ann", ("x",), MultiValue),
        ("plan", ("x",), LastWriteWins),
        ("plan", ("tags", "x"), Manual),
    ],
)
def test_the_nearest_rule_wins(document: str, path: tuple[str, ...], expected: type) -> None:
    """A document's own before beginnings of names, longer ones before the cluster's."""
    rules = [
        rule("notes", "Manual", "title"),
        rule("notes", "MultiValue", prefix=True),
        rule("notes/", "ThreeWayMerge", prefix=True),
        rule("", "Manual", "tags", prefix=True),
    ]
    assert isinstance(choose(rules, RECORD).strategies.of(document, path), expected)


def test_priority_finds_authors_by_the_names_of_clients() -> None:
    ranked = StrategyRule(
        "", "Prefix", (), "Priority", "", "", (Ranked(CLIENT.name, 5), Ranked("nobody", 9))
    )
    chosen = choose([ranked], RECORD)
    strategy = chosen.strategies.of("notes", ("title",))
    assert isinstance(strategy, Priority)
    assert strategy.resolve(conflict("ours", "theirs")) == "ours"
    assert chosen.problems == ["Priority names 'nobody', which is no client of this cluster"]


def test_an_expression_from_the_resource_resolves_and_is_counted() -> None:
    pytest.importorskip("celpy")
    largest = "values.filter(v, values.all(w, v >= w))[0]"
    custom = StrategyRule("notes", "Name", (), "Custom", "", largest)
    kept = Resolutions(choose([custom], RECORD).strategies)
    assert kept.resolve(conflict(3, 9, 4), now_ms=0) == 9
    assert kept.effects["CEL"].effectiveness == 1


@pytest.mark.parametrize(
    ("custom", "problem"),
    [
        (StrategyRule("notes", "Name", (), "Custom", "absent"), "is not installed"),
        (StrategyRule("notes", "Name", (), "Custom", "", "values["), "CEL expression"),
    ],
)
def test_what_can_not_be_used_shows_the_last_writer_and_says_why(
    custom: StrategyRule, problem: str
) -> None:
    chosen = choose([custom], RECORD)
    kept = Resolutions(chosen.strategies)
    assert kept.resolve(conflict("first", "last"), now_ms=0) == "last"
    assert [effect.failed for effect in kept.effects.values()] == [1]
    assert problem in chosen.problems[0]
