"""`dwcp sim`: simulated lives of a cluster, each fixed by its seed."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dwcp_replica.sim.run import Report


def commit() -> str:
    """The commit of the source tree this runs from, or `unknown` outside one."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git the user has
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


@click.command(name="sim")
@click.option("--seed", type=int, help="The life to live (default: a new one).")
@click.option("--count", default=1, show_default=True, help="Lives, from the seed on.")
@click.option("--replicas", type=click.Choice(["4", "7"]), help="Members (default: by the seed).")
@click.option("--operations", default=20, show_default=True, help="Client operations in a life.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def sim(seed: int | None, count: int, replicas: str | None, operations: int, output: str) -> None:
    """Run the real engine in virtual time, with faults and liars, and check every step."""
    from dwcp_replica.sim.checks import Violation
    from dwcp_replica.sim.run import simulate

    began_s = time.monotonic()
    lives: list[Report] = []
    first = secrets.randbits(32) if seed is None else seed
    n = int(replicas) if replicas else None
    for life in range(first, first + count):
        again = f"dwcp sim --seed {life} --operations {operations}"
        again += f" --replicas {n}" if n else ""
        click.echo(f"replay: {again}  # at {commit()}", err=True)
        try:
            report = simulate(life, n, operations)
        except (Violation, AssertionError) as broken:
            click.echo(f"seed {life}: {type(broken).__name__}: {broken}", err=True)
            click.echo(f"replay: {again}", err=True)
            sys.exit(1)
        lives.append(report)
        if output == "json":
            click.echo(json.dumps(asdict(report)))
            continue
        click.echo(
            f"seed {report.seed}: n={report.n}, {report.operations} operations answered, "
            f"{report.executed} entries final, {report.views} views, {report.crashes} crashes, "
            f"liars {', '.join(report.liars) or 'none'}, {report.virtual_ms} virtual ms"
        )
    if count > 1:
        summary = {
            "lives": len(lives),
            "violations": 0,
            "with_view_changes": sum(life.views > 1 for life in lives),
            "with_crashes": sum(life.crashes > 0 for life in lives),
            "with_liars": sum(bool(life.liars) for life in lives),
            "entries_final": sum(life.executed for life in lives),
            "steps": sum(life.steps for life in lives),
            "seconds": round(time.monotonic() - began_s, 1),
            "commit": commit(),
        }
        click.echo(json.dumps(summary) if output == "json" else _sentence(summary))


def _sentence(summary: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items())
