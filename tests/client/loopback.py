"""Four members that a Client reaches over real WebSockets, without agreement between them.

The client port (ConnectHandler, ClientDesk) and the stores are the replicas' own; the log is one
shared list. What agreement does is tested with whole replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import msgspec
from aiohttp import web

from client.members import Members
from dwcp.wire.envelope import Batch, Envelope, Rejected, Reply, decode_body, signed_refusal
from dwcp.wire.query import Query, decode_query_body
from dwcp.wire.watch import Page, Pull
from dwcp_replica.api.connect import ConnectHandler
from dwcp_replica.api.desk import Answer, ClientDesk
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.problems import Problems
from dwcp_replica.node.watching import WatchRoom
from dwcp_replica.store import Outcome, Refusal, Store
from dwcp_replica.store.watching import Seen


class LoopbackMember:
    """One member: a ClientService, and the Host that serves it."""

    def __init__(self, cluster: Loopback, me: int) -> None:
        self.cluster = cluster
        self.me = me
        self.genesis = cluster.members.genesis
        self.verifier = cluster.members.verifier
        self.desk = ClientDesk()
        self.store = Store(self.genesis)
        self.deaf = False
        self.asked = 0
        self.alter: Callable[[Reply], Reply] | None = None
        metrics = ReplicaMetrics()
        self.handler = ConnectHandler(self, Problems(metrics), metrics)
        self.runner: web.AppRunner | None = None
        self.port = 0
        self.alter_page: Callable[[Page], Page] | None = None
        self.watching = WatchRoom(self.store, self.page, self.denied)
        self._task: asyncio.Task[None] | None = None

    def be(self, store: Store) -> None:
        """Have this store, and watch what happens in it."""
        self.genesis, self.store = self.cluster.members.genesis, store
        self.watching = WatchRoom(store, self.page, self.denied)

    @property
    def identity(self) -> bytes:
        return self.genesis.members[self.me].identity

    def service(self) -> Self:
        return self

    def readiness(self) -> str | None:
        return None

    async def start(self) -> None:
        await self.listen()
        self.work()

    def work(self) -> None:
        """Answer pulls."""
        self._task = asyncio.create_task(self.watching.run())

    async def listen(self) -> None:
        app = web.Application()
        app.router.add_get("/dwcp/v1/connect", self.handler.get)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.handler.close()
            await self.runner.cleanup()
            assert self._task is not None, "started"
            self._task.cancel()
            await asyncio.wait([self._task])
            self.runner = None

    def admit(self, envelope: Envelope, answer: Callable[[Answer], None]) -> None:
        if self.deaf:
            return
        body = decode_body(envelope.body)
        assert self.store.check(envelope, body) is None
        match self.store.lookup(envelope, body):
            case Outcome() as outcome:
                answer(self.reply(outcome))
            case Refusal(reason, failure):
                answer(self.cluster.members.rejected(self.me, envelope, reason, failure.message))
            case _:
                self.cluster.order(envelope)

    def ask(self, query: Query, answer: Callable[[Answer], None]) -> None:
        if self.deaf:
            return
        revision, content = self.store.read(query.client, decode_query_body(query.body).operations)
        self.asked += 1
        index = self.store.applied_index
        members = self.cluster.members
        answer(members.query_reply(self.me, query, content, revision=revision, index=index))

    def watch(self, client: bytes, pull: Pull, answer: Callable[[Answer], None]) -> None:
        if not self.deaf:
            assert self.watching.enter(client, pull, answer)

    def unwatch(self, answer: Callable[[Answer], None]) -> None:
        self.watching.leave(answer)

    def denied(self, request: bytes) -> Rejected:
        unsigned = Rejected(request, "permission", "permission denied", 0, self.me, bytes(64))
        members = self.cluster.members
        return signed_refusal(unsigned, members.scope, members.signers[self.me], bytes(64))

    def page(self, request: bytes, seen: Seen, events: bytes) -> Page:
        page = Page(request, seen.upto, events, seen.compact_revision, 0, self.me, bytes(64))
        if self.alter_page is not None:
            page = self.alter_page(page)
        return self.cluster.members.sign_page(page)

    def unreadable(self, reason: str, message: str) -> Rejected:
        raise AssertionError(f"the client sent what is no envelope: {message}")

    def apply(self, index: int, batch: Batch) -> None:
        for outcome in self.store.apply(index, batch):
            if self.runner is not None:
                self.desk.deliver(outcome.client, self.reply(outcome))
        if self.watching.is_behind():
            self.watching.catch_up()

    def reply(self, outcome: Outcome) -> Reply:
        unsigned = Reply(
            outcome.request, outcome.index, outcome.revision, outcome.results, 0, 1, self.me,
            bytes(64),
        )  # fmt: skip
        if self.alter is not None:
            unsigned = self.alter(unsigned)
        return self.cluster.members.sign(unsigned)


class Loopback:
    """Starts the members; `genesis` names their addresses."""

    def __init__(self, wall_ms: int, *, fast_reads: bool = False) -> None:
        self.members = Members(fast_reads=fast_reads)
        self.wall_ms = wall_ms
        self.log: list[Batch] = []
        self.nodes = [LoopbackMember(self, i) for i in range(self.members.n)]

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await node.listen()
        urls = [f"http://127.0.0.1:{node.port}" for node in self.nodes]
        self.members = Members(urls=urls, fast_reads=self.members.fast_reads)
        for node in self.nodes:
            node.be(Store(self.members.genesis))
            node.work()
        return self

    async def __aexit__(self, *error: object) -> None:
        for node in self.nodes:
            await node.stop()

    def order(self, envelope: Envelope) -> None:
        batch = Batch(self.wall_ms, (envelope,))
        self.log.append(batch)
        for node in self.nodes:
            node.apply(len(self.log), batch)

    def operations(self) -> int:
        """How many operations were ordered, those of repeated envelopes once."""
        bodies = {e.digest(): e.body for batch in self.log for e in batch.envelopes}
        return sum(len(decode_body(body).operations) for body in bodies.values())


def altered(**changes: object) -> Callable[[Reply], Reply]:
    """Make a member lie: what it signs has these fields."""
    return lambda reply: msgspec.structs.replace(reply, **changes)
