"""Four replica processes with many keys: memory, puts, ranges, compaction, and a restart.

    python benchmarks/million.py --keys 1000000 --write docs/memory.md

Keys of 24 and values of 256 bytes. What a put among many keys costs is the processor time of all
replicas; it is compared with that among 10,000, in the same run. Anonymous memory as in memory.py;
resident memory also counts pages of the state's file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dwcp.client import Client
from dwcp.wire.operations import Failure, PutRequest
from dwcp.wire.records import Parameters
from dwcp_replica.sim.page import rewritten
from replica.harness import Http, Operator, Place, Processes

FEW = 10_000
TOGETHER = 64
TASKS = 16
PUTS = 40_000
PAGE = 1000
MIB = 1024 * 1024
READY_S = 120.0


def key(number: int) -> bytes:
    return b"million/%016d" % number


async def put_all(client: Client, numbers: Sequence[int], tasks: int) -> float:
    """Put these keys; the seconds it took."""
    left = iter([numbers[i : i + TOGETHER] for i in range(0, len(numbers), TOGETHER)])
    dice = random.Random(1)

    async def work() -> None:
        for part in left:
            puts = [PutRequest(key(number), dice.randbytes(256)) for number in part]
            found = await client.execute(*puts, timeout_ms=120_000)
            assert not any(isinstance(result, Failure) for result in found.results)

    began_s = time.monotonic()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return time.monotonic() - began_s


async def cost_us(processes: Processes, client: Client, numbers: Sequence[int]) -> float:
    """Processor time of all replicas for each of these puts."""
    before_s = cpu_s(processes)
    await put_all(client, numbers, TASKS)
    return (cpu_s(processes) - before_s) / len(numbers) * 1e6


def cpu_s(processes: Processes) -> float:
    times = [psutil.Process(p.pid).cpu_times() for p in processes._running.values()]
    return sum(used.user + used.system for used in times)


async def range_all(client: Client) -> tuple[int, float]:
    """Page through all keys: how many there are, and the seconds it took."""
    began_s = time.monotonic()
    start, end, found = b"million/", b"million0", 0
    while True:
        page = await client.range(start, end, limit=PAGE, timeout_ms=120_000)
        found += len(page.kvs)
        if not page.more:
            return found, time.monotonic() - began_s
        start = page.kvs[-1].key + b"\0"


def memory(processes: Processes) -> tuple[float, float]:
    """Anonymous and resident MiB of the replica that takes most."""
    anonymous, resident = 0, 0
    for process in processes._running.values():
        status = Path(f"/proc/{process.pid}/status").read_text()
        sizes = dict(
            line.split(":")[:2] for line in status.splitlines() if line.startswith(("Rss", "VmRSS"))
        )
        anonymous = max(anonymous, int(sizes["RssAnon"].split()[0]) * 1024)
        resident = max(resident, int(sizes["VmRSS"].split()[0]) * 1024)
    return anonymous / MIB, resident / MIB


async def restart(processes: Processes, place: Place) -> float:
    """Kill a replica and start it again; the seconds until it says that it is ready."""
    processes.kill(place)
    began_s = time.monotonic()
    processes.start(place)
    async with aiohttp.ClientSession() as http, asyncio.timeout(READY_S):
        while True:
            try:
                async with http.get(f"{place.url}/readyz") as answer:
                    if answer.status == 200:
                        return time.monotonic() - began_s
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def measure(processes: Processes, keys: int) -> list[tuple[str, str]]:
    """What was seen, by name."""
    async with Http() as http:
        operator = Operator(http, [processes.client])
        parameters = Parameters(checkpoint_interval=100, request_timeout_ms=10_000)
        genesis = await operator.bootstrap(processes.places, parameters)
    seen: list[tuple[str, str]] = []
    dice = random.Random(2)

    def note(name: str, value: str) -> None:
        seen.append((name, value))
        print(f"{name}: {value}", flush=True)

    async with Client.connect(genesis, processes.client) as client:
        await put_all(client, range(FEW), TASKS)
        few_us = await cost_us(processes, client, [dice.randrange(FEW) for _ in range(PUTS)])
        note(f"processor us of all replicas for a put among {FEW:,} keys", f"{few_us:.0f}")
        filled_s = await put_all(client, range(FEW, keys), TASKS)
        note(f"puts a second while filling up to {keys:,}", f"{(keys - FEW) / filled_s:,.0f}")
        many_us = await cost_us(processes, client, [dice.randrange(keys) for _ in range(PUTS)])
        note(f"processor us of all replicas for a put among {keys:,} keys", f"{many_us:.0f}")
        note("ratio (mark 1.3)", f"{many_us / few_us:.2f}")
        count, range_s = await range_all(client)
        assert count == keys, f"{count} keys were found"
        note(f"s to range over all keys, {PAGE:,} in a page", f"{range_s:.1f}")
        began_s = time.monotonic()
        status = await client.range(b"million/", count_only=True, timeout_ms=120_000)
        await client.compact(status.header.revision, timeout_ms=120_000)
        note("s to agree on a compaction", f"{time.monotonic() - began_s:.2f}")
        anonymous, resident = memory(processes)
        note("MiB of anonymous memory, at most (mark 1,024)", f"{anonymous:,.0f}")
        note("MiB of resident memory with the state's file, at most", f"{resident:,.0f}")
        ready_s = await restart(processes, processes.places[3])
        note("s from SIGKILL and start to ready (mark 15)", f"{ready_s:.1f}")
    return seen


def page(seen: list[tuple[str, str]], keys: int) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    about = (
        f"{keys:,} keys, values of 256 bytes, four replica processes and the client on one machine "
        f"with {os.cpu_count()} cores, at commit {commit} (`python benchmarks/million.py --keys "
        f"{keys} --write docs/memory.md`)."
    )
    return "\n".join(
        [about, "", "| what | seen |", "|---|---|", *(f"| {n} | {v} |" for n, v in seen)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
        processes.start_all()
        seen = asyncio.run(measure(processes, options.keys))
    if options.write is not None:
        text = options.write.read_text()
        options.write.write_text(rewritten(text, "million", page(seen, options.keys)))


if __name__ == "__main__":
    assert psutil.LINUX, "reads /proc"
    main()
