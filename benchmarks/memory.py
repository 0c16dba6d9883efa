"""Memory, log and state of four replica processes over many operations.

    python benchmarks/memory.py --operations 1000000 --write docs/memory.md

Writers share one client and overwrite a fixed set of keys; the history is compacted as a user
would do it. What counts is anonymous memory (`RssAnon`): pages of the state's file belong to the
kernel's cache, which takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dwcp.client import Client
from dwcp.wire.operations import Failure, PutRequest
from dwcp.wire.records import Parameters
from dwcp_replica.sim.page import rewritten
from replica.harness import Http, Operator, Processes

KEYS = 10_000
VALUE = bytes(256)
TOGETHER = 64
COMPACT_EVERY = 50_000
SAMPLES = 20
MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What the replicas took after so many operations; bytes, the largest and the smallest."""

    operations: int
    seconds: float
    anonymous: tuple[int, int]
    log: tuple[int, int]
    state: tuple[int, int]


def anonymous_bytes(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def size_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def extremes(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)


class Writers:
    """Tasks that write until so many operations are answered."""

    def __init__(self, client: Client, operations: int) -> None:
        self.client = client
        self.left = operations
        self.done = 0
        self.compacted = 0

    async def write(self, number: int) -> None:
        at = number
        while self.left > 0:
            self.left -= TOGETHER
            puts = [PutRequest(b"k%06d" % ((at + n) % KEYS), VALUE) for n in range(TOGETHER)]
            at += 7919
            found = await self.client.execute(*puts, timeout_ms=120_000)
            assert not any(isinstance(result, Failure) for result in found.results)
            self.done += TOGETHER
            if found.header.revision - self.compacted >= COMPACT_EVERY:
                self.compacted = found.header.revision
                await self.client.compact(self.compacted - KEYS, timeout_ms=120_000)


def sample(processes: Processes, done: int, since_s: float) -> Sample:
    return Sample(
        done,
        time.monotonic() - since_s,
        extremes([anonymous_bytes(process) for process in processes._running.values()]),
        extremes([size_bytes(place.data / "wal") for place in processes.places]),
        extremes([size_bytes(place.data / "state") for place in processes.places]),
    )


async def measure(processes: Processes, operations: int, tasks: int) -> list[Sample]:
    """Samples at even steps of operations, the first after a twentieth of them."""
    async with Http() as http:
        operator = Operator(http, [processes.client])
        parameters = Parameters(checkpoint_interval=100, request_timeout_ms=10_000)
        genesis = await operator.bootstrap(processes.places, parameters)
    samples: list[Sample] = []
    async with Client.connect(genesis, processes.client) as client:
        writers = Writers(client, operations)
        since_s = time.monotonic()
        work = [asyncio.create_task(writers.write(n)) for n in range(tasks)]
        for step in range(1, SAMPLES + 1):
            while writers.done < operations * step // SAMPLES and not all(t.done() for t in work):
                await asyncio.sleep(0.2)
            samples.append(sample(processes, writers.done, since_s))
            print(line(samples[-1]), flush=True)
        await asyncio.gather(*work)
    return samples


def line(one: Sample) -> str:
    spans = ((one.anonymous, one.log, one.state),)
    cells = [f"{low / MIB:.0f} to {high / MIB:.0f}" for span in spans for low, high in span]
    return f"| {one.operations:,} | {one.seconds:.0f} | {' | '.join(cells)} |"


def growth(samples: list[Sample]) -> float:
    """Largest memory in the last quarter over that in the second, as a ratio."""
    quarter = len(samples) // 4
    early = max(one.anonymous[1] for one in samples[quarter : 2 * quarter])
    return max(one.anonymous[1] for one in samples[-quarter:]) / early


def page(samples: list[Sample], commit: str) -> str:
    total = samples[-1]
    about = (
        f"{total.operations:,} puts of {len(VALUE)} bytes on {KEYS:,} keys, {TOGETHER} in an "
        f"envelope, four replica processes and the client on one machine with {os.cpu_count()} "
        f"cores, in {total.seconds:.0f} s, at commit {commit}. Largest memory in the last quarter "
        f"over that in the second: {growth(samples):.2f}."
    )
    head = "| operations | seconds | anonymous memory, MiB | log, MiB | state and snapshot, MiB |"
    return "\n".join([about, "", head, "|---|---|---|---|---|", *map(line, samples)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--growth-max", type=float, default=1.25)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
        processes.start_all()
        samples = asyncio.run(measure(processes, options.operations, options.tasks))
    print(page(samples, commit))
    if options.write is not None:
        text = options.write.read_text()
        options.write.write_text(rewritten(text, "memory", page(samples, commit)))
    if growth(samples) > options.growth_max:
        sys.exit(f"memory grew by a factor of {growth(samples):.2f}: more than it may")


if __name__ == "__main__":
    assert psutil.LINUX, "reads /proc"
    main()
