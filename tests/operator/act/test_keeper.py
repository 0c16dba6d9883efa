from __future__ import annotations

import msgspec
import pytest

from dwcp.client import Client
from dwcp.identity import Ed25519Signer
from dwcp.wire.records import Identity, SignedGenesis, genesis_signing_bytes, is_complete
from dwcp_operator.act.api import KubeApi
from dwcp_operator.act.keeper import GenesisKeeper, KeeperError
from dwcp_operator.act.snapshot import Snapshot, read
from dwcp_operator.act.writer import TakenError, Writer
from dwcp_operator.build import secrets as build
from kube.apiserver import ApiServer, serving
from kube.subjects import resource
from replica.waiting import in_loop

SIGNERS = {f"demo-{i}": Ed25519Signer(bytes([i + 1]) * 32) for i in range(4)}
IDENTITIES = {
    name: Identity(name, signer.public_key, name.encode().ljust(32, b"c"), bytes(64), bytes(32))
    for name, signer in SIGNERS.items()
}


async def look(api: KubeApi) -> Snapshot:
    found = await read(api, "shop", "demo")
    assert found is not None
    return found


async def with_keys(server: ApiServer, api: KubeApi) -> tuple[GenesisKeeper, Snapshot, Writer]:
    server.put("dwcpclusters", resource(clients=["app", "batch"]))
    keeper, writer = GenesisKeeper(), Writer(api, lambda: None)
    await keeper.ensure_keys(await look(api), writer)
    snapshot = await look(api)
    keeper.refresh(snapshot)
    return keeper, snapshot, writer


def signed_by_all(genesis: SignedGenesis) -> SignedGenesis:
    message = genesis_signing_bytes(genesis.record)
    sigs = tuple(SIGNERS[m.name].sign(message) for m in genesis.record.members)
    return msgspec.structs.replace(genesis, member_sigs=sigs)


@in_loop
async def test_of_two_operators_that_make_a_genesis_one_does() -> None:
    async with serving() as (server, api):
        first, snapshot, writer = await with_keys(server, api)
        second = GenesisKeeper()
        second.refresh(snapshot)
        await first.create(snapshot, IDENTITIES, writer)
        with pytest.raises(TakenError):
            await second.create(snapshot, IDENTITIES, writer)
        assert second.signed is None
        second.refresh(await look(api))
        assert second.signed == first.signed


@in_loop
async def test_published_secrets_are_all_that_a_client_needs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with serving() as (server, api):
        keeper, snapshot, writer = await with_keys(server, api)
        await keeper.create(snapshot, IDENTITIES, writer)
        assert keeper.signed is not None
        keeper.collect(signed_by_all(keeper.signed))
        assert not keeper.published
        await keeper.publish(snapshot, writer)
        directory = tmp_path_factory.mktemp("client")
        for name, data in build.data_of(server.objects["secrets", "shop", "demo-client"]).items():
            (directory / name).write_bytes(data)
        assert Client.from_directory(directory) is not None
        assert ("secrets", "shop", "demo-client-batch") in server.objects


@in_loop
async def test_a_restarted_operator_reads_everything_back() -> None:
    async with serving() as (server, api):
        keeper, snapshot, writer = await with_keys(server, api)
        await keeper.create(snapshot, IDENTITIES, writer)
        assert keeper.signed is not None
        keeper.collect(signed_by_all(keeper.signed))
        await keeper.publish(snapshot, writer)
        later = GenesisKeeper()
        later.refresh(await look(api))
        assert later.published
        assert later.signed is not None
        assert is_complete(later.signed)
        assert later.held() == keeper.held()


@in_loop
async def test_a_lost_client_secret_is_made_again_with_the_same_key() -> None:
    async with serving() as (server, api):
        keeper, snapshot, writer = await with_keys(server, api)
        await keeper.create(snapshot, IDENTITIES, writer)
        assert keeper.signed is not None
        keeper.collect(signed_by_all(keeper.signed))
        await keeper.publish(snapshot, writer)
        lost = server.objects.pop(("secrets", "shop", "demo-client"))
        snapshot = await look(api)
        keeper.refresh(snapshot)
        assert not keeper.published
        await keeper.publish(snapshot, writer)
        assert server.objects["secrets", "shop", "demo-client"]["data"] == lost["data"]


@in_loop
async def test_a_genesis_of_another_admin_is_not_taken_over() -> None:
    async with serving() as (server, api):
        keeper, snapshot, writer = await with_keys(server, api)
        await keeper.create(snapshot, IDENTITIES, writer)
        assert keeper.signed is not None
        record = msgspec.structs.replace(
            keeper.signed.record, admin=Ed25519Signer(b"z" * 32).public_key
        )
        foreign = msgspec.structs.replace(keeper.signed, record=record)
        with pytest.raises(KeeperError, match="another admin key"):
            await GenesisKeeper().adopt(snapshot, foreign, writer)


@in_loop
async def test_a_damaged_record_stops_everything_with_a_sentence() -> None:
    async with serving() as (server, api):
        keeper, snapshot, writer = await with_keys(server, api)
        await keeper.create(snapshot, IDENTITIES, writer)
        place = ("configmaps", "shop", snapshot.subject.genesis_map)
        server.objects[place]["binaryData"] = {"record.msgpack": "AAAA"}
        with pytest.raises(KeeperError, match="restore it"):
            GenesisKeeper().refresh(await look(api))
