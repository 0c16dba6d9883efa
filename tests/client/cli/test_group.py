"""The command line: quick to list, lazy to load, clear when there is no cluster."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from dwcp.cli import group
from dwcp.cli.data import EXIT_HELP
from dwcp.cli.group import COMMANDS, Lazy, dwcp

PROBE = """
import sys
from dwcp.cli import main
sys.argv = ["dwcp", "--help"]
try:
    main()
finally:
    assert not {"aiohttp", "nacl", "msgspec", "dwcp.client"} & set(sys.modules), "not lazy"
"""


def test_help_loads_no_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("put", "get", "del"):
        assert f"\n  {name} " in done.stdout


def test_optimised_python_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "from dwcp.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "python -O" in done.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_that_exists_loads(name: str) -> None:
    result = CliRunner().invoke(dwcp, [name, "--help"])
    if find_spec(COMMANDS[name].module) is None:
        assert result.exit_code == 2
        assert f"No such command '{name}'" in result.output
    else:
        assert result.exit_code == 0, result.output
        assert "Usage: dwcp" in result.output


def test_a_command_whose_module_is_absent_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Lazy("dwcp.cli.no_such_module", "x", "Not there.")
    monkeypatch.setitem(group.COMMANDS, "absent", absent)
    listed = CliRunner().invoke(dwcp, ["--help"])
    assert "absent" not in listed.output
    assert CliRunner().invoke(dwcp, ["absent"]).exit_code == 2


@pytest.mark.parametrize("arguments", [["put", "k", "v"], ["get", "k"], ["del", "k"]])
def test_without_a_cluster_the_error_says_what_to_do(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(dwcp, [*arguments, "--data", str(tmp_path)])
    assert result.exit_code == 3
    assert "dwcp up --data" in result.output


@pytest.mark.parametrize("arguments", [["put", "k"], ["get"], ["del", "k", "--timeout", "0"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(dwcp, arguments).exit_code == 2


def test_exit_codes_are_in_the_help() -> None:
    for command in ("put", "get", "del"):
        output = CliRunner().invoke(dwcp, [command, "--help"]).output
        assert " ".join(EXIT_HELP.split()) in " ".join(output.split())
