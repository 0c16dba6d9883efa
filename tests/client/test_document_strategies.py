"""Agreed strategies over real replicas: what members and clients show, and who settles it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from client.test_documents import Cluster, cluster
from dwcp.client import Client
from dwcp.doc import Doc
from dwcp.wire.gossip import sign_read_token
from dwcp.wire.strategies import DocumentSettings, StrategyRule
from dwcp_operator.agreed import AgreedSettings
from replica.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

LARGEST = "values.filter(v, values.all(w, v >= w))[0]"


async def asked(here: Cluster, path: str, document: str) -> Any:
    """What one member says, as JSON."""
    expires = int(time.time() * 1000) + 60_000
    token = sign_read_token(here.genesis.hash(), document, expires, here.keys[0])
    url = f"{here.tasks.places[1].url}/dwcp/v1/docs/{path}"
    code, body, _ = await here.tasks.http.call("GET", url, Authorization=token.header())
    assert code == 200, body
    return json.loads(body)


async def conflict(here: Cluster, ann: Doc, bob: Doc, key: str) -> None:
    """Both write a register without having seen the other's."""
    await asyncio.gather(ann.synced(), bob.synced())
    for doc, value in ((ann, 1), (bob, 2)):
        with doc.edit() as edit:
            edit.set(key, value)
    await asyncio.gather(ann.safe(), bob.safe())
    await until(lambda: ann.heads == bob.heads, what="both have both")
    for room in here.rooms().values():
        await until(
            lambda r=room: r.store.find("notes").heads == ann.heads, what="members have both"
        )


def test_members_and_clients_show_what_the_log_says_and_people_settle_the_rest(
    tmp_path: Path,
) -> None:
    pytest.importorskip("celpy")

    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0) as ann, here.client(1) as bob:
            mine, other = ann.doc("notes"), bob.doc("notes")
            for key in ("size", "title", "tags"):
                await conflict(here, mine, other, key)
            await ann.set_document_settings(
                DocumentSettings(
                    (
                        StrategyRule("notes", "Name", ("size",), "Custom", "", LARGEST),
                        StrategyRule("no", "Prefix", ("title",), "Manual"),
                        StrategyRule("", "Prefix", (), "MultiValue"),
                    )
                )
            )
            assert await other.follow_strategies()
            expected = other.view()
            assert isinstance(expected, dict)
            assert expected["size"] == 2
            assert sorted(expected["tags"]) == [1, 2]  # type: ignore[arg-type,type-var]
            for replica in here.tasks.running.values():
                running = replica.running
                assert running is not None
                await until(
                    lambda s=running.store: s.key_store.strategies.version, what="executed there"
                )
            assert (await asked(here, "view/notes", "notes"))["view"] == expected
            told = await asked(here, "conflicts/notes", "notes")
            assert [one["path"] for one in told["waiting"]] == [["title"]]
            assert {one["strategy"] for one in told["history"]} >= {"CEL", "Manual", "MultiValue"}
            assert told["strategies"]["CEL"]["effectiveness"] == 1
            assert told["strategies"]["Manual"]["effectiveness"] == 0
            other.settle(("title",), "settled")
            await other.safe()
            await until(
                lambda: not other.conflicts() or len(other.conflicts()) == 2, what="settled"
            )
            for room in here.rooms().values():
                await until(
                    lambda r=room: r.store.find("notes").heads == other.heads, what="members know"
                )
            assert (await asked(here, "conflicts", ""))["waiting"] == []
            assert (await asked(here, "view/notes", "notes"))["view"]["title"] == "settled"

    asyncio.run(run())


def test_what_the_resource_says_is_brought_into_the_log_and_put_right_again(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(1) as bob:
            told: list[str] = []
            wanted = DocumentSettings((StrategyRule("notes", "Name", (), "Manual"),))

            def connect() -> Client:
                return here.client(0)

            agreed = AgreedSettings(connect, told.append)
            agreed.want(None)
            assert await bob.document_settings() == DocumentSettings()
            agreed.want(wanted)
            await until(lambda: told, what="agreed")
            assert await bob.document_settings() == wanted
            agreed.want(wanted)
            await bob.set_document_settings(DocumentSettings())
            again = AgreedSettings(connect, told.append)
            again.want(wanted)
            await until(lambda: len(told) == 2, what="put right")
            assert await bob.document_settings() == wanted
            await agreed.close()
            await again.close()

    asyncio.run(run())
