"""`dwcp doc`: documents that merge, edited online or offline."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from dwcp import errors
from dwcp.cli.data import EXIT_NO_CLUSTER, EXIT_REFUSED
from dwcp.client import Client
from dwcp.crdt import BadEdit, BadValue, OutboxFull, Refused, Transaction
from dwcp.directory import read_directory
from dwcp.doc import Doc
from dwcp.docfile import DocumentFileBusy, DocumentFileError
from dwcp.wire.gossip import sign_read_token

EXIT_LOCAL: Final = 6
EPILOG: Final = (
    "Exit codes: 0 done; 1 refused; 2 wrong usage; 3 no cluster in DIR; 6 kept here, and not yet "
    "confirmed by f+1 members: it is sent again by the next command."
)
TOKEN_S: Final = 3600
LOCK_AGAIN_S: Final = 0.05
LOOK_S_MAX: Final = 3.0

_Command = TypeVar("_Command", bound=Callable[..., Any])
Edit = Callable[[Transaction], None]


def options(command: _Command) -> _Command:
    """What all commands here share."""
    for option in (
        click.option(
            "--timeout", "timeout_s", type=click.FloatRange(min=0.0), default=15.0,
            show_default=True, metavar="SECONDS", help="How long to wait for f+1 members.",
        ),
        click.option(
            "--via", multiple=True, metavar="MEMBER", help="Talk to this member only; repeatable."
        ),
        click.option(
            "--data", "data_dir", type=click.Path(path_type=Path, file_okay=False),
            default=Path(".dwcp"), show_default="./.dwcp", metavar="DIR",
            help="Where genesis, client key and the offline copy lie.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def doc() -> None:
    """Documents that several people edit at once, offline too, and that merge."""


@doc.command(epilog=EPILOG)
@click.argument("name")
@click.option("--offline", is_flag=True, help="Show what is here, without asking anybody.")
@options
def get(
    name: str, *, offline: bool, data_dir: Path, timeout_s: float, via: tuple[str, ...]
) -> None:
    """Print document NAME as JSON, as f+1 members show it."""

    async def run(client: Client) -> None:
        found = client.doc(name)
        if not offline:
            await found.synced(int(timeout_s * 1000))
            await found.follow_strategies()
        click.echo(json.dumps(found.view(), ensure_ascii=False, indent=2))

    _with_client(data_dir, timeout_s, via, run)


@doc.command(epilog=EPILOG)
@click.argument("name")
@click.option("--set", "sets", multiple=True, metavar="PATH=JSON", help="Write a register.")
@click.option("--append", "appends", multiple=True, metavar="PATH=TEXT", help="Add to a text.")
@click.option("--insert", "inserts", multiple=True, metavar="PATH:POSITION=TEXT")
@click.option("--delete", "deletes", multiple=True, metavar="PATH:POSITION:COUNT")
@click.option("--add", "adds", multiple=True, metavar="PATH=JSON", help="Add to a set.")
@click.option("--discard", "discards", multiple=True, metavar="PATH=JSON")
@click.option("--increment", "increments", multiple=True, metavar="PATH=NUMBER")
@click.option("--remove", "removes", multiple=True, metavar="PATH", help="Remove a key of a map.")
@click.option("--offline", is_flag=True, help="Keep it here; the next command sends it.")
@options
def edit(
    name: str, *, offline: bool, data_dir: Path, timeout_s: float, via: tuple[str, ...],
    **edits: tuple[str, ...],
) -> None:  # fmt: skip
    """Edit document NAME; all edits of one command are one signed operation.

    PATH is keys joined by "/". Prints "safe" when f+1 members hold it durably, or "local".
    """
    made = _edits(edits)
    if not made:
        raise click.UsageError("nothing to do: give --set, --append, ... (`dwcp doc edit --help`)")

    async def run(client: Client) -> None:
        found = client.doc(name)
        if not offline:  # on the newest text, if it is to be had
            with suppress(errors.TimedOut):
                await found.synced(int(min(timeout_s, LOOK_S_MAX) * 1000))
        with found.edit() as transaction:
            for one in made:
                one(transaction)
        await _until_safe(found, 0 if offline else timeout_s)

    _with_client(data_dir, timeout_s, via, run)


@doc.command(epilog=EPILOG)
@click.argument("name")
@click.option("--count", type=click.IntRange(min=1), help="End after this many versions.")
@options
def watch(
    name: str, *, count: int | None, data_dir: Path, timeout_s: float, via: tuple[str, ...]
) -> None:
    """Print document NAME whenever it changes, as one line of JSON, until Ctrl-C."""

    async def run(client: Client) -> None:
        left = count
        async for change in client.doc(name).changes():
            click.echo(json.dumps(change.view, ensure_ascii=False))
            left = None if left is None else left - 1
            if left == 0:
                return

    try:
        _with_client(data_dir, timeout_s, via, run, keep=False)
    except BrokenPipeError:  # whoever read this has gone; nothing is left to be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@doc.command(epilog=EPILOG)
@click.argument("name")
@options
def conflicts(name: str, *, data_dir: Path, timeout_s: float, via: tuple[str, ...]) -> None:
    """Print the conflicts of document NAME: concurrent values that nobody wrote over yet."""

    async def run(client: Client) -> None:
        found = client.doc(name)
        await found.synced(int(timeout_s * 1000))
        await found.follow_strategies()
        for conflict in found.conflicts():
            values = [
                {"value": one.value, "author": one.author.hex()[:12]} for one in conflict.candidates
            ]
            line = {"path": "/".join(conflict.path), "values": values, "base": conflict.base}
            line["strategy"] = found.strategy(conflict.path)
            click.echo(json.dumps(line, ensure_ascii=False))

    _with_client(data_dir, timeout_s, via, run)


@doc.command(epilog=EPILOG)
@click.argument("name")
@options
def history(name: str, *, data_dir: Path, timeout_s: float, via: tuple[str, ...]) -> None:
    """Print what a member tells of conflicts of document NAME, as JSON.

    What waits for people, what became of the others and how long it took, and the share that each
    strategy resolved.
    """

    async def run(client: Client) -> None:
        told = await client.doc(name).told()
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))

    _with_client(data_dir, timeout_s, via, run)


@doc.command(epilog=EPILOG)
@options
def strategies(*, data_dir: Path, timeout_s: float, via: tuple[str, ...]) -> None:
    """Print the agreed strategies that show conflicts, one as a line of JSON."""

    async def run(client: Client) -> None:
        settings = await client.document_settings(timeout_ms=int(timeout_s * 1000))
        for rule in settings.rules:
            said = {key: value for key, value in msgspec.structs.asdict(rule).items() if value}
            said["priorities"] = {one.client: one.priority for one in rule.priorities}
            click.echo(json.dumps(said, ensure_ascii=False))

    _with_client(data_dir, timeout_s, via, run)


@doc.command(epilog=EPILOG)
@click.argument("name")
@click.argument("path")
@click.argument("value", metavar="JSON")
@options
def settle(
    name: str, path: str, value: str, *, data_dir: Path, timeout_s: float, via: tuple[str, ...]
) -> None:
    """Decide the conflict at PATH of document NAME: write JSON over all its values."""
    decided = _json(value)

    async def run(client: Client) -> None:
        found = client.doc(name)
        await found.synced(int(timeout_s * 1000))
        found.settle(tuple(path.split("/")), decided)
        await _until_safe(found, timeout_s)

    _with_client(data_dir, timeout_s, via, run)


@doc.command()
@click.argument("name", default="")
@options
def token(name: str, *, data_dir: Path, timeout_s: float, via: tuple[str, ...]) -> None:
    """Print an Authorization header that reads document NAME as JSON for an hour.

    Without NAME: /dwcp/v1/docs/conflicts.
    """
    del timeout_s, via
    try:
        found = read_directory(data_dir)
    except errors.BadCluster as error:
        _end(EXIT_NO_CLUSTER, str(error))
    expires_ms = (int(time.time()) + TOKEN_S) * 1000
    made = sign_read_token(found.genesis.record.hash(), name, expires_ms, found.key)
    click.echo(f"Authorization: {made.header()}")


async def _until_safe(found: Doc, timeout_s: float) -> None:
    """Say what became of the edit; local is an exit code of its own."""
    try:
        if timeout_s:
            await found.safe(int(timeout_s * 1000))
    except errors.TimedOut as error:
        click.echo("local")
        _end(EXIT_LOCAL, str(error))
    click.echo(found.status)


def _edits(said: dict[str, tuple[str, ...]]) -> list[Edit]:
    """The options as edits, by kind in the order of `--help`."""
    return [make(text) for kind, make in _MAKERS.items() for text in said[kind]]


def _set(text: str) -> Edit:
    path, value = _pair(text)
    decoded = _json(value)
    return lambda edit: edit.set(path, decoded)


def _append(text: str) -> Edit:
    path, value = _pair(text)
    return lambda edit: edit.insert(path, edit.length(path, "text"), value)


def _insert(text: str) -> Edit:
    place, _, value = text.partition("=")
    keys, _, position = place.rpartition(":")
    path, at = _path(keys), _number(position)
    return lambda edit: edit.insert(path, at, value)


def _delete(text: str) -> Edit:
    rest, _, many = text.rpartition(":")
    keys, _, position = rest.rpartition(":")
    path, at, count = _path(keys), _number(position), _number(many)
    return lambda edit: edit.delete(path, at, count)


def _add(text: str) -> Edit:
    path, value = _pair(text)
    decoded = _json(value)
    return lambda edit: edit.add(path, decoded)


def _discard(text: str) -> Edit:
    path, value = _pair(text)
    decoded = _json(value)
    return lambda edit: edit.discard(path, decoded)


def _increment(text: str) -> Edit:
    path, value = _pair(text)
    amount = _number(value)
    return lambda edit: edit.increment(path, amount)


def _remove(text: str) -> Edit:
    path = _path(text)
    return lambda edit: edit.remove(path)


_MAKERS: Final[dict[str, Callable[[str], Edit]]] = {
    "sets": _set,
    "appends": _append,
    "inserts": _insert,
    "deletes": _delete,
    "adds": _add,
    "discards": _discard,
    "increments": _increment,
    "removes": _remove,
}


def _path(text: str) -> tuple[str, ...]:
    if not text:
        raise click.UsageError("a PATH is missing: keys joined by '/'")
    return tuple(text.split("/"))


def _pair(text: str) -> tuple[tuple[str, ...], str]:
    keys, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} is not PATH=VALUE")
    return _path(keys), value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not JSON ({error}): quote strings") from None


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is not a number") from None


def _with_client(
    data_dir: Path, timeout_s: float, via: tuple[str, ...],
    run: Callable[[Client], Coroutine[Any, Any, None]], *, keep: bool = True,
) -> None:  # fmt: skip
    """Run with a client; errors become sentences and exit codes."""

    async def main() -> None:
        deadline_s = time.monotonic() + timeout_s
        async with Client.from_directory(data_dir, documents=keep, via=via or None) as client:
            while True:
                try:
                    return await run(client)
                except DocumentFileBusy:
                    if time.monotonic() > deadline_s:
                        raise
                await asyncio.sleep(LOCK_AGAIN_S)

    try:
        asyncio.run(main())
    except errors.BadCluster as error:
        _end(EXIT_NO_CLUSTER, str(error))
    except (errors.DWCPError, DocumentFileError, LookupError) as error:
        _end(EXIT_REFUSED, str(error))
    except (BadEdit, BadValue, Refused, OutboxFull) as error:
        _end(EXIT_REFUSED, str(error))
    except KeyboardInterrupt:
        sys.exit(0)


def _end(code: int, message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
