"""`dwcp watch`: what happens to keys, verified, printed as etcdctl does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from dwcp.cli.data import EXIT_HELP, in_json, interval, options, with_client
from dwcp.client import Client
from dwcp.watch import News


@click.command(epilog=EXIT_HELP)
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that start with KEY.")
@click.option("--rev", "revision", type=click.IntRange(min=0), default=0, help="Begin there.")
@click.option("--prev-kv", is_flag=True, help="Print what was there before, too.")
@click.option("--count", type=click.IntRange(min=1), help="End after this many events.")
@options
def watch(
    key: str, *, prefix: bool, revision: int, prev_kv: bool, count: int | None, data_dir: Path,
    output: str, timeout_s: float,
) -> None:  # fmt: skip
    """Print every change of KEY: its kind, the key and the value, each on a line.

    Ends with Ctrl-C. --timeout is for the beginning only.
    """

    async def run(client: Client) -> None:
        left = count
        low, high = interval(key, prefix=prefix)
        watching = client.watch(low, high, start_revision=revision, prev_kv=prev_kv)
        async with watching as news:
            async for item in news:
                _print(item, output)
                left = None if left is None else left - len(item.events)
                if left is not None and left <= 0:
                    return

    try:
        with_client(data_dir, timeout_s, run)
    except BrokenPipeError:  # whoever read this has gone; nothing is left to be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(news: News, output: str) -> None:
    if output == "json":
        events: list[dict[str, Any]] = []
        for event in news.events:
            before = {} if event.prev_kv is None else {"prev_kv": in_json(event.prev_kv)}
            events.append({"type": event.type, "kv": in_json(event.kv)} | before)
        click.echo(json.dumps({"revision": news.revision, "events": events}))
        return
    out = sys.stdout.buffer
    for event in news.events:
        out.write(event.type.encode() + b"\n")
        if event.prev_kv is not None:
            out.write(event.prev_kv.key + b"\n" + event.prev_kv.value + b"\n")
        out.write(event.kv.key + b"\n" + event.kv.value + b"\n")
    out.flush()
