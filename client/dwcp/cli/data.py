"""`dwcp put`, `dwcp get`, `dwcp del`: keys of a cluster, verified, printed as etcdctl does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from dwcp import errors
from dwcp.calls import prefix_end
from dwcp.client import Client
from dwcp.results import DeleteResult, Header, PutResult, RangeResult
from dwcp.wire.operations import KeyValue

EXIT_REFUSED: Final = 1
EXIT_NO_CLUSTER: Final = 3
EXIT_NO_ANSWER: Final = 4
EXIT_INDETERMINATE: Final = 5
EXIT_HELP: Final = (
    "Exit codes: 0 done; 1 refused; 2 wrong usage; 3 no cluster in DIR; 4 no answer, nothing was "
    "sent; 5 whether it was executed is not known."
)

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _options(command: _Command) -> _Command:
    """The options that all commands here share."""
    for option in (
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.001),
            default=15.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for enough replies.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["simple", "json"]),
            default="simple",
            show_default=True,
            help="simple, or etcd's JSON (keys and values in base64).",
        ),
        click.option(
            "--data",
            "data_dir",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(".dwcp"),
            show_default="./.dwcp",
            metavar="DIR",
            help="The local cluster's directory.",
        ),
    ):
        command = option(command)
    return command


@click.command(epilog=EXIT_HELP)
@click.argument("key")
@click.argument("value")
@click.option("--prev-kv", is_flag=True, help="Print the pair that was there before.")
@_options
def put(
    key: str, value: str, *, prev_kv: bool, data_dir: Path, output: str, timeout_s: float
) -> None:
    """Write VALUE under KEY; a VALUE of "-" is read from standard input."""
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)

    async def run(client: Client) -> PutResult:
        return await client.put(os.fsencode(key), data, prev_kv=prev_kv)

    result = _with_client(data_dir, timeout_s, run)
    previous = (result.prev_kv,) if result.prev_kv is not None else ()
    if output == "json":
        _print_json(result.header, {"prev_kv": _json(previous[0])} if previous else {})
    else:
        click.echo("OK")
        _print_pairs(previous)


@click.command(epilog=EXIT_HELP)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that start with KEY.")
@_options
def get(key: str, *, prefix: bool, data_dir: Path, output: str, timeout_s: float) -> None:
    """Print KEY and its value, each on a line; nothing when there is no such key."""

    async def run(client: Client) -> RangeResult:
        return await client.range(*_interval(key, prefix=prefix))

    result = _with_client(data_dir, timeout_s, run)
    if output == "json":
        found = {"kvs": [_json(kv) for kv in result.kvs], "count": result.count}
        _print_json(result.header, found if result.kvs else {})
    else:
        _print_pairs(result.kvs)


@click.command(name="del", epilog=EXIT_HELP)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that start with KEY.")
@click.option("--prev-kv", is_flag=True, help="Print the pairs that were deleted.")
@_options
def delete(
    key: str, *, prefix: bool, prev_kv: bool, data_dir: Path, output: str, timeout_s: float
) -> None:
    """Delete KEY and print how many keys that were."""

    async def run(client: Client) -> DeleteResult:
        return await client.delete(*_interval(key, prefix=prefix), prev_kv=prev_kv)

    result = _with_client(data_dir, timeout_s, run)
    if output == "json":
        gone: dict[str, Any] = {"deleted": result.deleted}
        if result.prev_kvs:
            gone["prev_kvs"] = [_json(kv) for kv in result.prev_kvs]
        _print_json(result.header, gone)
    else:
        click.echo(result.deleted)
        _print_pairs(result.prev_kvs)


def _interval(key: str, *, prefix: bool) -> tuple[bytes, bytes]:
    """[key, range_end) as etcd writes it."""
    data = os.fsencode(key)
    if not prefix:
        return data, b""
    return data or b"\0", prefix_end(data)


def _with_client(
    data_dir: Path, timeout_s: float, run: Callable[[Client], Coroutine[Any, Any, _T]]
) -> _T:
    """Run one operation; liars are named, errors end the command with their exit code."""

    async def session() -> _T:
        client = Client.from_directory(data_dir, deadline_ms=max(1, int(timeout_s * 1000)))
        async with client:
            try:
                return await run(client)
            finally:
                for name, lie in client.liars.items():
                    click.echo(f"warning: replica {name} lied: it {lie}", err=True)

    try:
        return asyncio.run(session())
    except errors.BadCluster as error:
        _exit(EXIT_NO_CLUSTER, error)
    except errors.TimedOut as error:
        _exit(EXIT_NO_ANSWER, error)
    except (errors.Indeterminate, errors.BrokenAnswer) as error:
        _exit(EXIT_INDETERMINATE, error)
    except errors.DWCPError as error:
        _exit(EXIT_REFUSED, error)


def _exit(code: int, error: errors.DWCPError) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(code)


def _print_pairs(pairs: tuple[KeyValue, ...]) -> None:
    out = sys.stdout.buffer
    for kv in pairs:
        out.write(kv.key + b"\n" + kv.value + b"\n")
    out.flush()


def _print_json(header: Header, fields: dict[str, Any]) -> None:
    head = {"cluster_id": header.cluster_id.hex(), "revision": header.revision}
    click.echo(json.dumps({"header": head, **fields}))


def _json(kv: KeyValue) -> dict[str, Any]:
    return {
        "key": base64.b64encode(kv.key).decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "value": base64.b64encode(kv.value).decode(),
    }
