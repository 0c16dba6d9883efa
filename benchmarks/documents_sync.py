"""How long until another client sees an edit: four replicas and two clients on one machine.

PYTHONPATH=tests python benchmarks/documents_sync.py [--edits 300]
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from client.test_documents import cluster, typed
from dwcp.wire.records import Protocol


async def measure(directory: Path, protocol: Protocol, edits: int) -> list[float]:
    """Milliseconds from an edit at one client until another shows it, sorted."""
    took_ms = []
    async with cluster(directory, protocol) as here, here.client(0) as ann, here.client(1) as bob:
        mine, other = ann.doc("notes"), bob.doc("notes")
        await asyncio.gather(mine.synced(), other.synced())
        changes = other.changes()
        await anext(changes)
        for number in range(edits):
            began_s = time.perf_counter()
            typed(mine, f"{number} ")
            while other.heads != mine.heads:
                await anext(changes)
            took_ms.append((time.perf_counter() - began_s) * 1000)
        await mine.safe()
    return sorted(took_ms)


@click.command()
@click.option("--edits", default=300, show_default=True)
def main(edits: int) -> None:
    """Print p50 and p99 for both ways."""
    ways: tuple[tuple[Protocol, str], ...] = (("raft", "Datacenter"), ("pbft", "Internet"))
    click.echo("| mode | edits | p50 ms | p99 ms |\n|---|---|---|---|")
    for protocol, mode in ways:
        with TemporaryDirectory() as directory:
            took_ms = asyncio.run(measure(Path(directory), protocol, edits))
        p50, p99 = took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100]
        click.echo(f"| {mode} | {edits} | {p50:.1f} | {p99:.1f} |")


if __name__ == "__main__":
    main()
