"""Strangers who hold connections open must not keep members out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from dwcp_replica.net.hello import PEER_PATH
from dwcp_replica.net.server import STRANGERS_MAX
from dwcp_replica.net.tls import client_context
from replica.net.cluster import Dialing
from replica.net.test_peers import Pair
from replica.waiting import until


def test_strangers_do_not_keep_a_member_out(tmp_path: Path) -> None:
    """Whoever reaches the peer port, without any key, opens 32 connections and says nothing; when
    one is closed after 5 s it opens another. A member that dials again (a restart, a broken link)
    is turned away as "too-many-strangers" for as long as that goes on.
    """
    pair = Pair(tmp_path)

    async def run() -> None:
        url = f"wss://127.0.0.1:{pair.port}{PEER_PATH}"
        async with pair.listener() as listener, AsyncExitStack() as strangers:
            session = await strangers.enter_async_context(aiohttp.ClientSession())
            for _ in range(STRANGERS_MAX):
                ws = await session.ws_connect(url, ssl=client_context())
                strangers.push_async_callback(ws.close)
            async with Dialing(pair.client):
                await until(lambda: listener.server.connected(1), what="the member", seconds=3)

    asyncio.run(run())
