"""Old edits are forgotten by agreement; who was away for longer loses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from client.test_documents import Cluster, cluster, shows, typed
from dwcp.client import Client
from dwcp.wire.frontiers import Frontier
from dwcp.wire.strategies import DocumentSettings
from replica.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

EDITS = 30


def hurry(here: Cluster) -> None:
    """Members look often, and forget little."""
    for replica in here.tasks.running.values():
        running = replica.running
        assert running is not None
        running.collector.look_s = 0.1
        running.collector.worth_operations = EDITS


async def collected(here: Cluster, floor: int) -> None:
    for room in here.rooms().values():
        await until(
            lambda r=room: r.store.find("notes").graph.floor >= floor,
            what="collected", seconds=20,
        )  # fmt: skip


def test_members_agree_what_to_forget_and_new_clients_take_the_image(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here:
            hurry(here)
            async with here.client(0) as ann:
                mine = ann.doc("notes")
                for number in range(EDITS):
                    typed(mine, f"{number} ")
                await mine.safe()
                assert await ann.frontier("notes") is None
                await ann.set_document_settings(DocumentSettings((), 1))
                await collected(here, EDITS)
                images = {room.store.find("notes").image for room in here.rooms().values()}
                assert len(images) == 1
                frontier = await ann.frontier("notes")
                assert frontier is not None
                expected = mine.view()
            async with here.client(1) as bob:
                other = bob.doc("notes")
                await other.synced()
                assert other.view() == expected
                typed(other, "later")
                await other.safe()
            for place in here.tasks.places:
                await here.tasks.stop(place)
            for place in here.tasks.places:
                here.tasks.start(place, token=False)
            await here.tasks.http.all_ready(here.tasks.places)
            async with here.client(0) as ann:
                await shows(ann.doc("notes"), "later")
                assert len(ann.doc("notes").document.graph) == EDITS + 1

    asyncio.run(run())


def test_edits_from_below_the_frontier_are_made_again(tmp_path: Path) -> None:
    """Bob edits offline on an old version, and comes back when it was forgotten."""

    async def run() -> None:
        (tmp_path / "replicas").mkdir()
        file = tmp_path / "bob.db"
        async with cluster(tmp_path / "replicas") as here, here.client(0) as ann:
            hurry(here)
            mine = ann.doc("notes")
            typed(mine, "shared ")
            await mine.safe()
            async with here.client(1, file) as bob:
                await shows(bob.doc("notes"), "shared")
            for number in range(EDITS):
                typed(mine, f"{number} ")
            await mine.safe()
            alone = Client.connect(here.genesis, here.keys[1], document_file=file, via=["nobody"])
            async with alone as bob:
                typed(bob.doc("notes"), "of bob ")
                assert bob.doc("notes").status == "local"
            await ann.set_document_settings(DocumentSettings((), 1))
            await collected(here, EDITS)
            async with here.client(1, file) as bob:
                other = bob.doc("notes")
                await other.safe()
                await shows(mine, "of bob")
                await until(lambda: mine.heads == other.heads, what="equal")
                assert mine.view() == other.view()
            async with here.client(1, file) as bob:
                assert bob.doc("notes").status == "safe"
                assert "of bob" in str(bob.doc("notes").view())

    asyncio.run(run())


def test_a_member_that_votes_for_lies_hinders_nobody(tmp_path: Path) -> None:
    """Before anyone else votes it names another image, and heads that nobody has."""

    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0) as ann:
            hurry(here)
            mine = ann.doc("notes")
            for number in range(EDITS):
                typed(mine, f"{number} ")
            await mine.safe()
            liar = here.tasks.running["test-3"].running
            assert liar is not None
            liar.collector.worth_operations = 10 * EDITS
            heads = tuple(sorted(mine.heads))
            lies = [Frontier(heads, bytes(32)), Frontier((bytes(32),), bytes(32))]
            for lie in lies:
                liar.collector._say((), "notes", lie, 0.0)
                await until(
                    lambda x=lie: any(
                        ("notes", x) in one.votes
                        for one in liar.store.key_store.frontiers.votes().values()
                    ),
                    what="the lie is in the log",
                )
            await ann.set_document_settings(DocumentSettings((), 1))
            await collected(here, EDITS)
            agreed = await ann.frontier("notes")
            assert agreed is not None
            assert (agreed.heads, agreed in lies) == (heads, False)

    asyncio.run(run())
