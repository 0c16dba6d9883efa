"""`dwcp admin add|remove|replace|rotate-key`, `dwcp scale`: members of a local cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from dwcp.wire.records import EpochRecord
    from dwcp_operator.local.layout import Layout

EXIT_REFUSED: Final = 1
EXIT_BAD_MANIFEST: Final = 2
EXIT_NO_CLUSTER: Final = 3

_data = click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The local cluster's directory.",
)
_timeout = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long all of it may take; the same command goes on where one was cut off.",
)


@click.command()
@click.argument("count", type=click.IntRange(min=1))
@_data
@_timeout
def add(count: int, data_dir: Path, timeout_s: float) -> None:
    """Add COUNT new members; they learn first, then one epoch begins with all of them."""
    _change(data_dir, (), count, timeout_s)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_data
@_timeout
def remove(names: tuple[str, ...], data_dir: Path, timeout_s: float) -> None:
    """Remove members for ever: their keys are erased, their names never used again."""
    _change(data_dir, names, 0, timeout_s)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_data
@_timeout
def replace(names: tuple[str, ...], data_dir: Path, timeout_s: float) -> None:
    """Put new members in the places of others, such as one that lost its volume."""
    _change(data_dir, names, len(names), timeout_s)


@click.command("rotate-key")
@click.argument("name")
@_data
@_timeout
def rotate_key(name: str, data_dir: Path, timeout_s: float) -> None:
    """Give a member a new identity key; the old one is erased when the next epoch is settled."""
    from dwcp_operator.local.rekey import rotate

    _run(data_dir, lambda layout: rotate(layout, name, timeout_s=timeout_s, emit=click.echo))


@click.command()
@click.option("--replicas", type=click.IntRange(min=1), help="How many members there are to be.")
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Or the manifest that says so.",
)
@_data
@_timeout
def scale(replicas: int | None, file: Path | None, data_dir: Path, timeout_s: float) -> None:
    """Change the number of members: 4, 7, 10, ... (under Crash trust 1, 3, 5, ...)."""
    from dwcp_operator.local.change import scale as to
    from dwcp_operator.manifest import ManifestError, load_manifest

    if file is not None:
        try:
            wanted = load_manifest(file).spec.replicas
        except ManifestError as error:
            _fail(str(error), EXIT_BAD_MANIFEST)
        if replicas not in (None, wanted):
            raise click.UsageError(f"{file} says {wanted} replicas, and --replicas {replicas}")
        replicas = wanted
    if replicas is None:
        raise click.UsageError("give --replicas N, or -f FILE with spec.replicas")
    count = replicas
    _run(data_dir, lambda layout: to(layout, count, timeout_s=timeout_s, emit=click.echo))


def _change(data_dir: Path, leaving: tuple[str, ...], joining: int, timeout_s: float) -> None:
    from dwcp_operator.local.change import change

    _run(
        data_dir,
        lambda layout: change(layout, leaving, joining, timeout_s=timeout_s, emit=click.echo),
    )


def _run(data_dir: Path, work: Callable[[Layout], Coroutine[Any, Any, EpochRecord]]) -> None:
    from dwcp.identity import KeyFileError
    from dwcp_operator.local.errors import LocalError
    from dwcp_operator.local.layout import open_layout
    from dwcp_operator.local.ports import NoFreePortsError
    from dwcp_operator.manifest import ManifestError

    try:
        layout = open_layout(data_dir)[0]
    except (LocalError, ManifestError) as error:
        _fail(str(error), EXIT_NO_CLUSTER)
    try:
        record = asyncio.run(work(layout))
    except (LocalError, NoFreePortsError, KeyFileError) as error:
        _fail(str(error), EXIT_REFUSED)
    click.echo(f"epoch {record.epoch}: {', '.join(member.name for member in record.members)}")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(code)
