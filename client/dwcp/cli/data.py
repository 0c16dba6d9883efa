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


class LeaseId(click.ParamType[int]):
    """A lease's id as etcdctl writes it: 64 bits in hexadecimal."""

    name = "id"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The id, which has a sign."""
        if isinstance(value, int):
            return value
        try:
            number = int(value, 16)
        except ValueError:
            self.fail(f"{value!r} is not hexadecimal", param, ctx)
        if not 0 <= number < 2**64:
            self.fail(f"{value!r} has more than 64 bits", param, ctx)
        return number - 2**64 if number >= 2**63 else number


LEASE_ID: Final = LeaseId()


def lease_text(lease_id: int) -> str:
    """A lease's id as etcdctl writes it."""
    return f"{lease_id % 2**64:016x}"


_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(command: _Command) -> _Command:
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
@click.option("--lease", type=LEASE_ID, default="0", help="Attach it to this lease (hexadecimal).")
@click.option("--prev-kv", is_flag=True, help="Print the pair that was there before.")
@options
def put(
    key: str, value: str, *, lease: int, prev_kv: bool, data_dir: Path, output: str,
    timeout_s: float,
) -> None:  # fmt: skip
    """Write VALUE under KEY; a VALUE of "-" is read from standard input."""
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)

    async def run(client: Client) -> PutResult:
        return await client.put(os.fsencode(key), data, lease=lease, prev_kv=prev_kv)

    result = with_client(data_dir, timeout_s, run)
    previous = (result.prev_kv,) if result.prev_kv is not None else ()
    if output == "json":
        print_json(result.header, {"prev_kv": in_json(previous[0])} if previous else {})
    else:
        click.echo("OK")
        print_pairs(previous)


@click.command(epilog=EXIT_HELP)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that start with KEY.")
@options
def get(key: str, *, prefix: bool, data_dir: Path, output: str, timeout_s: float) -> None:
    """Print KEY and its value, each on a line; nothing when there is no such key."""

    async def run(client: Client) -> RangeResult:
        return await client.range(*interval(key, prefix=prefix))

    result = with_client(data_dir, timeout_s, run)
    if output == "json":
        found = {"kvs": [in_json(kv) for kv in result.kvs], "count": result.count}
        print_json(result.header, found if result.kvs else {})
    else:
        print_pairs(result.kvs)


@click.command(name="del", epilog=EXIT_HELP)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that start with KEY.")
@click.option("--prev-kv", is_flag=True, help="Print the pairs that were deleted.")
@options
def delete(
    key: str, *, prefix: bool, prev_kv: bool, data_dir: Path, output: str, timeout_s: float
) -> None:
    """Delete KEY and print how many keys that were."""

    async def run(client: Client) -> DeleteResult:
        return await client.delete(*interval(key, prefix=prefix), prev_kv=prev_kv)

    result = with_client(data_dir, timeout_s, run)
    if output == "json":
        gone: dict[str, Any] = {"deleted": result.deleted}
        if result.prev_kvs:
            gone["prev_kvs"] = [in_json(kv) for kv in result.prev_kvs]
        print_json(result.header, gone)
    else:
        click.echo(result.deleted)
        print_pairs(result.prev_kvs)


def interval(key: str, *, prefix: bool) -> tuple[bytes, bytes]:
    """[key, range_end) as etcd writes it."""
    data = os.fsencode(key)
    if not prefix:
        return data, b""
    return data or b"\0", prefix_end(data)


def with_client(
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


def print_pairs(pairs: tuple[KeyValue, ...]) -> None:
    """Keys and values, each on a line."""
    out = sys.stdout.buffer
    for kv in pairs:
        out.write(kv.key + b"\n" + kv.value + b"\n")
    out.flush()


def print_json(header: Header, fields: dict[str, Any]) -> None:
    """A header, and these fields beside it."""
    head = {"cluster_id": header.cluster_id.hex(), "revision": header.revision}
    click.echo(json.dumps({"header": head, **fields}))


def in_json(kv: KeyValue) -> dict[str, Any]:
    """A key as etcd's JSON shows it."""
    return {
        "key": base64.b64encode(kv.key).decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "value": base64.b64encode(kv.value).decode(),
    }
