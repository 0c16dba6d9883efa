"""Loads: so many clients, each with one operation of 256 bytes under way, for a while."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from compare.systems import Comet, System, cpu_s
from dwcp.cli.bench import Latencies
from peers.build import ensure

VALUE_BYTES: Final = 256
KEYS: Final = 1000
WARMUP_S: Final = 1.0


@dataclass
class Figure:
    """One load. Milliseconds; seconds of processor time; None for what is not told."""

    system: str
    load: str
    clients: int
    ops_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    cpu_s_per_1000: float
    client_cpu_s_per_1000: float
    fsyncs_per_1000: float | None
    folded: float = 1.0

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Ran:
    """What a loading program said."""

    operations: float
    ops_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    folded: float = 1.0


async def measured(system: System, load: str, clients: int, work: Any) -> Figure:
    """Run a load and hold what it did against what the servers used meanwhile."""
    cpu, fsyncs = system.cpu_s(), system.fsyncs()
    mine = children_cpu_s()
    ran = await work
    cpu, after = system.cpu_s() - cpu, system.fsyncs()
    thousands = max(ran.operations, 1) / 1000
    waited = None if after is None or fsyncs is None else round((after - fsyncs) / thousands, 2)
    return Figure(
        system.name, load, clients, round(ran.ops_per_second, 1), ran.p50_ms, ran.p99_ms,
        ran.errors, round(cpu / thousands, 4),
        round((children_cpu_s() - mine) / thousands, 4), waited, round(ran.folded, 1),
    )  # fmt: skip


def children_cpu_s() -> float:
    """Of this process and of all programs that it ran to their end."""
    import resource

    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in found)


async def program(*command: str | Path, seconds: float) -> str:
    """A program's output. Raises AssertionError when it fails, TimeoutError when it hangs."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            out, problem = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, 1), problem.decode()
    return out.decode()


async def dwcp(directory: Path, clients: int, seconds: float, *more: str) -> Ran:
    """`dwcp bench write`; its client folds what waits into envelopes unless told not to."""
    text = await program(
        sys.executable, "-c", "from dwcp.cli import main; main()", "bench", "write",
        "--clients", str(clients), "--value-bytes", str(VALUE_BYTES), "--seconds", str(seconds),
        "--warmup", str(WARMUP_S), "--keys", str(KEYS), "--data", str(directory), "-o", "json",
        *more, seconds=seconds + 60,
    )  # fmt: skip
    found = json.loads(text)
    # the servers worked while warming up, too
    operations = found["ops_per_second"] * (seconds + WARMUP_S)
    return Ran(
        operations, found["ops_per_second"], found["p50_ms"], found["p99_ms"], found["errors"],
        found["operations_per_envelope"],
    )  # fmt: skip


async def dwcp_processes(directory: Path, clients: int, seconds: float) -> Ran:
    """As many client processes as clients, each alone with its session."""
    parts = await asyncio.gather(*(dwcp(directory, 1, seconds) for _ in range(clients)))
    return Ran(
        sum(p.operations for p in parts), sum(p.ops_per_second for p in parts),
        sorted(p.p50_ms or 0.0 for p in parts)[clients // 2], max(p.p99_ms or 0.0 for p in parts),
        sum(p.errors for p in parts),
    )  # fmt: skip


async def etcd(
    endpoints: Sequence[str], clients: int, total: int, *, together: int = 1, seconds: float
) -> Ran:
    """etcd's own `benchmark`: puts, or transactions of several puts; it runs to a total."""
    kind = ["put"] if together == 1 else ["txn-put", "--txn-ops", str(together)]
    text = await program(
        ensure("etcd") / "benchmark", "--endpoints", ",".join(endpoints), "--conns",
        str(min(clients, 64)), "--clients", str(clients), "--precise", *kind, "--key-size", "16",
        "--val-size", str(VALUE_BYTES), "--key-space-size", str(KEYS), "--total",
        str(max(total // together, clients)), seconds=seconds * 6 + 60,
    )  # fmt: skip
    rate = float(_one(r"Requests/sec:\s+(\S+)", text)) * together
    done = max(total // together, clients) * together
    errors = sum(int(n) for n in re.findall(r"^\s+\[(\d+)\]\s", text, re.MULTILINE))
    p50, p99 = (float(_one(rf"{p}% in ([\d.e-]+)", text)) * 1000 for p in (50, 99))
    return Ran(done, rate, round(p50, 3), round(p99, 3), errors, together)


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in {text}"
    return found[1]


async def comet(cluster: Comet, clients: int, seconds: float) -> Ran:
    """Closed loop: a transaction is answered by the block that has it.

    Sent over one WebSocket to each validator; blocks are heard from the first.
    """
    load = _CometLoad(seconds)
    async with aiohttp.ClientSession() as http:
        sockets = [
            await http.ws_connect(f"http://{rpc}/websocket", max_msg_size=0) for rpc in cluster.rpc
        ]
        ask = {"query": "tm.event='NewBlock'"}
        await sockets[0].send_json(_call("subscribe", ask))
        readers = [asyncio.create_task(load.read(socket)) for socket in sockets]
        await asyncio.gather(*(load.one(n, sockets[n % 4]) for n in range(clients)))
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
        for socket in sockets:
            await socket.close()
    latencies = load.latencies
    return Ran(
        latencies.count * (seconds + WARMUP_S) / seconds, latencies.count / seconds,
        latencies.percentile_ms(50), latencies.percentile_ms(99), load.errors,
    )  # fmt: skip


class _CometLoad:
    """Transactions under way, by their bytes."""

    def __init__(self, seconds: float) -> None:
        self.latencies = Latencies()
        self.errors = 0
        self._began_s = time.perf_counter() + WARMUP_S
        self._end_s = self._began_s + seconds
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def one(self, number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        """One client."""
        dice = random.Random(secrets.randbits(64))
        while (sent_s := time.perf_counter()) < self._end_s:
            key = f"{number:04}{dice.randrange(KEYS):04}{dice.randrange(2**40):011x}"
            # the application takes printable text: as many bytes as the others' value
            tx = base64.b64encode(
                f"{key}={dice.randbytes(VALUE_BYTES // 2).hex()}".encode()
            ).decode()
            done = self._waiting[tx] = asyncio.get_running_loop().create_future()
            await socket.send_json(_call("broadcast_tx_async", {"tx": tx}))
            try:
                async with asyncio.timeout(10):
                    await done
            except TimeoutError:
                self.errors += 1
            else:
                done_s = time.perf_counter()
                if self._began_s <= done_s < self._end_s:
                    self.latencies.add(done_s - sent_s)
            finally:
                self._waiting.pop(tx, None)

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Answer those whose transaction stands in a block."""
        async for message in socket:
            data = json.loads(message.data).get("result", {}).get("data")
            if not data:  # the answer to a transaction that was sent, not a block
                continue
            for tx in data["value"]["block"]["data"]["txs"]:
                future = self._waiting.get(tx)
                if future is not None and not future.done():
                    future.set_result(None)


def _call(method: str, parameters: dict[str, str]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}


__all__ = ["Figure", "Ran", "comet", "cpu_s", "dwcp", "dwcp_processes", "etcd", "measured"]
