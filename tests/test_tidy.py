"""Habits that are tests: sizes, contracts, names, and what must never be in a commit."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "client", ROOT / "replica", ROOT / "operator"]
MODULES = sorted(path for folder in SOURCES for path in folder.rglob("*.py"))
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
MEDIAN_LINES_MAX = 12


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = (ROOT / line for line in listed.stdout.splitlines())
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES_MAX
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{path.name}:{function.name} has {length} lines"


def test_functions_are_short_as_a_rule() -> None:
    lengths = sorted(
        (function.end_lineno or 0) - function.lineno + 1
        for path in MODULES
        for function in functions(path)
    )
    assert lengths[len(lengths) // 2] <= MEDIAN_LINES_MAX


def test_import_contracts() -> None:
    found = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:]


def test_the_folders_are_no_packages() -> None:
    """`operator` as a package would hide the standard library's module."""
    for name in ("client", "replica", "operator"):
        assert not (ROOT / name / "__init__.py").exists()


def test_operations_have_no_seconds_without_a_unit() -> None:
    """`timeout=5` of what? Parameters that are times end in their unit."""
    bad = []
    for path in MODULES:
        for function in functions(path):
            arguments = function.args.args + function.args.kwonlyargs
            bad += [
                f"{path.name}:{function.name}({a.arg})"
                for a in arguments
                if re.fullmatch(r"(timeout|delay|period|ttl)", a.arg)
            ]
    assert not bad, bad


def test_nothing_private_or_foreign_is_committed() -> None:
    """No machine path, no registry address, no left-over note."""
    forbidden = re.compile(
        r"/(?:work|root|home/\w+)/(?:main|shared|\.library|\.pyenv)|index-url|extra-index|find-links"
    )
    left_over = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".png", ".svg", ".sum"}:
            continue
        text = path.read_text(errors="replace")
        where = path.relative_to(ROOT)
        allowed = "find-links" if where.name in {"wheels.py", "Dockerfile", "README.md"} else None
        for match in forbidden.finditer(text):
            assert match.group() == allowed, f"{where}: {match.group()}"
        assert not left_over.search(text), f"{where}: {left_over.search(text)}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [*project["project"]["dependencies"]]
    for group in project["dependency-groups"].values():
        listed += group
    page = (ROOT / "docs" / "dependencies.md").read_text().lower()
    for requirement in listed:
        name = re.split(r"[<>=!~\[ ]", requirement)[0].lower()
        assert f"`{name}`" in page, f"docs/dependencies.md does not say why {name} is used"


def test_locked_requirements_carry_hashes_and_no_address() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-build.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text, name
        pins = re.findall(r"^[a-z0-9._-]+==", text, re.MULTILINE | re.IGNORECASE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins), name


def test_optimised_python_is_refused() -> None:
    """Asserts are invariants that stay on: `python -O` would drop them."""
    found = subprocess.run(
        [sys.executable, "-O", "-m", "dwcp_replica", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode != 0
    assert "-O" in found.stderr
