from __future__ import annotations

import os
import subprocess
import sys


def start(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("DWCP_")} | variables
    command = [sys.executable, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)


def test_what_is_missing_is_named() -> None:
    ended = start("-m", "dwcp_operator")
    assert ended.returncode == 78
    assert "--image" in ended.stderr


def test_a_value_that_does_not_do_is_refused() -> None:
    variables = {"DWCP_IMAGE": "x", "DWCP_IDENTITY": "x", "DWCP_LEASE_NAMESPACE": "x"}
    ended = start("-m", "dwcp_operator", **variables, DWCP_VOLUME_ACCESS_MODE="ReadWriteMany")
    assert ended.returncode == 78
    assert "ReadWriteOncePod" in ended.stderr


def test_optimised_python_is_refused() -> None:
    ended = start("-O", "-m", "dwcp_operator", "--help")
    assert ended.returncode != 0
    assert "-O" in ended.stderr
