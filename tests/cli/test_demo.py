"""`dwcp demo`, as `make demo` runs it, and what it does when its cluster can not start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


def run_demo(temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from dwcp.cli import main; main()", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=ROOT,
        env={"TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "PYTHONUTF8": "1"},
    )


def left_running(temporary: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(temporary) in argument for argument in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_demo_shows_what_it_says_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    for shown in (
        "primary killed",
        "view change",
        "nothing lost",
        "catch-up",
        "liar leads, lies",
        "liar deposed",
        "nobody deceived",
        "All of it was checked",
    ):
        assert shown in done.stdout, done.stdout
    assert " 0 wrong" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert left_running(tmp_path) == []


def test_a_failing_demo_says_how_to_repeat_it(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text((ROOT / "examples/quickstart.yaml").read_text().replace("4", "5"))
    temporary = tmp_path / "t"
    temporary.mkdir()
    done = run_demo(temporary, "--file", str(manifest))
    assert done.returncode == 1
    assert "spec.replicas=5 is not 3f+1: use 4 or 7" in done.stderr
    assert f"Repeat it: dwcp demo --file {manifest}" in done.stderr
    assert list(temporary.iterdir()) == []
