"""What the brief asked of each mode, beside what four processes do over links of such a length.

    PYTHONPATH=tests python benchmarks/targets.py --seconds 15 --write docs/modes.md

Four members run on this machine as processes; where sites are apart, a proxy before every peer
port holds everything back (the kernel may not delay packets here). `dwcp bench write` loads them,
with its client beside a member: once with one client, for the time that one operation takes, and
once with many, for how many a second there can be. Every answer is verified by f+1 replies.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dwcp.wire.records import Parameters, Protocol
from dwcp_replica.sim.page import rewritten
from replica.harness import Http, Operator, Processes
from replica.proxy import Distance, Proxies

COMMAND = [sys.executable, "-c", "from dwcp.cli import main; main()"]
MANY = 512
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Target:
    """What the brief promised of a mode: operations a second, and milliseconds for one.

    `most_ms` None: no bound. A rate or a time better than the brief's range meets it too.
    """

    words: str
    least_per_s: float
    most_ms: float


@dataclass(frozen=True)
class Site:
    """Where the members of a mode stand; the round trip between any two, None for loopback."""

    mode: str
    name: str
    round_trip_ms: float | None
    protocol: Protocol
    target: Target


SITES = (
    Site("Datacenter", "one data centre: loopback", None, "raft",
         Target("> 10,000 ops/s, < 100 ms", 10_000, 100)),
    Site("Hybrid", "four cities of one country", 25, "raft",
         Target("1,000-10,000 ops/s", 1_000, 1_000)),
    Site("Internet", "four continents", 120, "pbft",
         Target("100-1,000 ops/s, 1-5 s", 100, 5_000)),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One site, measured: with one client, and with many."""

    site: Site
    one: dict[str, Any]
    many: dict[str, Any]

    @property
    def met(self) -> bool:
        """True when the many get through in time, and as often as asked for."""
        target = self.site.target
        fast = self.many["ops_per_second"] >= target.least_per_s
        return bool(fast and self.many["p99_ms"] <= target.most_ms and not self.many["errors"])

    def line(self) -> str:
        site = self.site
        apart = "-" if site.round_trip_ms is None else f"{site.round_trip_ms:g} ms"
        cells = [
            site.mode, f"{site.name}, {site.protocol}", apart,
            f"{self.one['p50_ms']:.1f}, {self.one['p99_ms']:.1f}",
            f"{self.many['ops_per_second']:,.0f}",
            f"{self.many['p50_ms']:.0f}, {self.many['p99_ms']:.0f}",
            str(self.one["errors"] + self.many["errors"]),
            site.target.words, "yes" if self.met else "no",
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


async def measured(site: Site, seconds: float) -> Row:
    """Bring four members up at a site, and load them."""
    with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
        root, places = Path(directory), processes.places
        async with contextlib.AsyncExitStack() as stack:
            if site.round_trip_ms is not None:
                distance = Distance(site.round_trip_ms / 2000)
                await stack.enter_async_context(Proxies(places, distance))
            http = await stack.enter_async_context(Http())
            processes.start_all()
            operator = Operator(http, [processes.client])
            operator.protocol = site.protocol
            parameters = Parameters(request_timeout_ms=REQUEST_TIMEOUT_MS)
            genesis = await operator.bootstrap(places, parameters)
            (root / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
            processes.client.save(root / "client.key")
            await http.all_ready(places)
            one = await asyncio.to_thread(bench, root, 1, seconds)
            many = await asyncio.to_thread(bench, root, MANY, seconds)
            row = Row(site, one, many)
            print(row.line(), flush=True)
            return row


def bench(data: Path, clients: int, seconds: float) -> dict[str, Any]:
    """The figures of `dwcp bench write`. Raises CalledProcessError when nobody answers."""
    command = [*COMMAND, "bench", "write", "--data", str(data), "-o", "json"]
    command += ["--clients", str(clients), "--seconds", str(seconds), "--warmup", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(rows: list[Row], seconds: float, commit: str) -> str:
    about = (
        f"Four members and the client on one machine with {os.cpu_count()} cores; writes of 256 "
        f"bytes for {seconds:g} s, with 1 client and with {MANY}; times are p50, p99 in ms; at "
        f"commit {commit}."
    )
    head = (
        "| mode | sites, protocol | round trip | 1 client | ops/s | "
        f"{MANY} clients | errors | the brief | met |"
    )
    return "\n".join([about, "", head, "|" + "---|" * 9, *(row.line() for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = [runner.run(measured(site, options.seconds)) for site in SITES]
    text = page(rows, options.seconds, commit)
    print(text)
    if options.write is not None:
        options.write.write_text(rewritten(options.write.read_text(), "targets", text))


if __name__ == "__main__":
    main()
