"""Rounds: in each, every system is loaded in turn with each number of clients.

PYTHONPATH=tests:benchmarks python -m compare --write docs
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from compare import loads, page
from compare.loads import Figure, Ran, measured
from compare.systems import Comet, Dwcp, Etcd, System

CLIENTS = (1, 64, 256, 1000)
FOLDED_CLIENTS = 256
PROCESSES = 64
ETCD_GUESS = {1: 300, 64: 2000, 256: 3500, 1000: 5000}
"""Puts in a second, from which the first totals are made; later ones from what was seen."""


class Comparison:
    """All systems at once; those that are not loaded idle."""

    def __init__(self, place: Path, seconds: float) -> None:
        self.seconds = seconds
        self.figures: list[Figure] = []
        self.raft, self.pbft = Dwcp(place / "raft", "raft"), Dwcp(place / "pbft", "pbft")
        self.etcd, self.comet = Etcd(place / "etcd"), Comet(place / "comet")
        self.systems: dict[str, System] = {}
        self._rates: dict[tuple[str, int], float] = {}

    async def start(self) -> None:
        for cluster in (self.raft, self.pbft, self.etcd, self.comet):
            system = await cluster.start()
            self.systems[system.name] = system

    def close(self) -> None:
        for cluster in (self.raft, self.pbft, self.etcd, self.comet):
            cluster.close()

    async def load(
        self, name: str, load: str, clients: int, work: Coroutine[Any, Any, Ran]
    ) -> None:
        """One load; one that fails is said and left out."""
        try:
            figure = await measured(self.systems[name], load, clients, work)
        except (AssertionError, TimeoutError) as error:
            print(f"{name}, {load}, {clients} clients: {error!r:.300}", flush=True)
            return
        self.figures.append(figure)
        print(figure, flush=True)

    async def puts(self, name: str, clients: int) -> None:
        """The load that the marks are about."""
        run: dict[str, Callable[[], Coroutine[Any, Any, Ran]]] = {
            "DWCP Datacenter": lambda: loads.dwcp(self.raft.directory, clients, self.seconds),
            "DWCP Internet": lambda: loads.dwcp(self.pbft.directory, clients, self.seconds),
            "etcd": lambda: self._etcd(self.etcd.endpoints, clients),
            "CometBFT": lambda: loads.comet(self.comet, clients, self.seconds),
        }
        await self.load(name, "puts", clients, run[name]())

    async def _etcd(self, endpoints: list[str], clients: int, together: int = 1) -> Ran:
        place = (endpoints[0], clients * together)
        total = int(self._rates.get(place, ETCD_GUESS.get(clients, 10_000)) * self.seconds)
        ran = await loads.etcd(endpoints, clients, total, together=together, seconds=self.seconds)
        self._rates[place] = ran.ops_per_second
        return ran

    async def round(self, number: int) -> None:
        """The order is turned round from round to round."""
        names = list(self.systems)
        for clients in CLIENTS:
            for name in names if number % 2 else reversed(names):
                await self.puts(name, clients)
        folded = [f.folded for f in self.figures if f.system == "DWCP Datacenter"
                  and f.clients == FOLDED_CLIENTS]  # fmt: skip
        together = max(2, min(128, round(folded[-1]))) if folded else 32
        await self.load(
            "etcd",
            f"transactions of {together} puts",
            16,
            self._etcd(self.etcd.endpoints, 16, together),
        )
        for clients in (64, FOLDED_CLIENTS):
            alone = loads.dwcp(self.raft.directory, clients, self.seconds, "--no-fold")
            await self.load("DWCP Datacenter", "puts, not folded", clients, alone)

    async def once(self) -> None:
        """What is reported without a mark."""
        address = [self.raft.start_gateway()]
        await asyncio.sleep(3)
        await self.load(
            "DWCP Datacenter",
            "etcd's benchmark against the gateway",
            64,
            loads.etcd(address, 64, int(400 * self.seconds), seconds=self.seconds),
        )
        await self.load(
            "DWCP Datacenter",
            f"{PROCESSES} client processes",
            PROCESSES,
            loads.dwcp_processes(self.raft.directory, PROCESSES, self.seconds),
        )


def about(comparison: Comparison, rounds: int) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), everything on them",
        "rounds": f"{rounds}, interleaved, {comparison.seconds:g} s a load",
        "value": "256 bytes on 1,000 keys; CometBFT's transactions are as long",
        "durability": "every system waits for the disk before it answers",
        "commit": commit,
        "systems": {system.name: system.about for system in comparison.systems.values()},
    }


async def compare(options: argparse.Namespace, place: Path) -> None:
    comparison = Comparison(place, options.seconds)
    end_s = time.monotonic() + options.minutes * 60
    rounds = 0
    try:
        await comparison.start()
        await comparison.once()
        took_s = 0.0
        while rounds < options.rounds and time.monotonic() + took_s < end_s:
            began_s = time.monotonic()
            await comparison.round(rounds)
            rounds, took_s = rounds + 1, time.monotonic() - began_s
        if options.write is not None:
            page.write(options.write, comparison.figures, about(comparison, rounds))
    finally:
        comparison.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a load")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="no round begins that ends later"
    )
    parser.add_argument("--place", type=Path, help="where the data lies: the disk that is measured")
    parser.add_argument("--write", type=Path, help="a folder with performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as directory:
        asyncio.run(compare(options, Path(directory)))


if __name__ == "__main__":
    main()
