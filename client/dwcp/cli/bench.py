"""`dwcp bench`: how fast a cluster answers, in a closed loop: each client waits for its answer.

All clients are tasks that share one `dwcp.Client`, which folds what waits into signed envelopes;
`--no-fold` gives each operation an envelope of its own. Every answer is verified. Counted is what
was answered between the end of the warm-up and the end of the time, whenever it had begun; an
error counts, too, when it comes later.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from dwcp.client import Client

EXIT_ERRORS: Final = 1
EXIT_NO_CLUSTER: Final = 3
EXIT_NO_ANSWER: Final = 4
PREFIX: Final = b"dwcp-bench/"
BUCKET: Final = 1.01
"""Latencies are counted in buckets one hundredth wide, so that memory is bounded."""
PAUSE_S: Final = 0.01
"""After an error, so that a cluster that is down is not asked in a tight loop."""
FILL_AT_ONCE: Final = 64
OPERATION_MS_MAX: Final = 10_000
READ_SHARE: Final = {"write": 0.0, "read": 1.0, "mixed": 0.5}


class Latencies:
    """Counts of latencies, within one hundredth."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self._buckets[round(math.log(max(seconds, 1e-6), BUCKET))] += 1

    def percentile_ms(self, percent: float) -> float | None:
        """The latency below which this share lies, in ms; None without any."""
        left = math.ceil(self.count * percent / 100)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return round(BUCKET**bucket * 1000, 3)
        return None


@dataclass
class Load:
    """What is asked, and what came of it."""

    kind: str
    clients: int
    value_bytes: int
    seconds: float
    warmup_s: float
    keys: int
    serializable: bool
    latencies: Latencies = field(default_factory=Latencies)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    async def run(self, client: Client) -> float:
        """Fill the keys if there will be reads, then load the cluster; the seconds measured."""
        await client.put(PREFIX, b"", timeout_ms=OPERATION_MS_MAX)  # the cluster answers
        if READ_SHARE[self.kind] > 0:
            await self._fill(client)
        began_s = time.perf_counter() + self.warmup_s
        end_s = began_s + self.seconds
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.clients):
                tasks.create_task(self._one(client, random.Random(number), began_s, end_s))  # noqa: S311 no secret
        return self.seconds

    async def _fill(self, client: Client) -> None:
        from dwcp.wire.operations import PutRequest

        value = random.Random(0).randbytes(self.value_bytes)  # noqa: S311 no secret
        for start in range(0, self.keys, FILL_AT_ONCE):
            numbers = range(start, min(start + FILL_AT_ONCE, self.keys))
            await client.execute(*(PutRequest(_key(number), value) for number in numbers))

    async def _one(self, client: Client, dice: random.Random, began_s: float, end_s: float) -> None:
        """One client: an operation, its answer, the next one, until the time is over."""
        from dwcp.errors import DWCPError

        value = dice.randbytes(self.value_bytes)
        while (sent_s := time.perf_counter()) < end_s:
            self.sent += 1
            key = _key(dice.randrange(self.keys))
            operation: Coroutine[Any, Any, object]
            if dice.random() < READ_SHARE[self.kind]:
                operation = client.get(
                    key, serializable=self.serializable, timeout_ms=OPERATION_MS_MAX
                )
            else:
                operation = client.put(key, value, timeout_ms=OPERATION_MS_MAX)
            try:
                await operation
            except DWCPError as error:
                if began_s <= time.perf_counter():
                    self.errors[type(error).__name__] += 1
                await asyncio.sleep(PAUSE_S)
            else:
                done_s = time.perf_counter()
                if began_s <= done_s < end_s:
                    self.latencies.add(done_s - sent_s)

    def report(self, seconds: float) -> dict[str, object]:
        """The figures; milliseconds within one hundredth."""
        return {
            "kind": self.kind,
            "clients": self.clients,
            "value_bytes": self.value_bytes,
            "seconds": seconds,
            "operations": self.latencies.count,
            "ops_per_second": round(self.latencies.count / seconds, 1),
            "p50_ms": self.latencies.percentile_ms(50),
            "p99_ms": self.latencies.percentile_ms(99),
            "errors": self.errors.total(),
            "errors_by_kind": dict(sorted(self.errors.items())),
        }


def _key(number: int) -> bytes:
    return PREFIX + b"%08d" % number


@click.command()
@click.argument("kind", type=click.Choice(sorted(READ_SHARE)))
@click.option("--clients", type=click.IntRange(1, 4096), default=64, show_default=True)
@click.option("--value-bytes", type=click.IntRange(0, 1024 * 1024), default=256, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True)
@click.option("--warmup", "warmup_s", type=click.FloatRange(0, 60), default=1.0, show_default=True)
@click.option("--keys", type=click.IntRange(1, 1_000_000), default=1000, show_default=True)
@click.option("--serializable", is_flag=True, help="Reads may be old: f+1 equal replies.")
@click.option("--no-fold", is_flag=True, help="One operation in each envelope.")
@click.option("-o", "--output", type=click.Choice(["simple", "json"]), default="simple")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The cluster's directory.",
)
def bench(
    kind: str, clients: int, value_bytes: int, seconds: float, warmup_s: float, keys: int,
    data_dir: Path, output: str, *, serializable: bool, no_fold: bool,
) -> None:  # fmt: skip
    """Load the cluster with KIND and print operations a second and latencies.

    Writes keys that begin with "dwcp-bench/". Exit code 1 when there were errors.
    """
    import uvloop

    from dwcp import errors
    from dwcp.client import Client
    from dwcp.waiting import REPLICA_WINDOW, Limits

    alone = Limits(envelope_operations_max=1, in_flight_max=REPLICA_WINDOW // 2)
    load = Load(kind, clients, value_bytes, seconds, warmup_s, keys, serializable)

    async def measure() -> dict[str, object]:
        async with Client.from_directory(data_dir, limits=alone if no_fold else None) as client:
            taken_s = await load.run(client)
            found = {**load.report(taken_s), **_conditions(client, folded=not no_fold)}
            found["operations_per_envelope"] = round(load.sent / max(client.envelopes, 1), 1)
            return found

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure())
    except errors.BadCluster as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(EXIT_NO_CLUSTER) from None
    except errors.DWCPError as error:
        click.echo(f"Error: the cluster did not answer before the load began: {error}", err=True)
        raise SystemExit(EXIT_NO_ANSWER) from None
    show: Callable[[dict[str, object]], str] = json.dumps if output == "json" else _lines
    click.echo(show(found))
    if load.errors:
        raise SystemExit(EXIT_ERRORS)


def _conditions(client: Client, *, folded: bool) -> dict[str, object]:
    """What the figures were taken under."""
    genesis = client.genesis
    return {
        "replicas": len(genesis.members),
        "protocol": genesis.protocol,
        "trust": genesis.trust,
        "fast_reads": genesis.parameters.fast_reads,
        "equal_replies_needed": client.needed,
        "folded": folded,
        "reads": dict(client.reads),
        "liars": sorted(client.liars),
    }


def _lines(found: dict[str, object]) -> str:
    return "\n".join(f"{name:22} {value}" for name, value in found.items())
