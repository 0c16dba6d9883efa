"""`dwcp demo`: four members on this machine, one killed, one lying; every claim is checked.

The demo writes and reads all the time through the verifying client. It notes what was
acknowledged, kills the primary, waits for the new view, checks every acknowledged write,
waits for the killed member to catch up, makes the next primary lie, hands it the lead, and
checks again. Whatever does not come true within its bound ends the demo with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from dwcp import errors
from dwcp.calls import prefix_end
from dwcp.client import Client
from dwcp_operator.local.control import look, status_tree
from dwcp_operator.local.errors import LocalError
from dwcp_operator.local.files import last_lines
from dwcp_operator.local.layout import Layout

PREFIX: Final = "demo/"
WRITERS: Final = 4
PACE_S: Final = 0.005
STEP_S_MAX: Final = 20.0
PAGE: Final = 1000

T = TypeVar("T")


class DemoFailedError(Exception):
    """Something that the demo shows did not come true."""


# --- load ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """Writers and a reader that run all the time, and what they saw. Times are monotonic s."""

    client: Client
    acknowledged: dict[str, str] = field(default_factory=dict)
    acknowledged_at: list[float] = field(default_factory=list)
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    repeated: int = 0
    _number: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and read while the body runs; a failure of theirs fails the body."""
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WRITERS):
                    group.create_task(self._write(stop))
                group.create_task(self._read(stop))
                try:
                    yield
                finally:
                    stop.set()
        except BaseExceptionGroup as group_error:
            # What failed first is what is told; the others are what it dragged along.
            raise group_error.exceptions[0] from None

    async def _write(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._number += 1
            key, value = f"{PREFIX}{self._number:06d}", f"value-{self._number}"
            while True:
                try:
                    await self.client.put(key, value)
                    break
                except (errors.NotExecuted, errors.Indeterminate):
                    # Writing the same value again changes nothing, so it may be repeated.
                    self.repeated += 1
            self.acknowledged[key] = value
            self.acknowledged_at.append(time.monotonic())
            await asyncio.sleep(PACE_S)

    async def _read(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self.acknowledged:
                key = next(reversed(self.acknowledged))
                self._compare(key, self.acknowledged[key], await self._get(key))
                self.reads += 1
            await asyncio.sleep(PACE_S)

    async def _get(self, key: str) -> bytes | None:
        found = await self.client.get(key)
        return found.value if found is not None else None

    def _compare(self, key: str, wanted: str, got: bytes | None) -> None:
        if got != wanted.encode():
            self.wrong.append(f"{key}: wrote {wanted}, read {got!r}")

    async def check_all(self) -> int:
        """Read every acknowledged write back; returns how many. Raises DemoFailedError."""
        wanted, found = dict(self.acknowledged), await self._everything()
        for key, value in wanted.items():
            self._compare(key, value, found.get(key))
        if self.wrong:
            raise DemoFailedError(f"{len(self.wrong)} wrong reads, first {self.wrong[0]}")
        return len(wanted)

    async def _everything(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        start, end = PREFIX.encode(), prefix_end(PREFIX)
        while True:
            page = await self.client.range(start, end, limit=PAGE)
            found.update((kv.key.decode(), kv.value) for kv in page.kvs)
            if not page.more:
                return found
            start = page.kvs[-1].key + b"\0"

    def longest_pause_ms(self, since: float) -> int:
        """The longest time between two acknowledged writes around and after `since`."""
        times = sorted(self.acknowledged_at)
        pauses = (b - a for a, b in itertools.pairwise(times) if b >= since)
        return int(max(pauses, default=0.0) * 1000)

    def count_since(self, since: float) -> int:
        """How many writes were acknowledged after `since`."""
        return sum(at > since for at in self.acknowledged_at)


# --- the cluster -----------------------------------------------------------------------------


class Cluster:
    """The demo's cluster, through the same command line that users have."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file = file
        self.root = root
        self._layout = Layout(root)

    def up(self) -> None:
        """Start it in the background. Raises DemoFailedError."""
        options = ["-f", str(self._file), "--data", str(self.root), "--detach"]
        self._dwcp("up", *options, "--allow-test-strategies", "--timeout", "30s")

    def down(self) -> None:
        """Stop everything. Raises DemoFailedError."""
        if (self.root / "cluster.json").exists():
            self._dwcp("down", "--data", str(self.root))

    def _dwcp(self, *arguments: str) -> None:
        command = [sys.executable, "-c", "from dwcp.cli import main; main()", *arguments]
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise DemoFailedError(f"dwcp {arguments[0]} failed:\n{done.stdout}{done.stderr}")

    async def status(self) -> dict[str, Any]:
        """What `dwcp status -o json` prints."""
        return status_tree(await look(self._layout))

    async def member(self, name: str) -> dict[str, Any]:
        """One member of the status."""
        members: list[dict[str, Any]] = (await self.status())["members"]
        return next(m for m in members if m["name"] == name)

    async def stop_member(self, name: str, number: signal.Signals) -> int:
        """Signal a member; returns the process id it had."""
        pid = (await self.member(name))["pid"]
        if pid is None:
            raise DemoFailedError(f"{name} does not run, it can not be stopped")
        os.kill(pid, number)
        return int(pid)

    def lie(self, name: str) -> None:
        """Let the member lie from its next start on."""
        self._layout.testing.write_text(json.dumps({name: "lie"}), encoding="utf-8")


async def wait_for(what: str, look_once: Callable[[], Awaitable[T | None]]) -> T:
    """Look until the answer is not None; DemoFailedError after STEP_S_MAX."""
    deadline = time.monotonic() + STEP_S_MAX
    while time.monotonic() < deadline:
        if (found := await look_once()) is not None:
            return found
        await asyncio.sleep(0.1)
    raise DemoFailedError(f"not within {STEP_S_MAX:.0f} s: {what}")


# --- the story -------------------------------------------------------------------------------


@dataclass(slots=True)
class Story:
    """The demo's steps in order; each adds rows to the table that is printed at the end."""

    cluster: Cluster
    load: Load
    rows: list[tuple[str, str]] = field(default_factory=list)

    def _row(self, what: str, figures: str) -> None:
        self.rows.append((what, figures))
        click.echo(f"  {what}: {figures}")

    async def write_and_read(self) -> None:
        """Writes and reads go through."""
        began = time.monotonic()
        await self._writes(100, began)
        checked = await self.load.check_all()
        self._row("write and read", f"{checked} writes read back, f+1 signed replies each")

    async def _writes(self, count: int, since: float) -> None:
        """Wait until `count` writes were acknowledged after `since`."""

        async def once() -> bool | None:
            return self.load.count_since(since) >= count or None

        await wait_for(f"{count} acknowledged writes", once)

    async def _new_view(self, old: dict[str, Any], killed_at: float) -> dict[str, Any]:
        async def once() -> dict[str, Any] | None:
            now = await self.cluster.status()
            moved = now["view"] is not None and now["view"] > old["view"]
            return now if moved and now["primary"] != old["primary"] else None

        status = await wait_for("a new view with another primary", once)
        await self._writes(50, killed_at)
        return status

    async def kill_the_primary(self) -> str:
        """SIGKILL: another member leads, and nothing acknowledged is lost."""
        old = await self.cluster.status()
        killed, at = str(old["primary"]), time.monotonic()
        pid = await self.cluster.stop_member(killed, signal.SIGKILL)
        new = await self._new_view(old, at)
        pause_ms = self.load.longest_pause_ms(at)
        self._row("primary killed", f"{killed} (SIGKILL, pid {pid}) in view {old['view']}")
        self._row(
            "view change",
            f"view {new['view']}, primary {new['primary']}; longest pause {pause_ms} ms",
        )
        checked = await self.load.check_all()
        self._row("nothing lost", f"{checked} acknowledged writes read back")
        await self._restarted(killed, pid)
        return killed

    async def _restarted(self, name: str, old_pid: int) -> None:
        async def once() -> dict[str, Any] | None:
            member = await self.cluster.member(name)
            fresh = member["pid"] not in (None, old_pid)
            return member if fresh and member["ready"] else None

        await wait_for(f"{name} restarted and ready", once)

    async def caught_up(self, name: str) -> None:
        """With no writes under way, all members have executed the same entries."""

        async def once() -> int | None:
            members: list[dict[str, Any]] = (await self.cluster.status())["members"]
            applied = {m["appliedIndex"] for m in members}
            return applied.pop() if len(applied) == 1 and None not in applied else None

        index = await wait_for(f"{name} caught up", once)
        self._row("catch-up", f"{name} restarted by the supervisor; all members at entry {index}")

    async def let_the_next_primary_lie(self) -> str:
        """The next leader lies to members and to clients: it is named, nobody is deceived."""
        status = await self.cluster.status()
        names = [str(m["name"]) for m in status["members"]]
        primary = str(status["primary"])
        liar = names[(names.index(primary) + 1) % len(names)]
        self.cluster.lie(liar)
        await self._restarted(liar, await self.cluster.stop_member(liar, signal.SIGTERM))
        before = await self.cluster.status()
        reads, at = self.load.reads, time.monotonic()
        pid = await self.cluster.stop_member(str(before["primary"]), signal.SIGTERM)
        await self._writes(50, at)
        pause_ms = self.load.longest_pause_ms(at)
        self._row("hand-over", f"{before['primary']} (SIGTERM) to {liar}; pause {pause_ms} ms")
        evidence = await wait_for(f"f+1 members name {liar}", lambda: self._evidence(liar))
        await wait_for(f"the client names {liar}", lambda: self._seen_by_client(liar))
        after = await wait_for(f"{liar} no longer leads", lambda: self._led_by_another(liar))
        await self._writes(50, time.monotonic())
        await self._restarted(str(before["primary"]), pid)
        checked = await self.load.check_all()
        self._row("liar leads, lies", f"{liar}; ByzantineFault: {evidence}")
        where = f"epoch {after['epoch']}, view {after['view']}"
        self._row("liar deposed", f"{where}, primary {after['primary']}")
        self._row("liar caught", f"the client got answers of {liar} that f+1 others contradict")
        self._row(
            "nobody deceived",
            f"{self.load.reads - reads} reads meanwhile, {len(self.load.wrong)} wrong; "
            f"{checked} acknowledged writes read back",
        )
        return liar

    async def _evidence(self, liar: str) -> str | None:
        """What f+1 members' evidence says, once the cluster's status believes it."""
        conditions: list[dict[str, str]] = (await self.cluster.status())["conditions"]
        fault: dict[str, str] = next(c for c in conditions if c["type"] == "ByzantineFault")
        named = fault["status"] == "True" and fault["message"].startswith(f"{liar}: ")
        return fault["message"].removeprefix(f"{liar}: ") if named else None

    async def _seen_by_client(self, liar: str) -> bool | None:
        return liar in self.load.client.liars or None

    async def _led_by_another(self, liar: str) -> dict[str, Any] | None:
        status = await self.cluster.status()
        return status if status["primary"] not in (None, liar) else None


async def run(cluster: Cluster) -> list[tuple[str, str]]:
    """Play the whole story. Raises DemoFailedError and errors of the client."""
    await asyncio.to_thread(cluster.up)
    async with Client.from_directory(cluster.root) as client:
        load = Load(client)
        story = Story(cluster, load)
        async with load.running():
            await story.write_and_read()
            killed = await story.kill_the_primary()
        await story.caught_up(killed)
        async with load.running():
            liar = await story.let_the_next_primary_lie()
        others = set(client.liars) - {liar}
        if others:
            raise DemoFailedError(f"honest members were called liars: {', '.join(sorted(others))}")
        return story.rows


@click.command()
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=Path("examples/quickstart.yaml"),
    show_default=True,
    help="The manifest of the cluster to show.",
)
def demo(file: Path) -> None:
    """Watch four replicas agree, one killed, one lying."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it tears down as well
    logging.getLogger("dwcp").addHandler(logging.NullHandler())  # lies are told by the table
    root = Path(tempfile.mkdtemp(prefix="dwcp-demo-"))
    cluster = Cluster(file, root)
    click.echo(f"A cluster from {file}, in {root}:")
    failure: str | None = None
    try:
        rows = asyncio.run(run(cluster))
    except (DemoFailedError, LocalError, errors.DWCPError, subprocess.TimeoutExpired) as error:
        failure = f"{type(error).__name__}: {error}"
        _print_failure(root, failure, file)
    finally:
        failure = _tear_down(cluster) or failure
    if failure is not None:
        raise click.exceptions.Exit(1)
    width = max(len(what) for what, _ in rows)
    click.echo("\n" + "\n".join(f"{what.ljust(width)}  {figures}" for what, figures in rows))
    click.echo(f"\nAll of it was checked, in {time.monotonic() - began:.0f} s.")


def _tear_down(cluster: Cluster) -> str | None:
    """Stop everything and remove the directory; returns what could not be done."""
    try:
        cluster.down()
    except (DemoFailedError, subprocess.TimeoutExpired) as error:
        click.echo(
            f"Could not stop the cluster; its files stay in {cluster.root}: {error}", err=True
        )
        return str(error)
    shutil.rmtree(cluster.root)
    return None


def _print_failure(root: Path, failure: str, file: Path) -> None:
    click.echo(f"\nThe demo failed: {failure}\n", err=True)
    for path in (root / "supervisor.log", *sorted((root / "logs").glob("*.log"))):
        click.echo(f"--- {path.name}", err=True)
        click.echo("\n".join(last_lines(path, 12)), err=True)
    click.echo(f"\nRepeat it: dwcp demo --file {file}", err=True)
