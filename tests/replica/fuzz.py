"""Mutates many frames of every kind and writes what became of them into a page.

PYTHONPATH=tests python -m replica.fuzz --frames 100000 --write docs/assurance.md
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import click

from dwcp.cli.sim import commit
from dwcp_replica.sim.page import rewritten
from replica.core.interference import Interference
from replica.mutations import OUTCOMES, Tally
from replica.strangers import targets


def between_members(tally: Tally, seed: int) -> None:
    """Every kind of message between members."""
    Interference(tally, Random(seed)).run()


def from_strangers(tally: Tally, seed: int) -> None:
    """Every kind of frame from clients, dialers, members and their creator."""

    async def run() -> None:
        with TemporaryDirectory() as path:
            draw = Random(seed)
            for target in targets(Path(path)):
                target.disturb(tally, draw)

    asyncio.run(run())


def table(tallies: dict[str, Tally], seed: int, seconds: float, at: str) -> str:
    """The results as Markdown."""
    kinds = sum(len(tally.counts) for tally in tallies.values())
    frames = next(iter(tallies.values())).frames
    head = (
        f"{kinds} kinds, {frames:,} mutated frames of each: no crash, no change of state, each one "
        f"accounted for ({seconds:.0f} s on one core, seed {seed}, at commit {at}; "
        f"`PYTHONPATH=tests python -m replica.fuzz --frames {frames} --write docs/assurance.md`)."
    )
    names = " | ".join(OUTCOMES)
    lines = [head, "", f"| from | kind | {names} |", f"|---|---|{'---|' * len(OUTCOMES)}"]
    for origin, tally in tallies.items():
        for kind, counts in sorted(tally.counts.items()):
            cells = " | ".join(f"{counts[outcome]:,}" for outcome in OUTCOMES)
            lines.append(f"| {origin} | {kind} | {cells} |")
    return "\n".join(lines)


@click.command()
@click.option("--frames", default=1000, show_default=True, help="Mutated frames of each kind.")
@click.option("--seed", default=20261122, show_default=True)
@click.option("--write", type=click.Path(path_type=Path), help="Put the table into this page.")
def main(frames: int, seed: int, write: Path | None) -> None:
    """Mutate frames of every kind; stop at the first that does harm."""
    began_s, at = time.monotonic(), commit()
    tallies = {"a member": Tally(frames), "a stranger": Tally(frames)}
    between_members(tallies["a member"], seed)
    from_strangers(tallies["a stranger"], seed)
    text = table(tallies, seed, time.monotonic() - began_s, at)
    if write is None:
        click.echo(text)
    else:
        write.write_text(rewritten(write.read_text(), "fuzz", text))


if __name__ == "__main__":
    main()
