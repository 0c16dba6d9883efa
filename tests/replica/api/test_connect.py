"""Client WebSockets, against real replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from dwcp.identity import Ed25519Signer
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, Busy, Envelope, Rejected, Reply
from dwcp.wire.operations import PutResponse, RangeRequest
from dwcp.wire.records import EpochRecord
from dwcp_replica.api import desk
from dwcp_replica.api.connect import (
    ClientHello,
    ServerHello,
    client_hello_signing_bytes,
)
from replica.harness import Answer, Place, Tasks, decode_answer
from replica.waiting import in_loop

CLOSED_EARLY = (1009, 1006)


def _genesis(cluster: Tasks) -> EpochRecord:
    record = cluster.running[cluster.places[0].name].record
    assert record is not None
    return record


@asynccontextmanager
async def _socket(cluster: Tasks, place: Place) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"{place.url}/dwcp/v1/connect"
    async with cluster.http.session.ws_connect(url, max_msg_size=32 * 1024 * 1024) as ws:
        yield ws


@asynccontextmanager
async def _connection(
    cluster: Tasks, place: Place, signer: Ed25519Signer
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with _socket(cluster, place) as ws:
        hello = msgspec.msgpack.decode(await ws.receive_bytes(timeout=5), type=ServerHello)
        signed = client_hello_signing_bytes(_genesis(cluster).hash(), hello)
        answer = ClientHello(signer.public_key, signer.sign(signed))
        await ws.send_bytes(msgspec.msgpack.encode(answer))
        yield ws


async def _send(ws: aiohttp.ClientWebSocketResponse, envelope: Envelope) -> None:
    await ws.send_bytes(msgspec.msgpack.encode(envelope))


async def _receive(ws: aiohttp.ClientWebSocketResponse) -> Answer:
    return decode_answer(await ws.receive_bytes(timeout=10))


async def _reply(ws: aiohttp.ClientWebSocketResponse) -> Reply:
    answer = await _receive(ws)
    assert isinstance(answer, Reply), answer
    return answer


@in_loop
async def test_every_reply_of_a_client_comes_over_all_its_connections(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        first, second = cluster.places[1], cluster.places[2]
        async with (
            _connection(cluster, first, client.signer) as near,
            _connection(cluster, second, client.signer) as far,
            _connection(cluster, second, client.signer) as further,
        ):
            envelope = client.put(b"k")
            await _send(near, envelope)
            replies = [await _reply(near), await _reply(far)]
            assert await _reply(further) == replies[1]
            assert client.agreed(replies) == (PutResponse(),)
            elsewhere = client.put(b"k2")
            await cluster.http.post(cluster.places[0], elsewhere)
            replies = [await _reply(near), await _reply(far)]
            assert {reply.request for reply in replies} == {elsewhere.digest()}
            assert await cluster.http.metric(second, "dwcp_client_connections") == 2


@in_loop
async def test_many_envelopes_in_flight_over_one_connection(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        async with _connection(cluster, cluster.places[0], client.signer) as ws:
            envelopes = [client.put(b"k%d" % n) for n in range(100)]
            for envelope in envelopes:
                await _send(ws, envelope)
            replies = [await _reply(ws) for _ in envelopes]
            assert {r.request for r in replies} == {e.digest() for e in envelopes}
        status = await cluster.http.status(cluster.places[0])
        assert status["revision"] == 101


@in_loop
async def test_a_liar_about_its_key_does_not_get_in(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[0]
        stranger = Ed25519Signer.generate()
        stolen = msgspec.msgpack.encode(ClientHello(client.signer.public_key, bytes(64)))
        unknown = msgspec.msgpack.encode(ClientHello(stranger.public_key, bytes(64)))
        hellos: list[tuple[bytes | str, str]] = [
            (stolen, "hello-signature"),
            (unknown, "hello-unknown-client"),
            (b"\xc1", "hello-malformed"),
            (bytes(513), "hello-oversize"),
            ("text", "hello-missing"),
        ]
        for frame, reason in hellos:
            async with _socket(cluster, place) as ws:
                await ws.receive_bytes(timeout=5)
                await (ws.send_str(frame) if isinstance(frame, str) else ws.send_bytes(frame))
                await ws.receive(timeout=5)
                assert ws.close_code == 1008
            assert (
                await cluster.http.metric(place, f'dwcp_rejected_total{{reason="{reason}"}}') == 1
            )


@in_loop
async def test_a_hello_for_one_connection_is_worth_nothing_on_another(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        async with _socket(cluster, cluster.places[0]) as ws:
            hello = msgspec.msgpack.decode(await ws.receive_bytes(timeout=5), type=ServerHello)
            for wrong in (
                msgspec.structs.replace(hello, identity=bytes(32)),
                msgspec.structs.replace(hello, nonce=bytes(32)),
            ):
                signed = client_hello_signing_bytes(_genesis(cluster).hash(), wrong)
                answer = ClientHello(client.signer.public_key, client.signer.sign(signed))
                async with _socket(cluster, cluster.places[0]) as other:
                    await other.receive_bytes(timeout=5)
                    await other.send_bytes(msgspec.msgpack.encode(answer))
                    await other.receive(timeout=5)
                    assert other.close_code == 1008


@in_loop
async def test_bad_frames(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[0]
        async with _connection(cluster, place, client.signer) as ws:
            await ws.send_bytes(b"\xc1")
            answer = await _receive(ws)
            assert isinstance(answer, Rejected)
            assert answer.reason == "malformed"
            forged = msgspec.structs.replace(client.put(b"k"), sig=bytes(64))
            await _send(ws, forged)
            answer = await _receive(ws)
            assert isinstance(answer, Rejected)
            assert (answer.request, answer.reason) == (forged.digest(), "signature")
            assert client.checker.refuse(0, answer, forged.sig) is None
            await ws.send_bytes(bytes(MAX_ENVELOPE_BYTES + 1))
            await ws.receive(timeout=5)
            assert ws.close_code in CLOSED_EARLY
        too_large = 'dwcp_rejected_total{reason="too-large"}'
        assert await cluster.http.metric(place, too_large) == 1
        async with _connection(cluster, place, client.signer) as ws:
            await ws.send_str("text")
            await ws.receive(timeout=5)
            assert ws.close_code == 1003


@in_loop
async def test_a_client_that_does_not_read_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "OUTLET_BYTES_MAX", 1024 * 1024)
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[0]
        await cluster.http.post(place, client.put(b"k", bytes(1_000_000)))
        dropped = 'dwcp_rejected_total{reason="slow-reader"}'
        # more answers than the sockets' buffers and the outlet can hold
        async with _connection(cluster, place, client.signer):
            for _ in range(50):
                await cluster.http.post(place, client.envelope(RangeRequest(b"k")))
                if await cluster.http.metric(place, dropped):
                    break
            assert await cluster.http.metric(place, dropped) == 1
        await cluster.http.post(place, client.put(b"k2"))


@in_loop
async def test_a_full_queue_says_busy_and_recovers(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        for place in cluster.places[2:]:
            await cluster.stop(place)
        place = cluster.places[0]
        async with _connection(cluster, place, client.signer) as ws:
            envelopes = [client.put(b"k%d" % n) for n in range(600)]
            for envelope in envelopes:
                await _send(ws, envelope)
            busy = await _receive(ws)
            assert isinstance(busy, Busy)
            assert busy.request in {e.digest() for e in envelopes}
            assert busy.retry_after_ms > 0
            for stopped in cluster.places[2:]:
                cluster.start(stopped)
            answers = [await _receive(ws) for _ in envelopes[1:]]
            replies = [answer for answer in answers if isinstance(answer, Reply)]
            assert len(replies) == 512
            again = await cluster.http.post(
                place, next(e for e in envelopes if e.digest() == busy.request)
            )
            assert isinstance(again, Reply)


@in_loop
async def test_connections_close_when_the_replica_stops(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        async with _connection(cluster, cluster.places[3], client.signer) as ws:
            receiving = asyncio.create_task(ws.receive(timeout=10))
            assert await cluster.stop(cluster.places[3]) == 0
            await receiving
            assert ws.close_code == 1001


def test_clients_sign_a_hello_of_their_own() -> None:
    """The signed bytes: domain, no record, nonce, key. Clients in other languages rely on it."""
    hello = ServerHello(bytes(range(32)), b"k" * 32)
    expected = b"DWCP\x01\x0cclient-hello" + b"g" * 32 + bytes(32) + bytes(range(32)) + b"k" * 32
    assert client_hello_signing_bytes(b"g" * 32, hello) == expected
