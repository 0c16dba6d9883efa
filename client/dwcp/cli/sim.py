"""`dwcp sim`: simulated lives of a cluster, each fixed by its seed."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from dataclasses import asdict

import click


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
        if output == "json":
            click.echo(json.dumps(asdict(report)))
            continue
        click.echo(
            f"seed {report.seed}: n={report.n}, {report.operations} operations answered, "
            f"{report.executed} entries final, {report.views} views, {report.crashes} crashes, "
            f"liars {', '.join(report.liars) or 'none'}, {report.virtual_ms} virtual ms"
        )
