"""Users' resolvers from entry points, and CEL expressions that can not run away."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from dwcp.crdt import Custom, check_resolver
from dwcp.crdt.conflicts import Candidate, Conflict
from dwcp.resolvers import GROUP, ResolverError, cel_resolver, load_resolvers

NOT_A_FUNCTION = 3


def largest(values: Sequence[Any]) -> Any:
    return max(values)


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}", GROUP)


def resolve(custom: Custom, *values: Any) -> Any:
    candidates = tuple(Candidate(value, b"", b"", 1) for value in values)
    return custom.resolve(Conflict("notes", ("key",), candidates))


class TestEntryPoints:
    def test_a_function_by_its_entry_point(self) -> None:
        resolvers = load_resolvers([point("largest", "largest")])
        assert resolve(resolvers["largest"], 1, 5, 3) == 5

    def test_nothing_installed_is_fine(self) -> None:
        assert load_resolvers() == {}

    @pytest.mark.parametrize(
        ("points", "message"),
        [
            ([point("a", "missing")], "missing"),
            ([EntryPoint("a", "no.such.module:f", GROUP)], "no.such|No module"),
            ([point("a", "NOT_A_FUNCTION")], "not a function"),
            ([point("a", "largest"), point("a", "resolve")], "two distributions"),
        ],
    )
    def test_one_that_can_not_be_used(self, points: list[EntryPoint], message: str) -> None:
        with pytest.raises(ResolverError, match=message):
            load_resolvers(points)


class TestCel:
    @pytest.fixture(autouse=True)
    def needs_cel(self) -> None:
        pytest.importorskip("celpy", reason="cel-python is not installed: CEL is not tested")

    def test_an_expression_over_the_values(self) -> None:
        expression = "values.filter(v, values.all(w, v.cpu >= w.cpu))[0]"
        widest = cel_resolver("widest", expression)
        assert resolve(widest, {"cpu": 1}, {"cpu": 8, "tags": ["x", None]}, {"cpu": 2}) == {
            "cpu": 8,
            "tags": ["x", None],
        }

    def test_results_are_json(self) -> None:
        one = cel_resolver("one", "{'n': values.size(), 'first': values[0], 'f': 1.5, 'b': true}")
        assert resolve(one, "x", "y") == {"n": 2, "first": "x", "f": 1.5, "b": True}

    def test_steps_are_bounded_and_the_same_everywhere(self) -> None:
        nested = "values.all(a, values.all(b, values.all(c, a + b + c >= 0)))"
        values = list(range(60))
        with pytest.raises(ValueError, match="steps"):
            resolve(cel_resolver("nested", nested), *values)
        with pytest.raises(ValueError, match="steps"):
            resolve(cel_resolver("hidden", f"true || {nested} || {nested}", 20), *values)

    @pytest.mark.parametrize("seed", ["['ab']", "[[1]]"])
    @pytest.mark.parametrize("doubled", ["a + a", "[a, a]", "{'l': a, 'r': a}"])
    def test_what_doubles_ends_soon(self, seed: str, doubled: str) -> None:
        """40 steps that double would make 10^12 items; sharing hides them until they are shown."""
        expression = seed + f".map(a, {doubled})" * 40
        with pytest.raises(ValueError, match="steps"):
            resolve(cel_resolver("doubles", expression), 1)

    def test_failures_are_values_of_one_error(self) -> None:
        for expression in ("values[9]", "values[0] + 'x'", "nothing"):
            with pytest.raises(ValueError, match="failed"):
                resolve(cel_resolver("bad", expression), 1, 2)

    def test_bad_syntax_is_told_at_once(self) -> None:
        with pytest.raises(ResolverError, match="values\\["):
            cel_resolver("bad", "values[")
        with pytest.raises(ResolverError, match="at most"):
            cel_resolver("long", "1 + " * 2000 + "1")

    def test_it_can_be_checked_like_any_resolver(self) -> None:
        expression = "values.filter(v, values.all(w, v >= w))[0]"
        assert check_resolver(cel_resolver("max", expression).function, [1, 2, 3]) == []
        assert check_resolver(cel_resolver("first", "values[0]").function, [1, 2]) != []


def test_without_the_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "celpy", None)
    with pytest.raises(ResolverError, match="pip install cel-python"):
        cel_resolver("any", "values[0]")
