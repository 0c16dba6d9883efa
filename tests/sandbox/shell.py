"""How everything here acts on the machine: commands, timed steps, bounded waiting."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

OUTPUT_CHARS_MAX = 4000


class SandboxError(Exception):
    """What went wrong and what to do about it; printed as it is, without a traceback."""


class CommandError(SandboxError):
    """A command that ended with a code other than 0, or not in time."""

    def __init__(self, command: Sequence[str], why: str, output: str) -> None:
        self.output = output
        shown = " ".join(command)[:400]
        super().__init__(f"{shown}\n  {why}\n{output[-OUTPUT_CHARS_MAX:]}".rstrip())


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    cwd: Path | None = None,
) -> str:
    """Run `command` and return what it printed; `env` is added to the environment.

    Raises: CommandError, with the end of what the command wrote to standard error.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else {**os.environ, **env},
            timeout=timeout_s,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(words, f"did not end within {timeout_s:.0f} s", "") from error
    except FileNotFoundError as error:
        raise CommandError(words, f"there is no program {words[0]}", "") from error
    if done.returncode != 0:
        output = done.stderr.strip() or done.stdout.strip()
        raise CommandError(words, f"ended with code {done.returncode}", output)
    return done.stdout


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print one line with the duration of the block, also when it fails."""
    started = time.monotonic()
    ending = "failed"
    try:
        yield
        ending = ""
    finally:
        line = f"{what:<60} {time.monotonic() - started:7.1f} s {ending}".rstrip()
        print(line, file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Print one line beside the steps."""
    print(line, file=sys.stderr, flush=True)


def wait_until(missing: Callable[[], str], *, timeout_s: float, interval_s: float = 0.15) -> None:
    """Return when `missing()` is empty; until then it says what is still missing.

    Raises: SandboxError with the last answer after `timeout_s`; whatever `missing` raises.
    """
    deadline = time.monotonic() + timeout_s
    while what := missing():
        if time.monotonic() >= deadline:
            raise SandboxError(f"still missing after {timeout_s:.0f} s: {what}")
        time.sleep(interval_s)


@contextmanager
def exclusive(directory: Path) -> Iterator[int]:
    """Make `directory` if need be and hold it alone; yields its open descriptor."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def draft_directory(finished: Path) -> Iterator[Path]:
    """A new directory that becomes `finished` when the block ends well, and is removed if not."""
    draft = finished.with_name(f"{finished.name}.draft.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(finished)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Put `text` at `path` in one piece: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=mode)
    draft.write_text(text)
    draft.replace(path)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, or a remark that there is none."""
    if not path.exists():
        return f"(no {path})"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 400 * lines))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
