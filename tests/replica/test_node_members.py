"""Members of running replicas come and go: invited, learning, swapped in, removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dwcp import Client
from dwcp.cli.admin import follow
from dwcp.epochs import Invitation, RecordChain, sign_anchor
from dwcp.identity import Ed25519Signer
from dwcp.wire.records import Member
from replica.harness import Http, Place, RawClient, Tasks
from replica.waiting import in_loop, until


async def reach(http: Http, places: Sequence[Place], epoch: int) -> None:
    """Wait until these replicas are members of this epoch, or a later one, and vote."""
    for place in places:

        async def is_there(p: Place = place) -> bool:
            return await http.is_ready(p) and (await http.status(p))["epoch"] >= epoch

        await http.eventually(is_there, what=f"{place.name} votes in epoch {epoch}")


async def catch_up(http: Http, place: Place, index: int) -> None:
    """Wait until a learner has executed so much."""

    async def is_there() -> bool:
        status = await http.status(place)
        return bool(status["role"] == "learner" and status["appliedIndex"] >= index)

    await http.eventually(is_there, what=f"{place.name} has learned up to {index}")


async def is_removed(http: Http, place: Place) -> bool:
    return bool((await http.status(place))["phase"] == "Removed")


async def swap(
    cluster: Tasks, client: RawClient, before: Sequence[Place], members: Sequence[Member]
) -> int:
    """Bring the order for these members to those before, who stay but for the first few."""
    epoch = client.records.current.epoch + 1
    order = cluster.operator.order(client.records, members)
    await cluster.operator.post(before, "orders", order)
    await reach(cluster.http, before[3:], epoch)
    assert await client.follow(cluster.http, before[-1]) == epoch
    assert client.records.current.members == tuple(members)
    return epoch


@in_loop
async def test_a_member_is_replaced_and_the_old_one_says_so(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        http, places, operator = cluster.http, cluster.places, cluster.operator
        for n in range(25):
            client.agreed(await http.post_all(places, client.put(b"k%d" % n, b"v")))
        place, member = await cluster.invite(client.records)
        members = (member, *client.records.current.members[1:])
        order = operator.order(client.records, members)
        await operator.post(places, "learners", order)
        await catch_up(http, place, 26)
        assert client.records.current.epoch == 0, "learning switches nothing"
        said = await http.status(places[1])
        assert {p["name"]: p["role"] for p in said["peers"]}["test-4"] == "learner"
        epoch = await swap(cluster, client, places, members)
        new = [place, *places[1:]]
        await reach(http, new, epoch)
        client.agreed(await http.post_all(new, client.put(b"after", b"v")))
        await http.eventually(lambda: is_removed(http, places[0]), what="test-0 says it is removed")
        assert not (places[0].data / "identity.key").exists()
        assert "epoch 1 is without" in (await http.status(places[0]))["reason"]
        for one in new:
            await cluster.stop(one)
        for one in new:
            cluster.start(one)
        await reach(http, new, epoch)
        client.agreed(await http.post_all(new, client.put(b"after a restart", b"v")))
        roles = {p["name"]: p["role"] for p in (await http.status(new[1]))["peers"]}
        assert roles == {
            "test-0": "former", "test-2": "member", "test-3": "member", "test-4": "member",
        }  # fmt: skip


@in_loop
async def test_four_become_seven_and_four_again(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        http, places = cluster.http, cluster.places
        client.agreed(await http.post_all(places, client.put(b"k", b"1")))
        invited = [await cluster.invite(client.records) for _ in range(3)]
        more = [place for place, _ in invited]
        members = (*client.records.current.members, *(member for _, member in invited))
        order = cluster.operator.order(client.records, members)
        await cluster.operator.post(places, "learners", order)
        for place in more:
            await catch_up(http, place, 2)
        epoch = await swap(cluster, client, places, members)
        await reach(http, [*places, *more], epoch)
        client.agreed(await http.post_all([*places, *more], client.put(b"k", b"2")))
        gone, left = [more[0], *places[:2]], [*places[2:], *more[1:]]
        fewer = tuple(m for m in members if m.name in {p.name for p in left})
        epoch = await swap(cluster, client, [*gone, *left], fewer)
        await reach(http, left, epoch)
        client.agreed(await http.post_all(left, client.put(b"k", b"3")))
        for one in gone:
            await http.eventually(lambda p=one: is_removed(http, p), what=f"{one.name} is out")


@asynccontextmanager
async def counting(client: Client) -> AsyncIterator[list[int]]:
    """Write 1, 2, 3, ... to the key k, one after the other; the list has the last one written."""
    written = [0]

    async def count() -> None:
        while True:
            await client.put("k", str(written[0] + 1))
            written[0] += 1

    task = asyncio.create_task(count())
    try:
        yield written
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


@in_loop
async def test_a_watch_outlives_its_members_and_protocols(tmp_path: Path) -> None:
    """Raft and back, then every member replaced: nothing is missed or told twice."""
    async with Tasks(tmp_path) as cluster:
        raw = await cluster.bootstrap()
        http, places, operator = cluster.http, list(cluster.places), cluster.operator
        genesis = cluster.genesis.record
        async with (
            Client.connect(genesis, cluster.client) as client,
            client.watch("k", start_revision=2) as watch,
        ):
            async with counting(client) as written:
                for protocol in ("raft", "pbft"):
                    await until(lambda at=written[0]: written[0] > at + 5, what="it goes on")
                    order = operator.order(raw.records, raw.records.current.members, protocol)
                    await operator.post(places, "orders", order)
                    epoch = raw.records.current.epoch + 1
                    await reach(http, places, epoch)
                    assert await raw.follow(http, places[0]) == epoch
                    assert raw.records.current.protocol == protocol
                for _ in range(4):
                    place, member = await cluster.invite(raw.records)
                    members = (*raw.records.current.members[1:], member)
                    order = operator.order(raw.records, members)
                    await operator.post(places, "learners", order)
                    await catch_up(http, place, written[0])
                    order = operator.order(raw.records, members)
                    await operator.post(places, "orders", order)
                    epoch = raw.records.current.epoch + 1
                    gone, places = places[0], [*places[1:], place]
                    await reach(http, places, epoch)
                    assert await raw.follow(http, place) == epoch
                    await http.eventually(lambda p=gone: is_removed(http, p), what="it is out")
                at = written[0]
                await until(lambda: written[0] > at + 5, what="it goes on")
            total = written[0]
            async with asyncio.timeout(20):
                seen = [int((await anext(watch)).events[0].kv.value) for _ in range(total)]
            assert seen == list(range(1, total + 1))
            assert set(client.connected) == {place.name for place in places}
            assert not client.liars
        certified = raw.records.certified
        found = await follow(http.session, genesis, certified[:3])
        assert found.current == raw.records.current, "nobody of genesis is left to show it"


def with_key(records: RecordChain, name: str, key: bytes) -> tuple[Member, ...]:
    """The present members, but for the key of one."""
    return tuple(
        msgspec.structs.replace(m, identity=key) if m.name == name else m
        for m in records.current.members
    )


def keys_on(place: Place, seed: bytes) -> list[str]:
    """The files of a volume in which a private key lies."""
    text = seed.hex().encode()
    files = [path for path in place.data.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if text in path.read_bytes())


async def rotate(cluster: Tasks, raw: RawClient, place: Place) -> int:
    """Change the key of a running member; the epoch that begins with it."""
    shown = await cluster.operator.next_key(place, raw.records)
    members = with_key(raw.records, place.name, shown.identity)
    await cluster.operator.post(
        cluster.places, "orders", cluster.operator.order(raw.records, members)
    )
    epoch = raw.records.current.epoch + 1
    await reach(cluster.http, cluster.places, epoch)
    assert await raw.follow(cluster.http, place) == epoch
    return epoch


def has_key(place: Place, key: bytes) -> bool:
    """The volume names this key as its member's, and no other lies beside it."""
    member = msgspec.json.decode((place.data / "member.json").read_bytes())
    left = {path.name for path in place.data.glob("identity.*")}
    return bool(member["identity"] == key.hex()) and left == {"identity.key"}


@in_loop
async def test_a_member_changes_its_key_under_load(tmp_path: Path) -> None:
    """Twice, then everybody starts again: no write is lost, no watch broken, no old key left."""
    async with Tasks(tmp_path) as cluster:
        raw = await cluster.bootstrap()
        http, places = cluster.http, cluster.places
        genesis, place = cluster.genesis.record, places[1]
        seeds = []
        async with (
            Client.connect(genesis, cluster.client) as client,
            client.watch("k", start_revision=2) as watch,
            counting(client) as written,
        ):
            for _ in range(2):
                seeds.append(Ed25519Signer.load(place.data / "identity.key").seed)
                await rotate(cluster, raw, place)
                key = raw.records.current.members[1].identity
                await until(lambda k=key: has_key(place, k), what="it has changed")
                assert not [found for seed in seeds for found in keys_on(place, seed)]
                at = written[0]
                await until(lambda at=at: written[0] > at + 5, what="it goes on")
            await until(lambda: all(client.connected.values()), what="all are known again")
            async with asyncio.timeout(20):
                seen = [int((await anext(watch)).events[0].kv.value) for _ in range(written[0])]
            assert seen == list(range(1, len(seen) + 1))
            assert not client.liars
        for one in places:
            await cluster.stop(one)
        for one in places:
            cluster.start(one)
        await reach(http, places, 2)
        raw.agreed(await http.post_all(places, raw.put(b"after a restart", b"v")))
        assert (await cluster.operator.identity(place)).identity == key
        for one in places:
            roles = {p["name"]: p["role"] for p in (await http.status(one))["peers"]}
            assert roles == {p.name: "member" for p in places if p is not one}


@in_loop
async def test_a_member_that_was_down_when_its_key_was_swapped_goes_on(tmp_path: Path) -> None:
    """Its log ends in the old epoch, its volume holds both keys; the others tell it the rest."""
    async with Tasks(tmp_path) as cluster:
        raw = await cluster.bootstrap()
        http, places = cluster.http, cluster.places
        place, others = places[1], [places[0], *places[2:]]
        shown = await cluster.operator.next_key(place, raw.records)
        await cluster.stop(place)
        order = cluster.operator.order(
            raw.records, with_key(raw.records, place.name, shown.identity)
        )
        await cluster.operator.post(others, "orders", order)
        await reach(http, others, 1)
        await raw.follow(http, others[0])
        raw.agreed(await http.post_all(others, raw.put(b"k", b"while it was down")))
        cluster.start(place)
        await reach(http, places, 1)
        await until(lambda: has_key(place, shown.identity), what="it has changed")
        raw.agreed(await http.post_all(places, raw.put(b"k", b"v")))


@pytest.mark.parametrize("case", ["epoch", "signature", "member", "garbage", "size"])
@in_loop
async def test_a_wrong_request_makes_no_key(tmp_path: Path, case: str) -> None:
    async with Tasks(tmp_path) as cluster:
        raw = await cluster.bootstrap()
        place, ask = cluster.places[1], cluster.operator.ask_key
        match case:
            case "epoch":
                code, said = await ask(place, raw.records, epoch=1)
            case "signature":
                code, said = await ask(place, raw.records, by=cluster.client)
            case "member":
                code, said = await ask(place, raw.records, name="test-2")
            case _:
                body = b"\xc1" if case == "garbage" else bytes(5000)
                code, said, _ = await cluster.http.call("POST", f"{place.url}/dwcp/v1/keys", body)
        word = {"garbage": b"malformed", "size": b"too-large"}.get(case, b"key-" + case.encode())
        assert (code, word in said) == ({"garbage": 400, "size": 413}.get(case, 409), True), said
        assert not (place.data / "identity.next").exists()


@pytest.mark.parametrize("case", ["mac", "garbage", "unsigned", "anchor", "name"])
@in_loop
async def test_a_wrong_invitation_is_refused_and_changes_nothing(tmp_path: Path, case: str) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        place = Place.make(tmp_path, 4 if case != "name" else 9)
        if case == "name":
            place.name = "test-2"
        cluster.start(place)
        await cluster.http.eventually(lambda: cluster.http.is_up(place), what=place.name)
        genesis = cluster.genesis
        signer = Ed25519Signer.generate() if case == "anchor" else cluster.operator.admin
        anchor = sign_anchor(genesis.record, genesis.record, signer)
        if case == "unsigned":
            genesis = msgspec.structs.replace(genesis, member_sigs=(b"",) * 4)
        body = msgspec.msgpack.encode(Invitation(genesis, (), anchor))
        if case == "garbage":
            body = b"\xc1"
        if case == "mac":
            place.token_file.write_text("another\n")
        code, answer = await cluster.operator.offer_invitation(place, body)
        assert code == {"mac": 403, "garbage": 400}.get(case, 409), answer
        assert (await cluster.http.status(place))["phase"] == "Waiting"
        assert not (place.data / "genesis.msgpack").exists()
        assert client.records.current.epoch == 0
