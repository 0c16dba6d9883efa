"""Documents of clients over real replicas: edits, receipts, partitions, restarts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dwcp import errors
from dwcp.client import Client
from dwcp.doc import Doc
from dwcp.identity import Ed25519Signer
from dwcp.wire.gossip import sign_read_token
from dwcp.wire.records import EpochRecord, Mode, ModePolicy, Protocol, scope_of
from dwcp.wire.switch import AdminSwitch
from replica.harness import Tasks
from replica.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]


class Cluster:
    """Four replicas in this loop, and clients with keys of their own."""

    def __init__(self, tasks: Tasks, genesis: EpochRecord, keys: list[Ed25519Signer]) -> None:
        self.tasks, self.genesis, self.keys = tasks, genesis, keys

    def client(self, person: int, file: Path | None = None, *via: int) -> Client:
        names = [self.tasks.places[number].name for number in via] or None
        return Client.connect(self.genesis, self.keys[person], document_file=file, via=names)

    def cut(self, *groups: set[int]) -> None:
        """Members hear of documents within their group only."""
        for member in self.rooms():
            mine = next(group for group in groups if member in group)
            room = self.rooms()[member]
            for other in set(range(4)) - mine:
                room.lost(other)

    def join(self) -> None:
        for member, room in self.rooms().items():
            for other in set(range(4)) - {member}:
                if other not in room.gossip.talks:
                    room.connected(other)

    def rooms(self):  # type: ignore[no-untyped-def]
        found = {}
        for replica in self.tasks.running.values():
            running = replica.running
            assert running is not None
            found[running.me] = running.documents
        return found


@asynccontextmanager
async def cluster(
    path: Path, protocol: Protocol = "pbft", mode: Mode | None = None
) -> AsyncIterator[Cluster]:
    async with Tasks(path) as tasks:
        keys = [tasks.client, Ed25519Signer.generate()]
        tasks.operator.clients = keys
        tasks.operator.protocol = protocol
        first: Mode = mode or ("Datacenter" if protocol == "raft" else "Internet")
        tasks.operator.modes = ModePolicy(first=first)
        await tasks.bootstrap()
        running = tasks.running["test-0"].running
        assert running is not None
        yield Cluster(tasks, running.genesis, keys)


def typed(doc: Doc, text: str) -> None:
    with doc.edit() as edit:
        edit.insert("body", len(str(doc.get("body", "text") or "")), text)


async def shows(doc: Doc, text: str, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        async for change in doc.changes():
            view = change.view
            if isinstance(view, dict) and text in str(view.get("body")):
                return


def test_two_clients_edit_one_text_and_know_when_it_is_safe(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0) as ann, here.client(1) as bob:
            mine, other = ann.doc("notes"), bob.doc("notes")
            await mine.synced()
            typed(mine, "Hello ")
            assert mine.status == "local"
            await mine.safe()
            assert mine.status == "safe"
            await shows(other, "Hello ")
            typed(other, "world")
            await shows(mine, "Hello world")
            await other.safe()
            assert mine.view() == other.view() == {"body": "Hello world"}

    asyncio.run(run())


def test_receipts_come_from_all_members_though_one_took_the_edit(tmp_path: Path) -> None:
    """What one member hears, it passes on; a client that reaches f+1 has its receipts."""

    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0, None, 0, 1) as ann:
            mine = ann.doc("notes")
            typed(mine, "Hello")
            await mine.safe()
            for room in here.rooms().values():
                await until(lambda r=room: "notes" in r.store, what="gossip")
                await until(
                    lambda r=room: r.store.document("notes").heads == mine.heads, what="level"
                )

    asyncio.run(run())


def test_with_too_few_members_an_edit_stays_local_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0, None, 2) as ann:
            mine = ann.doc("notes")
            typed(mine, "Hello")
            with pytest.raises(errors.TimedOut, match="1 of 1 members connected"):
                await mine.safe(timeout_ms=600)
            assert mine.status == "local"

    asyncio.run(run())


def test_a_partition_is_written_on_both_sides_and_heals(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            cluster(tmp_path) as here,
            here.client(0, None, 0, 1) as ann,
            here.client(1, None, 2, 3) as bob,
        ):
            left, right = ann.doc("notes"), bob.doc("notes")
            await asyncio.gather(left.synced(), right.synced())
            here.cut({0, 1}, {2, 3})
            typed(left, "left ")
            typed(right, "right ")
            await asyncio.gather(left.safe(), right.safe())
            assert left.view() != right.view()
            here.join()
            began = time.monotonic()
            await asyncio.gather(shows(left, "right"), shows(right, "left"))
            print(f"level {time.monotonic() - began:.3f} s after the cut healed")
            assert left.view() == right.view()

    asyncio.run(run())


def test_offline_edits_are_kept_and_sent_when_members_are_there(tmp_path: Path) -> None:
    """A client that reaches nobody edits, ends, starts again, and only then finds members."""

    async def run() -> None:
        file = tmp_path / "documents.db"
        async with cluster(tmp_path / "replicas") as here:
            async with here.client(0, file) as ann:
                await ann.doc("notes").synced()
            for place in here.tasks.places:
                await here.tasks.stop(place)
            async with here.client(0, file) as ann:
                typed(ann.doc("notes"), "written alone")
                assert ann.doc("notes").status == "local"
            for place in here.tasks.places:
                here.tasks.start(place, token=False)
            await here.tasks.http.all_ready(here.tasks.places)
            async with here.client(0, file) as ann, here.client(1) as bob:
                mine = ann.doc("notes")
                assert mine.status == "local"
                await mine.safe()
                await shows(bob.doc("notes"), "written alone")

    (tmp_path / "replicas").mkdir()
    asyncio.run(run())


def test_all_members_start_again_with_what_they_signed_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here:
            async with here.client(0) as ann:
                mine = ann.doc("notes")
                for number in range(50):
                    typed(mine, f"{number} ")
                await mine.safe()
            for place in here.tasks.places:
                await here.tasks.stop(place)
            for place in here.tasks.places:
                here.tasks.start(place, token=False)
            await here.tasks.http.all_ready(here.tasks.places)
            async with here.client(1) as bob:
                await shows(bob.doc("notes"), "49 ")

    asyncio.run(run())


def test_documents_as_json_and_as_events(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path) as here, here.client(0) as ann:
            http, url = here.tasks.http, here.tasks.places[1].url
            expires = int(time.time() * 1000) + 60_000
            token = sign_read_token(here.genesis.hash(), "notes", expires, here.keys[1])
            say = {"Authorization": token.header()}
            code, _, _ = await http.call("GET", f"{url}/dwcp/v1/docs/view/notes", **say)
            assert code == 404
            events = await http.session.get(f"{url}/dwcp/v1/docs/events/notes", headers=say)
            assert events.status == 200
            typed(ann.doc("notes"), "Hello")
            line = b""
            async with asyncio.timeout(10):
                while not line.startswith(b"data: "):
                    line = await events.content.readline()
            assert json.loads(line[6:])["view"] == {"body": "Hello"}
            code, body, _ = await http.call("GET", f"{url}/dwcp/v1/docs/view/notes", **say)
            assert (code, json.loads(body)["view"]) == (200, {"body": "Hello"})
            for path, header, expected in (
                ("view/notes", {}, 401),
                ("view/others", say, 401),
                ("view/notes", {"Authorization": "DWCP x"}, 401),
                ("conflicts", say, 401),
            ):
                code, _, _ = await http.call("GET", f"{url}/dwcp/v1/docs/{path}", **header)
                assert code == expected, path
            late = sign_read_token(here.genesis.hash(), "notes", expires - 120_000, here.keys[1])
            say = {"Authorization": late.header()}
            code, body, _ = await http.call("GET", f"{url}/dwcp/v1/docs/view/notes", **say)
            assert (code, json.loads(body)["error"]) == (401, "token-expired")
            events.close()

    asyncio.run(run())


def test_in_datacenter_mode_edits_go_through_the_log(tmp_path: Path) -> None:
    """All members have it from the log at once; gossip between them is cut."""

    async def run() -> None:
        async with cluster(tmp_path, "raft") as here, here.client(0) as ann:
            mine = ann.doc("notes")
            await mine.synced()
            here.cut({0}, {1}, {2}, {3})
            typed(mine, "by the log")
            await mine.safe()
            for room in here.rooms().values():
                await until(
                    lambda r=room: r.store.find("notes").heads == mine.heads, what="from the log"
                )
            documents = ann._documents
            assert documents is not None
            assert (documents.by_log, documents.by_gossip) == (1, 0)
            place = here.tasks.places[0]
            mode = 'dwcp_sync_mode{mode="Datacenter"}'
            assert await here.tasks.http.metric(place, mode) == 1

    asyncio.run(run())


def test_when_the_log_stands_still_edits_are_gossiped(tmp_path: Path) -> None:
    """Two of four members are left: no quorum, so no log; f+1 members hold the edit."""

    async def run() -> None:
        async with cluster(tmp_path, "raft") as here, here.client(0) as ann:
            mine = ann.doc("notes")
            await mine.synced()
            for place in here.tasks.places[2:]:
                await here.tasks.stop(place)
            typed(mine, "by gossip")
            assert mine.status == "local"
            await mine.safe()
            documents = ann._documents
            assert documents is not None
            assert (documents.by_log, documents.by_gossip) == (0, 1)
            assert documents.log_way.missed_in_a_row == 1
            for _ in range(4):  # as after more of them: it is left alone for longer
                documents.log_way.missed(documents.now_ms())
            typed(mine, ", at once")
            assert not documents._sending, "the log is left alone"
            await mine.safe()

    asyncio.run(run())


def test_in_hybrid_mode_the_log_comes_first_and_the_metrics_count_it(tmp_path: Path) -> None:
    """Both see a conflict; a member tells the brief's metrics of it and of the sync."""

    async def run() -> None:
        async with (
            cluster(tmp_path, "raft", "Hybrid") as here,
            here.client(0) as ann,
            here.client(1) as bob,
        ):
            mine, other = ann.doc("notes"), bob.doc("notes")
            await asyncio.gather(mine.synced(), other.synced())
            for doc, value in ((mine, "ann"), (other, "bob")):
                with doc.edit() as edit:
                    edit.set("title", value)
            await asyncio.gather(mine.safe(), other.safe())
            await until(lambda: mine.heads == other.heads, what="equal")
            assert ann._documents is not None
            assert ann._documents.by_log == 1
            member, place = here.rooms()[0], here.tasks.places[0]
            await until(lambda: member.store.find("notes").heads == mine.heads, what="level")
            before = time.time()
            metric = here.tasks.http.metric
            assert await metric(place, "dwcp_conflict_count") == 0
            shown = await member.view("notes")
            assert shown is not None
            for _ in range(2):  # each conflict once, however often it is shown
                await member.view("notes")
            assert await metric(place, "dwcp_conflict_count") == 1

            async def compared() -> bool:  # with another member, within some seconds
                return await metric(place, "dwcp_sync_count_total") >= 1

            await here.tasks.http.eventually(compared, what="a sync was counted")
            count = await metric(place, "dwcp_sync_count_total")
            assert abs(await metric(place, "dwcp_last_sync_time") - before) < 30
            seconds = await metric(place, "dwcp_sync_latency_seconds_sum")
            assert await metric(place, "dwcp_sync_latency_seconds_count") >= count
            assert seconds >= await metric(place, "dwcp_avg_sync_latency") >= 0
            for mode, holds in (("Hybrid", 1), ("Datacenter", 0), ("Internet", 0)):
                assert await metric(place, f'dwcp_sync_mode{{mode="{mode}"}}') == holds

    asyncio.run(run())


@pytest.mark.parametrize("first", ["raft", "pbft"])
def test_a_switch_of_the_protocol_in_the_middle_loses_nothing(
    tmp_path: Path, first: Protocol
) -> None:
    async def run() -> None:
        async with (
            cluster(tmp_path, first) as here,
            here.client(0) as ann,
            here.client(1) as bob,
        ):
            mine, other = ann.doc("notes"), bob.doc("notes")
            await asyncio.gather(mine.synced(), other.synced())
            genesis, then = here.genesis, "pbft" if first == "raft" else "raft"
            unsigned = AdminSwitch(0, then, genesis.members, bytes(64))  # type: ignore[arg-type]
            signed = here.tasks.operator.admin.sign(
                unsigned.signing_bytes(scope_of(genesis, genesis))
            )
            order = msgspec.structs.replace(unsigned, sig=signed)
            for number in range(60):
                typed(mine, f"a{number} ")
                typed(other, f"b{number} ")
                if number == 20:
                    await here.tasks.operator.post(
                        here.tasks.places, "orders", msgspec.msgpack.encode(order)
                    )
                await asyncio.sleep(0.02)  # people type
            await asyncio.gather(mine.safe(), other.safe())
            status = await here.tasks.http.status(here.tasks.places[0])
            assert (status["epoch"], status["protocol"]) == (1, then)
            await until(lambda: mine.heads == other.heads, what="both equal")
            assert len(mine.document.graph) == 120
            expected = sum(len(f"a{n} ") + len(f"b{n} ") for n in range(60))
            assert len(str(mine.get("body", "text"))) == expected

    asyncio.run(run())
