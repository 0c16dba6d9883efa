"""How long a cluster under load does not answer: forced switches, and a leader that is killed.

    python benchmarks/switching.py --seconds 60 --kills 20 --write docs/switching.md

`dwcp up` starts four members; 64 clients that share one verifying client write without a break. In
the first part Datacenter and Internet are forced in turn; in the second, under Raft, the leader's
process is killed again and again, and the supervisor starts it anew. A pause is the longest time
without any answer from the order (or the kill) on, until a second after the next epoch has begun
(or half a second after answers have come again).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cli.steady import Steady
from dwcp.cli.admin import MODES, order_epoch
from dwcp.client import Client
from dwcp.identity import Ed25519Signer
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.sim.page import rewritten

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = 64
SETTLE_S = 1.0
SERVICE_S_MAX = 30.0
TARGETS_MS = {"switch": 300, "kill": 1000}
COMMAND = [sys.executable, "-c", "from dwcp.cli import main; main()"]


@dataclass
class Part:
    """Pauses in ms, and what the clients found amiss."""

    what: str
    pauses_ms: list[float]
    seconds: float
    operations: int
    lost: int
    repeated: int
    errors: int

    def line(self) -> str:
        found = sorted(self.pauses_ms)
        p50, p99 = (found[min(len(found) - 1, int(len(found) * p))] for p in (0.5, 0.99))
        rate = self.operations / self.seconds
        return (
            f"| {self.what} | {len(found)} | {p50:.0f} | {p99:.0f} | {found[-1]:.0f} | "
            f"{TARGETS_MS[self.what]} | {self.operations:,} ({rate:,.0f}/s) | {self.lost} | "
            f"{self.repeated} | {self.errors} |"
        )


def dwcp(data: Path, command: str, *arguments: str) -> str:
    whole = [*COMMAND, command, "--data", str(data), *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=True).stdout


async def force(data: Path, client: Client, mode: str) -> int:
    """Force a mode; the epoch that began."""
    signer = Ed25519Signer.load(data / "admin.key")

    def change(order: AdminSwitch) -> AdminSwitch:
        return msgspec.structs.replace(order, protocol=MODES[mode], hold="force")

    record = await order_epoch(
        client.genesis, signer, SERVICE_S_MAX, change, lambda r: r.forced == MODES[mode]
    )
    assert record is not None, f"no epoch of {mode} began"
    return record.epoch


async def switches(data: Path, seconds: float) -> Part:
    pauses: list[float] = []
    async with Client.from_directory(data) as client:
        load = Steady(client, CLIENTS, "switch")
        load.begin()
        await asyncio.sleep(SETTLE_S)
        since_s = time.monotonic()
        while time.monotonic() - since_s < seconds:
            mode = ("Datacenter", "Internet")[len(pauses) % 2]
            began_s = time.monotonic()
            epoch = await force(data, client, mode)
            await asyncio.sleep(SETTLE_S)
            pauses.append(load.pause_s(began_s, time.monotonic()) * 1000)
            print(f"epoch {epoch}, {mode}: {pauses[-1]:.0f} ms", flush=True)
        taken_s = time.monotonic() - since_s
        return await finished("switch", load, pauses, taken_s)


async def finished(what: str, load: Steady, pauses: list[float], taken_s: float) -> Part:
    await load.end()
    lost, repeated = await load.amiss()
    return Part(what, pauses, taken_s, load.operations, lost, repeated, load.errors.total())


async def kills(data: Path, count: int) -> Part:
    pauses: list[float] = []
    async with Client.from_directory(data) as client:
        await force(data, client, "Datacenter")
        load = Steady(client, CLIENTS, "kill")
        load.begin()
        since_s = time.monotonic()
        while len(pauses) < count:
            leader = await leading(data)
            began_s = time.monotonic()
            os.kill(leader["pid"], signal.SIGKILL)
            await asyncio.sleep(0.2)  # what was on its way is answered: now there is a pause
            await answers_again(load, began_s)
            pauses.append(load.pause_s(began_s, time.monotonic()) * 1000)
            print(f"killed {leader['name']}: {pauses[-1]:.0f} ms", flush=True)
        taken_s = time.monotonic() - since_s
        return await finished("kill", load, pauses, taken_s)


async def leading(data: Path) -> dict[str, Any]:
    """The leader, once all members are ready and agree on it."""
    deadline_s = time.monotonic() + SERVICE_S_MAX
    while time.monotonic() < deadline_s:
        tree = json.loads(await asyncio.to_thread(dwcp, data, "status", "-o", "json"))
        leaders = [m for m in tree["members"] if m["role"] == "leader" and m["pid"]]
        if len(leaders) == 1 and all(m["ready"] for m in tree["members"]):
            found: dict[str, Any] = leaders[0]
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"no leader within {SERVICE_S_MAX} s: {tree}")


async def answers_again(load: Steady, since_s: float) -> None:
    """Until there were answers in each of the last five tenths of a second."""
    while True:
        await asyncio.sleep(0.1)
        now_s = time.monotonic()
        assert now_s - since_s < SERVICE_S_MAX, f"no service for {SERVICE_S_MAX} s"
        if now_s - since_s > 0.7 and load.pause_s(now_s - 0.5, now_s) < 0.1:
            return


def page(parts: list[Part], commit: str) -> str:
    about = (
        f"Four members, {CLIENTS} clients, 256-byte values, all on one machine with "
        f"{os.cpu_count()} cores, at commit {commit}. Pauses in ms."
    )
    head = (
        "| what | times | p50 | p99 | longest | target p99 | operations answered | lost | "
        "repeated | errors |"
    )
    return "\n".join([about, "", head, "|" + "---|" * 10, *(part.line() for part in parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    parts: list[Part] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        data = Path(directory) / "d"
        dwcp(data, "up", "-f", str(ROOT / "examples/quickstart.yaml"), "--detach")
        try:
            if options.seconds > 0:
                parts.append(runner.run(switches(data, options.seconds)))
            if options.kills > 0:
                parts.append(runner.run(kills(data, options.kills)))
        finally:
            dwcp(data, "down")
    print(page(parts, commit))
    if options.write is not None:
        text = options.write.read_text()
        options.write.write_text(rewritten(text, "switching", page(parts, commit)))
    if any(part.lost or part.repeated for part in parts):
        sys.exit("operations were lost or repeated")


if __name__ == "__main__":
    main()
