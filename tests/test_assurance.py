"""docs/assurance.md names a test for each promise and flaw: they exist, and can fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dwcp_replica.sim.page import between

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "assurance.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ABSENT = "not there yet"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def rows(name: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in between(PAGE, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def defined_in(path: str) -> frozenset[str]:
    """The tests that a file defines."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, Function))


def named() -> Iterator[tuple[str, str]]:
    for match in NAMED.finditer(PAGE):
        yield match[1], match[2]


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{path}::{test}"
        for path, test in named()
        if not (ROOT / path).is_file() or test not in defined_in(path)
    ]
    assert not missing, f"docs/assurance.md names tests that are not there: {missing}"


@pytest.mark.parametrize("table", ["promises", "flaws"])
def test_every_row_names_a_test_or_says_what_is_absent(table: str) -> None:
    found = rows(table)
    for cells in found:
        assert NAMED.search(cells[-1]) or ABSENT in cells[-1], cells
    absent = [cells[0] for cells in found if ABSENT in cells[-1]]
    print(f"{table}: {len(found)} rows, {len(absent)} say what is not there yet: {absent}")


def test_no_flaw_is_left_out() -> None:
    assert [cells[0] for cells in rows("flaws")] == [str(number) for number in range(1, 21)]


def functions() -> dict[str, list[Function]]:
    """Every function under tests, by its name."""
    found: dict[str, list[Function]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append(node)
    return found


def checks_itself(function: Function) -> bool:
    """It asserts something that is not always so, or expects an error."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Assert) and not hollow(node)):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ("raises", "fail"):
            return True
        if isinstance(node, ast.Name) and node.id == "run_state_machine_as_test":
            return True  # the machine's rules and invariants assert
        if isinstance(node, ast.Name) and node.id == "run_state_machine_as_test":
            return True  # hypothesis: its rules and invariants assert
    return False


def hollow(node: ast.Assert) -> bool:
    """As the predecessor's were: assert True, and counts that are at least 0."""
    match node.test:
        case ast.Constant():
            return True
        case ast.Compare(ops=[ast.GtE()], comparators=[ast.Constant(value=0)]):
            return True
    return False


def called(function: Function) -> set[str]:
    """The names of what a function calls or refers to."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}


def test_every_test_can_fail() -> None:
    """It checks something itself, or by a helper that does."""
    known = functions()
    checking = {name for name, bodies in known.items() if any(map(checks_itself, bodies))}
    calls = {name: set().union(*map(called, bodies)) for name, bodies in known.items()}
    grown = True
    while grown:
        more = {name for name, names in calls.items() if names & checking}
        grown = not more <= checking
        checking |= more
    idle = [name for name in known if name.startswith("test_") and name not in checking]
    assert not idle, f"these tests check nothing: {idle}"


@pytest.mark.parametrize("body", ["pass", "assert True", "assert len(x) >= 0", "run()"])
def test_a_test_that_checks_nothing_is_noticed(body: str) -> None:
    (function,) = ast.parse(f"def test_x():\n    {body}").body
    assert isinstance(function, Function)
    assert not checks_itself(function)
