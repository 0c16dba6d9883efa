"""A gateway over HTTP and gRPC, its client verified by four members with real stores."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from client.loopback import Loopback
from dwcp.client import Client
from dwcp.gateway.desk import Desk
from dwcp.gateway.metrics import GatewayMetrics
from dwcp.gateway.rpc import RpcServer
from dwcp.gateway.server import Gateway
from dwcp.waiting import Limits


@dataclass
class Running:
    loopback: Loopback
    client: Client
    desk: Desk
    metrics: GatewayMetrics
    url: str
    address: str
    """Of the gRPC port."""


@asynccontextmanager
async def running(*, fast_reads: bool = False) -> AsyncIterator[Running]:
    loopback = Loopback(time.time_ns() // 1_000_000, fast_reads=fast_reads)
    async with loopback:
        key = loopback.members.client
        limits = Limits(retry_ms=200)
        async with Client.connect(loopback.members.genesis, key, limits=limits) as client:
            desk, metrics = Desk(client, key.public_key, timeout_ms=2000), GatewayMetrics()
            runner = Gateway(desk, metrics).runner()
            rpc = RpcServer(desk, metrics)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                port = await rpc.start("127.0.0.1", 0)
                desk.address = f"http://127.0.0.1:{port}"
                url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield Running(loopback, client, desk, metrics, url, f"127.0.0.1:{port}")
            finally:
                await rpc.stop()
                await runner.cleanup()
