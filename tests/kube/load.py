"""A client in a pod that writes one key after the other until it is told to stop.

What is counted: writes that were acknowledged and can not be read back, and the longest time
between two acknowledgements.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kube.product import Cluster

_PROGRAM = """
import asyncio, json, sys, time
from dwcp import Client
from dwcp.errors import DWCPError

async def main():
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    written, longest, since = 0, 0.0, None
    async with Client.from_directory("/etc/dwcp") as client:
        while not stop.done():
            try:
                await client.put(f"load/{written:09}", str(written), timeout_ms=30000)
            except DWCPError:
                continue
            now = time.monotonic()
            longest = max(longest, now - (since or now))
            since, written = now, written + 1
            if written == 1:
                print("writing", flush=True)
        found, start, more = set(), b"load/", True
        while more:
            page = await client.range(start, b"load0", limit=500, timeout_ms=30000)
            found |= {kv.value.decode() for kv in page.kvs}
            more, start = page.more, page.kvs[-1].key + b"\\0" if page.kvs else b""
        lost = len({str(i) for i in range(written)} - found)
    print(json.dumps({"writes": written, "lost": lost, "pause_ms": round(1000 * longest)}))

asyncio.run(main())
"""


@dataclass(frozen=True)
class Written:
    """What came of it."""

    writes: int
    lost: int
    pause_ms: int


class Load:
    """Writes while the block runs; the client's pod must be there. `result` is set at its end."""

    def __init__(self, cluster: Cluster) -> None:
        sandbox = cluster.sandbox
        words = ["exec", "-i", f"{cluster.name}-app", cluster.where, "--", "python", "-c", _PROGRAM]
        self._command = [*sandbox.enter, str(sandbox.programs / "kubectl"), *words]
        self._environment = {**os.environ, **sandbox.environment()}
        self._process: subprocess.Popen[str] | None = None
        self.result: Written | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, env=self._environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if first.strip() != "writing":
            self._process.kill()
            raise AssertionError(f"the load did not begin: {self._process.communicate()[1]}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        try:
            out, err = self._process.communicate("", timeout=120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode != 0:
            raise AssertionError(f"the load failed: {err[-2000:]}")
        self.result = Written(**json.loads(out.splitlines()[-1]))
