"""Watches through a client: every event once and in order, whatever f members do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from client.loopback import Loopback
from dwcp import errors
from dwcp.calls import prefix_end
from dwcp.client import Client
from dwcp.watch import EVENTS_WAITING_MAX, News, Watch
from dwcp.wire.operations import Access, Compare, Grant, PutRequest
from dwcp.wire.watch import LAST, Page, WatchEvent, decode_events, encode_events
from replica.waiting import until

PATIENCE_S = 20


def cluster(scenario: Callable[[Loopback, Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            members = loopback.members
            async with Client.connect(members.genesis, members.client) as client:
                await scenario(loopback, client)

    asyncio.run(run())


async def take(watch: Watch, count: int) -> list[News]:
    """The next news with events."""
    found: list[News] = []
    async with asyncio.timeout(PATIENCE_S):
        async for news in watch:
            found.append(news)
            if len(found) == count:
                break
    return found


def shown(news: list[News]) -> list[tuple[int, list[tuple[str, bytes, bytes]]]]:
    return [(n.revision, [(e.type, e.kv.key, e.kv.value) for e in n.events]) for n in news]


def test_events_come_by_revision_from_now_or_from_the_past() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a/1", "old")
        async with (
            client.watch("a/", prefix_end("a/"), prev_kv=True) as live,
            client.watch("a/", prefix_end("a/"), start_revision=1, filters=["NODELETE"]) as past,
        ):
            await client.txn(
                [Compare(b"a/1", "VERSION", "EQUAL", version=1)],
                [PutRequest(b"a/1", b"new"), PutRequest(b"a/2", b"x"), PutRequest(b"b", b"y")],
            )
            await client.delete("a/", "b")
            await client.put("a/3", "z")
            first, second, third = await take(live, 3)
            assert shown([first, second, third]) == [
                (3, [("PUT", b"a/1", b"new"), ("PUT", b"a/2", b"x")]),
                (4, [("DELETE", b"a/1", b""), ("DELETE", b"a/2", b"")]),
                (5, [("PUT", b"a/3", b"z")]),
            ]
            assert first.events[0].prev_kv is not None
            assert first.events[0].prev_kv.value == b"old"
            assert shown(await take(past, 3)) == [
                (2, [("PUT", b"a/1", b"old")]),
                (3, [("PUT", b"a/1", b"new"), ("PUT", b"a/2", b"x")]),
                (5, [("PUT", b"a/3", b"z")]),
            ]
        assert not client.liars

    cluster(scenario)


def forge(page: Page) -> Page:
    """Claims that another value was written."""
    events = decode_events(page.events)
    altered = tuple(
        msgspec.structs.replace(event, kv=msgspec.structs.replace(event.kv, value=b"forged"))
        for event in events
    )
    return msgspec.structs.replace(page, events=encode_events(altered))


def withhold(page: Page) -> Page:
    """Claims that nothing happened."""
    return msgspec.structs.replace(page, events=encode_events(()))


def reorder(page: Page) -> Page:
    """Claims the same events in another order."""
    events = tuple(reversed(decode_events(page.events)))
    return msgspec.structs.replace(page, events=encode_events(events))


def run_ahead(page: Page) -> Page:
    """Claims that nothing happens for a long time to come."""
    return msgspec.structs.replace(page, upto=(10**6, LAST), events=encode_events(()))


def compacted(page: Page) -> Page:
    """Claims that all of it is compacted."""
    return msgspec.structs.replace(page, compact_revision=10**6)


def backwards(page: Page) -> Page:
    return msgspec.structs.replace(page, upto=(0, LAST))


@pytest.mark.parametrize("lie", [forge, withhold, reorder, run_ahead, compacted, backwards])
def test_one_liar_changes_nothing_that_is_delivered(lie: Callable[[Page], Page]) -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        loopback.nodes[1].alter_page = lie
        async with client.watch("k", prefix_end("k")) as watch:
            for i in range(5):
                steps = [PutRequest(b"k%d" % j, b"%d" % i) for j in range(3)]
                await client.txn(success=steps)
            wanted = [(i + 2, [("PUT", b"k%d" % j, b"%d" % i) for j in range(3)]) for i in range(5)]
            assert shown(await take(watch, 5)) == wanted
            if lie is not compacted:  # a member may really have compacted what others still have
                await until(lambda: client.liars, what="the liar is named")
                assert set(client.liars) == {"test-1"}

    cluster(scenario)


def test_a_page_counts_only_over_its_members_signature() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        node = loopback.nodes[0]
        node.page = lambda request, seen, events: Page(  # type: ignore[method-assign]
            request, seen.upto, events, 0, 0, 0, bytes(64)
        )
        node.watching._sign = node.page
        async with client.watch("k") as watch:
            await client.put("k", "v")
            assert shown(await take(watch, 1)) == [(2, [("PUT", b"k", b"v")])]
            await until(lambda: client.refused.get("signature"), what="it is counted")

    cluster(scenario)


def test_the_loss_of_any_member_loses_and_repeats_nothing() -> None:
    """Each member in turn goes and comes back while keys are written."""

    async def scenario(loopback: Loopback, client: Client) -> None:
        async with client.watch("k") as watch:
            written = 0
            for node in loopback.nodes:
                await node.stop()
                for _ in range(10):
                    await client.put("k", str(written))
                    written += 1
                await node.start()
                name = f"test-{node.me}"
                await until(lambda name=name: client.connected[name], what="it is back")
            await client.put("k", str(written))
            news = await take(watch, written + 1)
            assert [n.revision for n in news] == list(range(2, written + 3))
            assert [int(n.events[0].kv.value) for n in news] == list(range(written + 1))
        async with client.watch("k", start_revision=watch.revision - 1) as again:
            assert [n.revision for n in await take(again, 2)] == [written + 1, written + 2]
        assert not client.liars

    cluster(scenario)


def test_silent_members_delay_nothing_and_one_more_stops_it() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        loopback.nodes[3].deaf = True
        async with client.watch("k") as watch:
            await client.put("k", "1")
            assert len(await take(watch, 1)) == 1
            for node in loopback.nodes[1:3]:
                await node.stop()
            await client.put("k", "2")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(watch)
            await loopback.nodes[1].start()
            assert [n.revision for n in await take(watch, 1)] == [3]

    cluster(scenario)


def test_a_watch_below_the_compaction_ends_with_its_revision() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        for i in range(5):
            await client.put("k", str(i))
        await client.compact(5)
        with pytest.raises(errors.Compacted) as refused:
            async with asyncio.timeout(PATIENCE_S), client.watch("k", start_revision=2) as watch:
                await anext(watch)
        assert refused.value.compact_revision == 5
        async with client.watch("k", start_revision=5) as watch:
            assert [n.revision for n in await take(watch, 2)] == [5, 6]

    cluster(scenario)


def test_a_consumer_that_sleeps_holds_the_watch_and_nobody_else() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        count = EVENTS_WAITING_MAX * 3
        async with client.watch("k") as sleepy:
            for i in range(3):
                await client.execute(*[PutRequest(b"k", b"%d" % i)] * EVENTS_WAITING_MAX)
            await until(lambda: len(sleepy._news) >= EVENTS_WAITING_MAX, what="it is full")
            waiting = len(sleepy._news)
            await client.put("other", "x")
            assert waiting < count, "it took no more than a page beyond what it may hold"
            assert [n.revision for n in await take(sleepy, count)] == list(range(2, count + 2))

    cluster(scenario)


def test_a_watch_ends_when_its_right_ends() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        me = loopback.members.client.public_key
        reads = Access(admin=True, grants=(Grant(b"k", read=True, write=True),))
        await client.set_access(me, reads)
        async with client.watch("k") as watch:
            await client.put("k", "seen")
            assert shown(await take(watch, 1)) == [(2, [("PUT", b"k", b"seen")])]
            writes = Access(admin=True, grants=(Grant(b"k", write=True),))
            await client.set_access(me, writes)
            await client.put("k", "unseen")
            with pytest.raises(errors.Refused, match="permission denied") as refused:
                async with asyncio.timeout(PATIENCE_S):
                    await anext(watch)
            assert refused.value.code == 7
        assert await client.access(me) == writes
        with pytest.raises(errors.Refused, match="permission denied"):
            await client.get("k")

    cluster(scenario)


def test_progress_says_how_far_the_history_has_come() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        for i in range(3):
            await client.put("other", str(i))
        async with client.watch("k", start_revision=2, progress=True) as watch:
            async with asyncio.timeout(PATIENCE_S):
                news = await anext(watch)
            assert news == News(4, ())

    cluster(scenario)


def test_watches_end_with_their_client() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        async with client.watch("k") as watch:
            waiting = asyncio.create_task(anext(watch))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(errors.ClientClosed):
                await waiting
        with pytest.raises(errors.Refused, match="no key"):
            client.watch("b", "a")

    cluster(scenario)


def test_pulls_of_a_lost_connection_are_forgotten() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        room = loopback.nodes[0].watching
        async with client.watch("k"), client.watch("l"):
            await until(lambda: len(room) == 2, what="both wait")
            await client.close()
            await until(lambda: len(room) == 0, what="nothing waits")
            assert not room._held

    cluster(scenario)


def test_an_event_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages may end anywhere: even one event at a time, all of a revision comes together."""
    monkeypatch.setattr("dwcp_replica.node.watching.PAGE_EVENTS_MAX", 1)

    async def scenario(loopback: Loopback, client: Client) -> None:
        async with client.watch("k", prefix_end("k"), start_revision=1) as watch:
            steps = [PutRequest(b"k%d" % i, b"v") for i in range(7)]
            await client.txn(success=steps)
            await client.put("other", "x")
            (news,) = await take(watch, 1)
            assert [event.kv.key for event in news.events] == [b"k%d" % i for i in range(7)]
            assert all(isinstance(event, WatchEvent) for event in news.events)

    cluster(scenario)
