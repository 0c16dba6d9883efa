from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dwcp_operator.local.layout import SupervisorFile
from dwcp_operator.local.processes import (
    MemberProcess,
    find_supervisor,
    is_alive,
    kill,
    runs_on,
    terminate,
)

VOLUME = Path("/data/members/demo-1")


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (["python", "-m", "dwcp_replica", "--data", "/data/members/demo-1"], True),
        (["python", "-m", "dwcp_replica", "--data", "/data/members/demo-11"], False),
        (["python", "-m", "dwcp_replica", "--name", "/data/members/demo-1"], False),
        (["tail", "-f", "--data", "/data/members/demo-1"], False),
        (["python", "-m", "dwcp_replica"], False),
        ([], False),
    ],
)
def test_a_member_is_known_by_its_command_line(command_line: list[str], expected: bool) -> None:
    assert runs_on(command_line, VOLUME) is expected


def start(tmp_path: Path, code: str) -> MemberProcess:
    command = [sys.executable, "-c", code]
    return MemberProcess.start(command, tmp_path / "logs" / "m.log", allow_strategies=False)


def ended(process: MemberProcess) -> int | None:
    """Its exit code, once it has ended; psutil's own wait would take it from its parent."""
    deadline = time.monotonic() + 10
    while process.running():
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.01)
    return process.exit_code


def test_exit_codes_are_seen(tmp_path: Path) -> None:
    process = start(tmp_path, "import sys; print('bye'); sys.exit(78)")
    assert ended(process) == 78
    assert (tmp_path / "logs" / "m.log").read_text() == "bye\n"


def test_signals_reach_the_process_and_only_it(tmp_path: Path) -> None:
    one = start(tmp_path, "import time; time.sleep(60)")
    two = start(tmp_path, "import time; time.sleep(60)")
    try:
        terminate(one.process)
        assert ended(one) == -15
        assert two.running()
    finally:
        kill(two.process)
        assert ended(two) == -9
    terminate(one.process)  # gone: nothing is signalled, nothing is raised


def test_a_process_id_with_another_start_time_is_nobody_we_know() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = psutil.Process(child.pid).create_time()
        found = find_supervisor(SupervisorFile(pid=child.pid, started=started))
        assert found is not None
        assert is_alive(found)
        assert find_supervisor(SupervisorFile(pid=child.pid, started=started - 5)) is None
        assert find_supervisor(None) is None
    finally:
        child.kill()
        child.wait(10)
    assert find_supervisor(SupervisorFile(pid=child.pid, started=started)) is None


def test_the_permission_to_lie_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DWCP_ALLOW_TEST_STRATEGIES", "1")
    code = "import os; print(os.environ.get('DWCP_ALLOW_TEST_STRATEGIES'))"
    assert ended(start(tmp_path, code)) == 0
    assert (tmp_path / "logs" / "m.log").read_text() == "None\n"
