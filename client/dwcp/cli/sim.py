"""`dwcp sim`: simulated lives of a cluster, each fixed by its seed; campaigns; planted bugs."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dwcp.wire.records import Protocol
    from dwcp_replica.sim.campaign import Failed
    from dwcp_replica.sim.explore import Explored
    from dwcp_replica.sim.planting import Caught
    from dwcp_replica.sim.run import Report
    from dwcp_replica.sim.scenario import Scenario

REPLICAS = click.Choice(["1", "3", "4", "5", "7", "10", "13"])
PROTOCOL = click.Choice(["pbft", "raft"])


def commit() -> str:
    """The commit of the source tree this runs from, or `unknown` outside one."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git the user has
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


@click.group(name="sim", invoke_without_command=True)
@click.option("--seed", type=int, help="The life to live (default: a new one).")
@click.option("--count", default=1, show_default=True, help="Lives, from the seed on.")
@click.option("--replicas", type=REPLICAS, help="Members (default: by the seed).")
@click.option("--operations", default=20, show_default=True, help="Client operations in a life.")
@click.option("--protocol", type=PROTOCOL, help="Of the epoch (default: by the seed).")
@click.option("--faults", help="Only these of the seed's faults, by number: 0,2 or none.")
@click.option("--liars", help="These liars and no others: 0:ghost,3:twins or none.")
@click.option("--calm", is_flag=True, help="Good links from the start.")
@click.option("--shrink", is_flag=True, help="Look for the smallest life that fails like this.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def sim(
    context: click.Context,
    seed: int | None,
    count: int,
    replicas: str | None,
    operations: int,
    protocol: Protocol | None,
    faults: str | None,
    liars: str | None,
    calm: bool,
    shrink: bool,
    output: str,
) -> None:
    """Run the real engine in virtual time, with faults and liars, and check every step."""
    if context.invoked_subcommand is not None:
        return
    from dwcp_replica.sim.campaign import attempt, replay
    from dwcp_replica.sim.scenario import derive
    from dwcp_replica.sim.shrink import calm as calmed

    began_s = time.monotonic()
    first = secrets.randbits(32) if seed is None else seed
    n = int(replicas) if replicas else None
    lives: list[Report] = []
    for life in range(first, first + count):
        scenario = _restricted(derive(life, n, operations, protocol), faults, liars)
        scenario = calmed(scenario) if calm else scenario
        click.echo(f"replay: {replay(scenario, n, protocol)}  # at {commit()}", err=True)
        result = attempt(scenario)
        if isinstance(result, str):
            _fail(scenario, result, n, protocol, shrink=shrink)
            sys.exit(1)
        lives.append(result)
        click.echo(json.dumps(asdict(result)) if output == "json" else _line(result))
    if count > 1:
        summary = _summary(lives) | {"seconds": round(time.monotonic() - began_s, 1)}
        click.echo(json.dumps(summary) if output == "json" else _sentence(summary))


def _restricted(scenario: Scenario, faults: str | None, liars: str | None) -> Scenario:
    from dwcp_replica.sim.registry import LIARS

    try:
        if faults is not None:
            kept = [] if faults == "none" else [int(at) for at in faults.split(",")]
            scenario = replace(scenario, faults=tuple(scenario.faults[at] for at in kept))
        if liars is not None:
            pairs = [] if liars == "none" else [one.split(":") for one in liars.split(",")]
            scenario = replace(scenario, liars={int(m): lie for m, lie in pairs})
    except (ValueError, IndexError):
        raise click.UsageError(
            "--faults takes numbers below the seed's count of faults, like 0,2; --liars takes "
            "pairs like 0:ghost,3:twins; both take none"
        ) from None
    unknown = sorted(set(scenario.liars.values()) - set(LIARS))
    strangers = [m for m in scenario.liars if not 0 <= m < scenario.n]
    if unknown or strangers:
        raise click.UsageError(
            f"--liars: members are 0 to {scenario.n - 1}, lies are {', '.join(sorted(LIARS))}"
        )
    if len(scenario.faulty) > bearable(scenario):
        raise click.UsageError(
            f"members {sorted(scenario.faulty)} would be faulty, and {scenario.n} replicas bear "
            f"{bearable(scenario)}: leave faults or liars out"
        )
    return scenario


def bearable(scenario: Scenario) -> int:
    """How many members may lie or forget."""
    return (scenario.n - 1) // 3 if scenario.trust == "Byzantine" else 0


def _fail(
    scenario: Scenario, what: str, n: int | None, protocol: Protocol | None, *, shrink: bool
) -> None:
    from dwcp_replica.sim.campaign import replay
    from dwcp_replica.sim.shrink import shrink as shrunk

    click.echo(f"seed {scenario.seed}: {what}", err=True)
    if shrink:
        scenario, what = shrunk(scenario, what)
        click.echo(f"shrunk: {what}", err=True)
    click.echo(f"replay: {replay(scenario, n, protocol)}", err=True)


def _line(report: Report) -> str:
    return (
        f"seed {report.seed}: {report.protocol}, n={report.n}, "
        f"{report.operations} operations answered, "
        f"{report.executed} entries final, {report.views} views, {report.crashes} crashes, "
        f"faults {', '.join(report.faults) or 'none'}, liars {', '.join(report.liars) or 'none'}, "
        f"{report.epochs} epochs, {report.virtual_ms} virtual ms"
    )


def _summary(lives: list[Report]) -> dict[str, object]:
    return {
        "lives": len(lives),
        "violations": 0,
        "with_view_changes": sum(life.views > 1 for life in lives),
        "with_crashes": sum(life.crashes > 0 for life in lives),
        "with_liars": sum(bool(life.liars) for life in lives),
        "entries_final": sum(life.executed for life in lives),
        "steps": sum(life.steps for life in lives),
        "commit": commit(),
    }


def _sentence(summary: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items())


@sim.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Wall-clock time.")
@click.option("--seed", type=int, help="The first life (default: a new one).")
@click.option("--replicas", type=REPLICAS, help="Members (default: by the seed).")
@click.option("--operations", default=20, show_default=True, help="Client operations in a life.")
@click.option("--write", type=click.Path(path_type=Path), help="Put the summary into this page.")
@click.option("--protocol", type=PROTOCOL, help="Of the epoch (default: by the seed).")
@click.option("--short", is_flag=True, help="4 members, one crash or silent primary, no liars.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def campaign(
    seconds: float,
    seed: int | None,
    replicas: str | None,
    operations: int,
    write: Path | None,
    protocol: Protocol | None,
    short: bool,
    output: str,
) -> None:
    """Live one life after the other until the time is over."""
    if short and (write or replicas or protocol or operations != 20):
        raise click.UsageError("--short fixes the rest of a life: give only --seconds and --seed")
    from dwcp_replica.sim.campaign import campaign as run
    from dwcp_replica.sim.campaign import write_summary

    first = secrets.randbits(32) if seed is None else seed
    n = int(replicas) if replicas else None
    began_s, begun_at = time.monotonic(), commit()

    def failed(found: Failed) -> None:
        click.echo(f"seed {found.seed}: {found.what}", err=True)
        click.echo(f"replay: {found.replay}", err=True)

    def enough(_: int) -> bool:
        return time.monotonic() - began_s >= seconds

    summary = run(first, enough, failed, n, operations, protocol, brief=short)
    spent_s = time.monotonic() - began_s
    shown = asdict(summary) | {
        "seconds": round(spent_s, 1),
        "runs_per_minute": round(60 * summary.runs / spent_s) if spent_s else 0,
        "commit": begun_at,
    }
    click.echo(json.dumps(shown) if output == "json" else _sentence(shown))
    if write is not None:
        write.write_text(write_summary(write.read_text(), summary, spent_s, begun_at))
    sys.exit(1 if summary.violations else 0)


@sim.command()
@click.option("--only", multiple=True, help="Plant this bug; may be repeated (default: all).")
@click.option("--seconds", type=float, default=460.0, show_default=True, help="Stop after this.")
@click.option("--write", type=click.Path(path_type=Path), help="Put the table into this page.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def planted(only: tuple[str, ...], seconds: float, write: Path | None, output: str) -> None:
    """Plant known bugs in the engine, one after the other, and see each of them caught."""
    from dwcp_replica.sim.planted import PLANTED
    from dwcp_replica.sim.planting import hunt, write_table

    unknown = sorted(set(only) - set(PLANTED))
    if unknown:
        raise click.UsageError(f"no planted bug {unknown[0]!r}: they are {', '.join(PLANTED)}")
    if write is not None and only:
        raise click.UsageError("--write needs the whole list: leave --only out")
    began_s = time.monotonic()
    found: list[Caught] = []
    for name in only or PLANTED:
        bug_s = time.monotonic()
        caught = hunt(PLANTED[name], lambda: time.monotonic() - began_s > seconds)
        caught = replace(caught, seconds=round(time.monotonic() - bug_s, 2))
        found.append(caught)
        if output == "text":
            click.echo(
                f"{'caught' if caught.caught else 'NOT CAUGHT':10} {caught.seconds:6.1f} s "
                f"{caught.seeds:4} seeds  {name}: {caught.by or PLANTED[name].what}"
            )
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in found]))
    if write is not None:
        write.write_text(write_table(write.read_text(), found, commit()))
    sys.exit(0 if all(one.caught for one in found) else 1)


@sim.command()
@click.option("--write", type=click.Path(path_type=Path), help="Put table and picture there.")
def latency(write: Path | None) -> None:
    """From asking to the answer over wide-area links, beside what five one-way delays take."""
    from dwcp_replica.sim.latency import rows
    from dwcp_replica.sim.latency_page import picture, table
    from dwcp_replica.sim.page import rewritten

    found = rows()
    if write is None:
        click.echo(table(found))
        return
    page = write / "latency.md"
    page.write_text(rewritten(page.read_text(), "latency", table(found)))
    (write / "latency.svg").write_text(picture(found))


@sim.command()
@click.argument("scenes", nargs=-1)
@click.option("--long", "at_length", is_flag=True, help="To each scene's larger bound.")
@click.option("--depth", type=click.IntRange(1), help="So many steps in a row that others see.")
@click.option("--delays", type=click.IntRange(0), help="So many disturbances of a whole run.")
@click.option("--states", type=click.IntRange(1), help="So many states of the cluster.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def explore(
    scenes: tuple[str, ...],
    at_length: bool,
    depth: int | None,
    delays: int | None,
    states: int | None,
    output: str,
) -> None:
    """Explore every order in which messages may arrive, to a bound that is printed.

    Without SCENES all of them: `dwcp sim explore --long` takes some minutes.
    """
    from dwcp_replica.sim.scenes import SCENES
    from dwcp_replica.sim.scenes import explore as run

    unknown = sorted(set(scenes) - set(SCENES))
    if unknown:
        raise click.UsageError(f"no scene {unknown[0]!r}: they are {', '.join(SCENES)}")
    broken = False
    for name in scenes or SCENES:
        began_s = time.monotonic()
        bound = SCENES[name].long if at_length else SCENES[name].short
        bound = replace(
            bound,
            depth_max=depth or bound.depth_max,
            delays_max=bound.delays_max if delays is None else delays,
            states_max=states or bound.states_max,
        )
        found = run(name, bound)
        broken = broken or bool(found.violation)
        if output == "json":
            seconds = round(time.monotonic() - began_s, 1)
            click.echo(json.dumps(asdict(found) | {"seconds": seconds, "commit": commit()}))
        else:
            click.echo(f"{name}: {SCENES[name].what}\n  {_explored(found)}")
    sys.exit(1 if broken else 0)


def _explored(found: Explored) -> str:
    """What an exploration has seen, or the inputs that lead to what was broken."""
    bound = found.bound
    limit = f"{bound.states_max} states, {bound.depth_max} steps, {bound.delays_max} disturbances"
    end = "all of it" if found.complete else "all within the bound"
    end = end if found.exhausted else "not all within the bound"
    told = (
        f"{found.states} states, {found.transitions} transitions, depth {found.depth}; "
        f"{found.member_states} states of members, {found.steps} steps of the engine, "
        f"{found.messages} inputs; {found.epochs} epochs, {found.final} entries final; "
        f"bound {limit}: {end}"
    )
    if not found.violation:
        return told
    return "\n  ".join((told, f"BROKEN: {found.violation}, after", *found.trace))
