"""From waiting replicas to a cluster, and everything that must not become one."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import msgspec
import pytest

from dwcp.identity import Ed25519Signer
from dwcp.wire.records import Identity, SignedGenesis, is_complete
from dwcp_replica.durable import DiskFailure
from replica.harness import Operator, Tasks
from replica.waiting import in_loop


@in_loop
async def test_a_waiting_replica_shows_its_identity_and_nothing_else(tmp_path: Path) -> None:
    async with Tasks(tmp_path, 1) as cluster:
        (place,) = cluster.places
        http = cluster.http
        await http.eventually(lambda: http.is_up(place), what="up")
        await cluster.operator.identity(place)
        for method, path, code in [
            ("GET", "/dwcp/v1/genesis", 404),
            ("GET", "/readyz", 503),
            ("GET", "/healthz", 200),
            ("GET", "/metrics", 200),
            ("GET", "/dwcp/v1/evidence", 200),
            ("POST", "/dwcp/v1/envelopes", 503),
            ("GET", "/dwcp/v1/connect", 503),
        ]:
            found, body, _ = await http.call(method, place.url + path)
            assert (path, found) == (path, code), body
        code, body, headers = await http.call("GET", f"{place.url}/dwcp/v1/status")
        status = msgspec.json.decode(body)
        assert "DWCP-Signature" not in headers
        assert (status["phase"], status["ready"], status["role"]) == ("Waiting", False, "waiting")
        assert status["reason"] == "waiting for the genesis"
        assert status["view"] is status["id"] is None


@in_loop
async def test_a_genesis_signed_by_all_starts_the_cluster(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        genesis = await cluster.operator.bootstrap(cluster.places)
        for place in cluster.places:
            url = f"{place.url}/dwcp/v1/genesis"
            _, body, _ = await cluster.http.call("GET", url)
            assert msgspec.msgpack.decode(body, type=SignedGenesis) == genesis
            code, body = await cluster.operator.offer(place, genesis)
            assert (code, msgspec.msgpack.decode(body, type=SignedGenesis)) == (200, genesis)


@in_loop
async def test_one_complete_genesis_reaches_all_that_signed(tmp_path: Path) -> None:
    """The operator may die after its first complete PUT: members ask each other."""
    async with Tasks(tmp_path) as cluster:
        operator, http = cluster.operator, cluster.http
        for place in cluster.places:
            await http.eventually(lambda p=place: http.is_up(p), what="up")
        genesis = await operator.make_genesis(cluster.places)
        genesis = await operator.collect(cluster.places, genesis)
        assert (await operator.offer(cluster.places[2], genesis))[0] == 200
        await http.all_ready(cluster.places)


@in_loop
async def test_restarts_while_waiting_lose_nothing(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        operator, http, places = cluster.operator, cluster.http, cluster.places
        for place in places:
            await http.eventually(lambda p=place: http.is_up(p), what="up")
        genesis = await operator.make_genesis(places)
        identity = await operator.identity(places[0])
        _, body = await operator.offer(places[0], genesis)
        first = msgspec.msgpack.decode(body, type=SignedGenesis)
        assert await cluster.stop(places[0]) == 0
        cluster.start(places[0])
        await http.eventually(lambda: http.is_up(places[0]), what="up again")
        assert await operator.identity(places[0]) == identity
        code, body = await operator.offer(places[0], genesis)
        assert msgspec.msgpack.decode(body, type=SignedGenesis) == first
        assert not is_complete(first)
        other = operator.sign(msgspec.structs.replace(genesis.record, leader=1))
        code, body = await operator.offer(places[0], other)
        assert (code, msgspec.json.decode(body)["error"]) == (409, "genesis-conflict")
        genesis = await operator.collect(places, first)
        for place in places:
            await operator.offer(place, genesis)
        await http.all_ready(places)


@in_loop
async def test_wrong_offers_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        operator, http, place = cluster.operator, cluster.http, cluster.places[0]
        for each in cluster.places:
            await http.eventually(lambda p=each: http.is_up(p), what="up")
        good = await operator.make_genesis(cluster.places)
        record = good.record
        own = record.members[0]
        other_key = msgspec.structs.replace(own, identity=Ed25519Signer.generate().public_key)
        other_certificate = msgspec.structs.replace(own, certificate=bytes(32))
        renamed = msgspec.structs.replace(own, name="test-9")
        rest = record.members[1:]
        stranger = Operator(http)
        offers = {
            "genesis-invalid": [
                msgspec.structs.replace(good, admin_sig=bytes(64)),
                msgspec.structs.replace(good, member_sigs=(bytes(64), b"", b"", b"")),
                operator.sign(msgspec.structs.replace(record, members=rest)),
                operator.sign(msgspec.structs.replace(record, start_hash=bytes(32))),
                stranger.sign(record),
            ],
            "genesis-foreign": [
                operator.sign(msgspec.structs.replace(record, cluster="another")),
                operator.sign(msgspec.structs.replace(record, namespace="another")),
                operator.sign(msgspec.structs.replace(record, members=(other_key, *rest))),
                operator.sign(msgspec.structs.replace(record, members=(other_certificate, *rest))),
                operator.sign(msgspec.structs.replace(record, members=(renamed, *rest))),
            ],
        }
        for reason, wrong in offers.items():
            expected = 400 if reason == "genesis-invalid" else 409
            for number, genesis in enumerate(wrong, start=1):
                code, body = await operator.offer(place, genesis)
                error = msgspec.json.decode(body)
                assert (code, error["error"]) == (expected, reason), (number, error)
                counted = await http.metric(place, f'dwcp_rejected_total{{reason="{reason}"}}')
                assert counted == number
        assert place.data.joinpath("genesis.msgpack").exists() is False
        assert (await http.status(place))["phase"] == "Waiting"
        assert (await operator.offer(place, good))[0] == 200


@in_loop
async def test_only_the_holder_of_the_token_gives_a_genesis(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        operator, http, place = cluster.operator, cluster.http, cluster.places[0]
        for each in cluster.places:
            await http.eventually(lambda p=each: http.is_up(p), what="up")
        genesis = await operator.make_genesis(cluster.places)
        code, body = await operator.offer(place, genesis, token=b"guessed")
        assert (code, msgspec.json.decode(body)["error"]) == (403, "token-mac")
        url = f"{place.url}/dwcp/v1/genesis"
        encoded = msgspec.msgpack.encode(genesis)
        for headers in ({}, {"DWCP_Token_MAC": "not hex"}, {"DWCP_Token_MAC": "00" * 32}):
            code, body, _ = await http.call("PUT", url, encoded, **headers)
            assert (code, msgspec.json.decode(body)["error"]) == (403, "token-mac")
        assert await http.metric(place, 'dwcp_rejected_total{reason="token-mac"}') == 4
        assert place.data.joinpath("genesis.msgpack").exists() is False


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"\xc1", 400, "malformed"),
        (b"", 400, "malformed"),
        (bytes(1024 * 1024 + 1), 413, "too-large"),
    ],
)
def test_what_is_no_genesis_is_refused(tmp_path: Path, body: bytes, code: int, reason: str) -> None:
    async def run() -> None:
        async with Tasks(tmp_path, 1) as cluster:
            (place,) = cluster.places
            http = cluster.http
            await http.eventually(lambda: http.is_up(place), what="up")
            found, answer, _ = await http.call("PUT", f"{place.url}/dwcp/v1/genesis", body)
            assert (found, msgspec.json.decode(answer)["error"]) == (code, reason)

    asyncio.run(run())


@in_loop
async def test_without_a_token_nobody_is_believed(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        operator, http, place = cluster.operator, cluster.http, cluster.places[0]
        for each in cluster.places:
            await http.eventually(lambda p=each: http.is_up(p), what="up")
        genesis = await operator.make_genesis(cluster.places)
        await cluster.stop(place)
        cluster.start(place, token=False)
        await http.eventually(lambda: http.is_up(place), what="up again")
        for token in (place.token, b"None"):
            code, body = await operator.offer(place, genesis, token)
            error = msgspec.json.decode(body)
            assert (code, error["error"]) == (403, "token-mac")
            assert "--token-file" in error["message"]
        _, body, _ = await http.call("GET", f"{place.url}/dwcp/v1/identity")
        assert msgspec.json.decode(body, type=Identity).mac == bytes(32)


@in_loop
async def test_a_disk_that_fails_on_the_genesis_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tasks(tmp_path) as cluster:
        operator, http, place = cluster.operator, cluster.http, cluster.places[0]
        for each in cluster.places:
            await http.eventually(lambda p=each: http.is_up(p), what="up")
        genesis = await operator.make_genesis(cluster.places)

        def failing(_fd: int) -> None:
            raise OSError(errno.EIO, "planted")

        monkeypatch.setattr(os, "fsync", failing)
        code, body = await operator.offer(place, genesis)
        assert (code, msgspec.json.decode(body)["error"]) == (500, "disk")
        with pytest.raises(BaseExceptionGroup) as caught:
            await asyncio.wait_for(cluster.ended(place), 5)
        assert caught.group_contains(DiskFailure)
