"""docs/operators-compared.md names tests: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def complaints() -> list[str]:
    text = (ROOT / "docs" / "operators-compared.md").read_text()
    rows = text.split("## Complaints")[1].splitlines()
    return [row for row in rows if row.startswith("| ")][1:]


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_complaint_names_tests_that_exist() -> None:
    rows = complaints()
    assert len(rows) > 10
    for row in rows:
        named = _TEST.findall(row)
        assert named, f"no test: {row}"
        for path, name in named:
            assert (ROOT / path).is_file(), path
            assert name.startswith("test_")
            assert name in defined_in(ROOT / path), f"{path} has no {name}"
