"""`dwcp backup`: take backups, check them, and serve one to members of a cluster to be."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import aiohttp
import click
import msgspec
from aiohttp import web

from dwcp.cli import taking
from dwcp.cli.admin import admin_key, follow, genesis_of, known_of
from dwcp.directory import trust_in
from dwcp.errors import BadCluster
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.records import EpochRecord

EXIT_BROKEN: Final = 1
EXIT_NO_ANSWER: Final = 4
AGAIN_S: Final = 1.0

_data = click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The local cluster's directory, or what a client mounts.",
)
_output = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")


class _Hash(click.ParamType[bytes]):
    name = "hash"

    def convert(
        self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """32 bytes from 64 hex digits."""
        try:
            found = value if isinstance(value, bytes) else bytes.fromhex(value)
        except ValueError:
            found = b""
        if len(found) != 32:
            self.fail(f"{value!r} is not a hash of 64 hex digits", param, ctx)
        return found


_genesis_hash = click.option(
    "--genesis", type=_Hash(), metavar="HASH", help="Hash of the cluster's genesis: the trust."
)


@click.group()
def backup() -> None:
    """Take backups and check them."""


@backup.command()
@_data
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    show_default="the present directory",
    metavar="DIR",
    help="Where backups lie.",
)
@click.option("--keep", type=click.IntRange(min=1), help="Remove all but so many.")
@click.option("--permit", "permit_file", type=click.Path(path_type=Path, exists=True), hidden=True)
@click.option("--result", type=click.Path(path_type=Path), hidden=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0)
@_output
def create(
    data_dir: Path, directory: Path, keep: int | None, permit_file: Path | None,
    result: Path | None, timeout_s: float, output: str,
) -> None:  # fmt: skip
    """Take a backup of a running cluster, and check it."""
    genesis = genesis_of(data_dir)
    began = time.monotonic()
    if permit_file is not None:
        permit = permit_file.read_bytes()
    else:
        permit = taking.make_permit(genesis, admin_key(data_dir))
    try:
        known = known_of(data_dir)
        taken = asyncio.run(_create(data_dir, genesis, known, permit, directory, timeout_s))
    except (taking.NotTakenError, BadCluster) as error:
        if result is not None:
            result.write_text(json.dumps({"error": str(error)[:3000]}))
        _fail(EXIT_NO_ANSWER, str(error))
    if keep is not None:
        for old in taking.prune(directory, genesis.cluster, keep):
            click.echo(f"removed {old}", err=True)
    row = {**taken.row(), "seconds": round(time.monotonic() - began, 3)}
    if result is not None:
        result.write_text(json.dumps(row))
    _show(row, output)


async def _create(
    data_dir: Path, genesis: EpochRecord, known: Sequence[CertifiedRecord], permit: bytes,
    directory: Path, timeout_s: float,
) -> taking.Taken:  # fmt: skip
    """From whichever member shows one that holds. Raises NotTakenError with all that was said."""
    path = directory / taking.file_name(genesis.cluster)
    ends_s, trust = time.monotonic() + timeout_s, trust_in(data_dir)
    async with aiohttp.ClientSession() as http:
        while True:
            chain = await follow(http, genesis, known, trust)
            said: list[str] = []
            for member in taking.members_of(chain):
                try:
                    return await taking.take(http, genesis, member, permit, path, trust)
                except taking.NotTakenError as error:
                    said.append(str(error))
            if time.monotonic() >= ends_s:
                raise taking.NotTakenError("no member gave a backup that holds: " + "; ".join(said))
            await asyncio.sleep(AGAIN_S)


@backup.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_data
@_genesis_hash
@_output
def verify(file: Path, data_dir: Path, genesis: bytes | None, output: str) -> None:
    """Check FILE from the genesis to its last entry; no cluster is asked."""
    _show(_checked(file, genesis or genesis_of(data_dir).hash()).row(), output)


@backup.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--genesis", type=_Hash(), metavar="HASH", required=True)
@click.option("--listen", default="127.0.0.1:7430", show_default=True, metavar="HOST:PORT")
def serve(file: Path, genesis: bytes, listen: str) -> None:
    """Check FILE, then serve it to the members of a cluster that begins from it."""
    taken = _checked(file, genesis)
    host, _, port = listen.rpartition(":")
    if not port.isdecimal():
        raise click.UsageError(f"--listen {listen} is not HOST:PORT")
    origin = msgspec.msgpack.encode(taken.origin)

    async def shown(_request: web.Request) -> web.Response:
        return web.Response(body=origin, content_type="application/msgpack")

    async def whole(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    app = web.Application()
    app.router.add_get("/origin", shown)
    app.router.add_get("/backup", whole)
    click.echo(f"serving entry {taken.origin.index} of {file} on {listen}")
    web.run_app(app, host=host, port=int(port), print=None, access_log=None)


def _checked(file: Path, genesis: bytes) -> taking.Taken:
    try:
        return taking.check(file, genesis)
    except taking.NotTakenError as error:
        _fail(EXIT_BROKEN, str(error))


def _show(row: dict[str, object], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(row))
        return
    click.echo("  ".join(f"{key} {value}" for key, value in row.items()))


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    raise SystemExit(code)
