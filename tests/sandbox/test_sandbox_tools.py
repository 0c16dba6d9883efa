"""How the sandbox acts on the machine: processes, waiting, records, the command line; no root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import (
    cgroups,
    layout,
    mounts,
    processes,
    record,
    shell,
)
from sandbox.__main__ import parser


@pytest.fixture
def short() -> Iterator[layout.Layout]:
    """A layout in a new directory; pytest's own paths are longer than a state path may be."""
    with tempfile.TemporaryDirectory() as directory:
        yield layout.Layout(Path(directory))


# ---- processes, mounts, cgroups -------------------------------------------------------------


def test_parse_stat_of_an_odd_program_name() -> None:
    fields = ["S", *map(str, range(4, 22)), "98765", "0"]
    assert processes.parse_stat(f"12 (a) R (b) {' '.join(fields)}") == ("S", 98765)


def test_process_is_known_by_its_start_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = processes.start_time(child.pid)
        assert ticks is not None
        boot = processes.boot_id()
        own = processes.Started(child.pid, ticks, boot)
        assert own.alive()
        for other in (
            processes.Started(child.pid, ticks + 1, boot),
            processes.Started(child.pid, ticks, "another-boot"),
        ):
            assert not other.alive()
            assert other.signal(signal.SIGKILL, 0.0), "counts as ended"
        assert child.poll() is None, "a process with another start time was signalled"
        assert own.signal(signal.SIGKILL, 10.0)
        assert not own.alive()


def test_this_process_has_a_start_time_and_an_ended_one_has_none() -> None:
    assert processes.start_time(os.getpid()) is not None
    child = subprocess.Popen(["true"])
    child.wait()
    assert processes.start_time(child.pid) is None


MOUNTINFO = r"""
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 0:25 / /sys/fs/cgroup rw - tmpfs cgroup rw
31 30 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw
40 27 0:40 / /s/run/a rw shared:1 - overlay overlay rw
41 40 0:41 / /s/run/a/with\040blank rw - tmpfs tmpfs rw
42 27 0:42 / /sandbox rw - tmpfs tmpfs rw
""".strip()


def test_cgroup_hierarchies_of_both_versions() -> None:
    found = cgroups.parse_hierarchies(MOUNTINFO)
    assert found == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def test_mounts_below_come_in_the_order_to_unmount() -> None:
    found = mounts.parse_mounts_below(MOUNTINFO, Path("/s"))
    assert found == [Path("/s/run/a/with blank"), Path("/s/run/a")]


# ---- waiting, commands, record, command line ------------------------------------------------


def test_wait_until_says_what_is_missing() -> None:
    answers = iter(["first", "second", ""])
    shell.wait_until(lambda: next(answers), timeout_s=10, interval_s=0)
    with pytest.raises(shell.SandboxError, match="still missing after 0 s: the moon"):
        shell.wait_until(lambda: "the moon", timeout_s=0)


def test_failed_command_shows_its_code_and_output() -> None:
    with pytest.raises(shell.CommandError, match=r"(?s)ended with code 3\nbad luck"):
        shell.run(["sh", "-c", "echo bad luck >&2; exit 3"])
    with pytest.raises(shell.CommandError, match="there is no program no-such-program"):
        shell.run(["no-such-program"])
    with pytest.raises(shell.CommandError, match="did not end within"):
        shell.run(["sleep", "30"], timeout_s=0.05)


def test_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    shell.write_file(target, "one", mode=0o600)
    shell.write_file(target, "two", mode=0o600)
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_draft_directory_is_kept_only_when_the_block_ends_well(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        with shell.draft_directory(target) as draft:
            (draft / "half").write_text("x")
            raise shell.SandboxError("no")

    with pytest.raises(shell.SandboxError, match="no"):
        fail(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with shell.draft_directory(tmp_path / "a") as draft:
        (draft / "whole").write_text("x")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "whole"]


def test_tail_gives_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert shell.tail(log, 2) == "line 998\nline 999"
    assert "(no " in shell.tail(tmp_path / "absent")


def test_record_reads_what_was_written(short: layout.Layout) -> None:
    assert record.read(short) is None
    written = record.Record(2, 16, "/programs", tunables={"vm/overcommit_memory": "0"})
    record.write(short, written)
    assert record.read(short) == written


def test_foreign_directory_is_refused_and_kept(short: layout.Layout) -> None:
    (short.state / "thesis.txt").write_text("precious")
    with (
        pytest.raises(shell.SandboxError, match="holds other things"),
        record.locked(short),
    ):
        pass
    assert (short.state / "thesis.txt").read_text() == "precious"


def test_lock_is_free_again_and_the_directory_may_be_gone(short: layout.Layout) -> None:
    with record.locked(short):
        short.state.rmdir()
    with record.locked(short):
        assert short.state.exists()


def test_commands_need_a_sandbox(short: layout.Layout) -> None:
    with pytest.raises(shell.SandboxError, match="run `python -m sandbox up`"):
        record.require_nodes(short)


def test_kubectl_gets_every_word() -> None:
    arguments = parser().parse_args(["--state", "/s", "kubectl", "-n", "x", "get", "--state", "y"])
    assert arguments.words == ["-n", "x", "get", "--state", "y"]
    assert arguments.state == Path("/s")


def test_state_may_be_named_before_or_after_the_command() -> None:
    for words in (["--state", "/s", "up"], ["up", "--state", "/s"]):
        assert parser().parse_args(words).state == Path("/s")
    assert parser().parse_args(["up"]).nodes == 1
