"""Epochs of running replicas: the admin's order, the records they show, answers after a switch."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dwcp.epochs import RecordChain
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.epochs import Records
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.switch import AdminSwitch
from replica.harness import Tasks
from replica.waiting import in_loop


def order(genesis: EpochRecord, record: EpochRecord, admin: Ed25519Signer, n: int = 4) -> bytes:
    unsigned = AdminSwitch(record.epoch, record.protocol, record.members[:n], bytes(64))
    sig = admin.sign(unsigned.signing_bytes(scope_of(genesis, record)))
    return msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))


@in_loop
async def test_an_order_begins_another_epoch_and_everybody_goes_on(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        http, places, admin = cluster.http, cluster.places, cluster.operator.admin
        genesis = client.records.genesis
        for epoch in (1, 2):
            client.agreed(await http.post_all(places, client.put(b"k", b"%d" % epoch)))
            body = order(genesis, client.records.current, admin)
            code, _, _ = await http.call("POST", f"{places[1].url}/dwcp/v1/orders", body)
            assert code == 202
            for place in places:

                async def has_it(p=place, e=epoch) -> bool:  # type: ignore[no-untyped-def]
                    return bool((await http.status(p))["epoch"] == e)

                await http.eventually(has_it, what=f"{place.name} in epoch {epoch}")
            assert await client.follow(http, places[2]) == epoch
        client.agreed(await http.post_all(places, client.put(b"k", b"after")))
        for place in places:
            await cluster.stop(place)
        for place in places:
            cluster.start(place)
        await http.all_ready(places)
        assert {(await http.status(place))["epoch"] for place in places} == {2}
        client.agreed(await http.post_all(places, client.put(b"k", b"after a restart")))


@pytest.mark.parametrize("case", ["stranger", "epoch", "three", "garbage"])
@in_loop
async def test_what_is_no_order_is_refused_and_changes_nothing(tmp_path: Path, case: str) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        genesis, admin = client.records.genesis, cluster.operator.admin
        later = msgspec.structs.replace(genesis, epoch=1)
        body = {
            "stranger": order(genesis, genesis, Ed25519Signer.generate()),
            "epoch": order(genesis, later, admin),
            "three": order(genesis, genesis, admin, n=3),
            "garbage": b"\xc1",
        }[case]
        url = f"{cluster.places[0].url}/dwcp/v1/orders"
        code, answer, _ = await cluster.http.call("POST", url, body)
        assert code == (400 if case == "garbage" else 409), answer
        assert await client.follow(cluster.http, cluster.places[0]) == 0


@in_loop
async def test_records_are_shown_from_any_epoch_on(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        url = f"{cluster.places[0].url}/dwcp/v1/epochs"
        code, body, _ = await cluster.http.call("GET", url)
        assert code == 200
        assert msgspec.msgpack.decode(body, type=Records) == Records(())
        for word in ("-1", "x", "9" * 19):
            code, _, _ = await cluster.http.call("GET", f"{url}?from={word}")
            assert code == 400, word
        chain = RecordChain(client.records.genesis, Ed25519Verifier())
        assert chain.extend(msgspec.msgpack.decode(body, type=Records).records) is None
