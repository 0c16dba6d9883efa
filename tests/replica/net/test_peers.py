"""Two members and a stranger, over real sockets and real TLS on loopback."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.peer import MAX_FRAME_BYTES, Bodies, Status, encode_message
from dwcp_replica.net import dialer as dialing
from dwcp_replica.net.hello import (
    PEER_PATH,
    SPOKEN,
    Challenge,
    Hello,
    HelloError,
    LocalMember,
    Versions,
    answer,
    check,
)
from dwcp_replica.net.roster import Roster
from dwcp_replica.net.tls import client_context
from replica.net.cluster import Dialing, Keys, Listener, make_keys, make_record
from replica.ports import free_port
from replica.waiting import until

STATUS = Status(epoch=0, view=1, active=True, last=5, prepared=4, final=3, stable=0)

CLOSED_EARLY = (1009, 1006)
"""The server closes before it has read all; the close frame may be lost on the way."""


class Pair:
    """Member 0 listens, member 1 dials."""

    def __init__(self, directory: Path) -> None:
        self.keys = [make_keys(directory, f"test-{i}") for i in range(4)]
        self.port = free_port()
        self.record = make_record(self.keys, [self.port, 1, 1, 1])
        self.server = self.local(0)
        self.client = self.local(1)

    def local(
        self, member: int, signer: Ed25519Signer | None = None, wire: Versions = SPOKEN
    ) -> Roster:
        keys = self.keys[member]
        signer = signer or keys.signer
        local = LocalMember(self.record.hash(), self.record.epoch, signer, keys.fingerprint, wire)
        return Roster(local, self.record)

    def hello(self, challenge: bytes) -> bytes:
        """Member 1's hello for member 0."""
        return answer(self.client.local, self.keys[0].fingerprint, challenge)

    def listener(self, keys: Keys | None = None) -> Listener:
        return Listener(self.server, keys or self.keys[0], self.port)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_messages_arrive_in_order(pair: Pair) -> None:
    async def run() -> None:
        async with pair.listener() as listener, Dialing(pair.client) as dialer:
            sent = [msgspec.structs.replace(STATUS, last=i) for i in range(500)]
            for message in sent:
                dialer.dialer.send(0, message)
            await until(lambda: len(listener.received) == 500, what="all frames")
            assert listener.received == [(1, message) for message in sent]
            assert listener.server.connected(1)
            assert dialer.dialer.connected(0)
            assert (listener.server.silence_ms(1) or 0) < 5000
            assert listener.server.silence_ms(2) is None
            assert not listener.seen.refused

    asyncio.run(run())


def test_everyone_gets_a_broadcast_once(pair: Pair) -> None:
    async def run() -> None:
        async with pair.listener() as listener, Dialing(pair.client) as dialer:
            dialer.dialer.send(None, STATUS)
            await until(lambda: listener.received, what="the broadcast")
            assert listener.received == [(1, STATUS)]

    asyncio.run(run())


def test_redials_until_the_peer_is_there_and_again_after_it_was_gone(pair: Pair) -> None:
    async def run() -> None:
        async with Dialing(pair.client) as dialer:
            await until(lambda: dialer.seen.failed["unreachable"] >= 2, what="failed dials")
            dialer.dialer.send(0, STATUS)
            async with pair.listener() as first:
                await until(lambda: first.received, what="the frame queued before")
            await until(lambda: not dialer.dialer.connected(0), what="the loss noticed")
            async with pair.listener() as second:
                await until(lambda: dialer.dialer.connected(0), what="connected again")
                dialer.dialer.send(0, STATUS)
                await until(lambda: second.received, what="a frame after it")

    asyncio.run(run())


def test_a_member_that_shows_itself_is_dialed_at_once(pair: Pair) -> None:
    """A dial to where it was before hangs; when the member connects to us, it must be elsewhere."""

    async def run() -> None:
        hanging: list[asyncio.StreamWriter] = []
        nobody = await asyncio.start_server(lambda _, w: hanging.append(w), "127.0.0.1", pair.port)
        async with Dialing(pair.client) as dialer:
            await until(lambda: hanging, what="a dial that hangs")
            nobody.close()
            async with pair.listener() as listener:
                dialer.dialer.try_now(0)
                await until(lambda: dialer.dialer.connected(0), what="connected", seconds=2)
                dialer.dialer.try_now(0)
                dialer.dialer.send(0, STATUS)
                await until(lambda: listener.received, what="a frame")
                assert listener.met == [1], "a fresh connection is left alone"
        for writer in hanging:
            writer.close()

    asyncio.run(run())


def test_another_certificate_is_refused_by_the_dialer(pair: Pair, tmp_path: Path) -> None:
    async def run() -> None:
        impostor = make_keys(tmp_path, "impostor")
        async with pair.listener(impostor) as listener, Dialing(pair.client) as dialer:
            dialer.dialer.send(0, STATUS)
            await until(lambda: dialer.seen.failed["fingerprint"] >= 2, what="refused twice")
            assert not listener.received
            assert not dialer.dialer.connected(0)

    asyncio.run(run())


def test_another_key_is_refused_by_the_server(pair: Pair) -> None:
    async def run() -> None:
        stranger = pair.local(1, Ed25519Signer.generate())
        async with pair.listener() as listener, Dialing(stranger) as dialer:
            dialer.dialer.send(0, STATUS)
            await until(lambda: listener.seen.refused["hello-member"] >= 2, what="refused twice")
            await until(lambda: dialer.seen.failed["refused"] >= 1, what="the dialer told")
            assert not listener.received

    asyncio.run(run())


async def _hello(pair: Pair, frame: bytes | str | None) -> int | None:
    """Dial by hand, send `frame` as the hello; return the close code."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"wss://127.0.0.1:{pair.port}{PEER_PATH}", ssl=client_context()) as ws,
    ):
        challenge = await ws.receive_bytes(timeout=5)
        if isinstance(frame, str):
            await ws.send_str(frame)
        elif frame is None:
            await ws.send_bytes(pair.hello(challenge))
        else:
            await ws.send_bytes(frame)
        await ws.receive(timeout=5)
        return ws.close_code


def _stale_hello(pair: Pair) -> bytes:
    return pair.hello(msgspec.msgpack.encode(Challenge(bytes(32))))


def _hello_with(pair: Pair, **fields: int | bytes) -> bytes:
    hello = msgspec.msgpack.decode(_stale_hello(pair), type=Hello)
    return msgspec.msgpack.encode(msgspec.structs.replace(hello, **fields))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (_stale_hello, "hello-signature"),
        (lambda pair: _hello_with(pair, identity=pair.record.members[0].identity), "hello-member"),
        (lambda pair: _hello_with(pair, identity=bytes(32)), "hello-member"),
        (
            lambda pair: _hello_with(pair, identity=pair.record.members[2].identity),
            "hello-signature",
        ),
        (lambda pair: _hello_with(pair, epoch=1), "hello-signature"),
        (lambda pair: b"\xc1", "hello-malformed"),
        (lambda pair: bytes(600), "hello-oversize"),
        (lambda pair: bytes(MAX_FRAME_BYTES + 1), "oversize"),
        (lambda pair: "hello", "hello-missing"),
    ],
)
def test_a_wrong_hello_is_counted_and_closed(pair: Pair, frame: object, reason: str) -> None:
    async def run() -> None:
        assert callable(frame)
        async with pair.listener() as listener:
            code = await _hello(pair, frame(pair))
            assert code in (CLOSED_EARLY if reason == "oversize" else (1008,))
            assert listener.seen.refused == {reason: 1}
            assert not listener.server.connected(1)

    asyncio.run(run())


@pytest.mark.parametrize("newer", ["dialer", "listener"])
def test_a_newer_member_speaks_the_older_version_to_an_older_one(
    pair: Pair, newer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A roll replaces members one by one: whoever is new still knows what the others speak."""
    both = Versions(oldest=1, newest=2)
    if newer == "dialer":
        pair.client = pair.local(1, wire=both)
    else:
        pair.server = pair.local(0, wire=both)

    async def run() -> None:
        async with pair.listener() as listener, Dialing(pair.client) as dialer:
            dialer.dialer.send(0, STATUS)
            await until(lambda: listener.received == [(1, STATUS)], what="the frame")

    with caplog.at_level("INFO"):
        asyncio.run(run())
    assert [r.wire for r in caplog.records if r.message == "peer-accepted"] == [1]  # type: ignore[attr-defined]


def test_a_member_that_knows_only_later_versions_is_refused_and_counted(pair: Pair) -> None:
    later = pair.local(1, wire=Versions(oldest=2, newest=3))

    async def run() -> None:
        async with pair.listener() as listener, Dialing(later) as dialer:
            await until(lambda: dialer.seen.failed["hello-version"] >= 1, what="the dialer told")
            assert not listener.server.connected(1)

    asyncio.run(run())
    hello = msgspec.msgpack.decode(_stale_hello(pair), type=Hello)
    frame = msgspec.msgpack.encode(msgspec.structs.replace(hello, oldest=2, newest=3))
    server = pair.server
    with pytest.raises(HelloError, match="hello-version"):
        check(server.local, server.number_of, Ed25519Verifier(), bytes(32), frame)


def test_of_versions_the_newest_that_both_speak_is_taken() -> None:
    frame = Challenge(bytes(32), 2, 5)
    assert Versions(1, 3).common(frame) == 3
    assert Versions(4, 9).common(frame) == 5
    for other in (Versions(1, 1), Versions(6, 7)):
        with pytest.raises(HelloError, match="hello-version"):
            other.common(frame)
    today = {"nonce": bytes(32)}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Challenge(bytes(32)))) == today


def test_frames_that_do_not_decode_are_dropped_and_larger_ones_close(pair: Pair) -> None:
    async def run() -> None:
        async with (
            pair.listener() as listener,
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"wss://127.0.0.1:{pair.port}{PEER_PATH}", ssl=client_context()
            ) as ws,
        ):
            await ws.send_bytes(pair.hello(await ws.receive_bytes(timeout=5)))
            await ws.send_bytes(b"\xc1\xc1")
            await ws.send_bytes(b"\x9b" + encode_message(STATUS)[1:] + b"\x91" * 100_000)
            await ws.send_bytes(encode_message(STATUS))
            await until(lambda: listener.received, what="the good frame after the bad one")
            assert listener.seen.refused == {"malformed": 2}
            await ws.send_bytes(bytes(MAX_FRAME_BYTES + 1))
            await until(lambda: listener.seen.refused["oversize"], what="the large frame refused")
            await ws.receive(timeout=5)
            assert ws.close_code in CLOSED_EARLY

    asyncio.run(run())


def test_a_frame_at_the_limit_passes_and_one_above_is_not_sent(pair: Pair) -> None:
    async def run() -> None:
        async with pair.listener() as listener, Dialing(pair.client) as dialer:
            overhead = len(encode_message(Bodies((bytes(MAX_FRAME_BYTES // 2),)))) - (
                MAX_FRAME_BYTES // 2
            )
            largest = Bodies((bytes(MAX_FRAME_BYTES - overhead),))
            assert len(encode_message(largest)) == MAX_FRAME_BYTES
            dialer.dialer.send(0, Bodies((bytes(MAX_FRAME_BYTES),)))
            assert dialer.seen.dropped == 1
            dialer.dialer.send(0, largest)
            await until(lambda: listener.received, what="the largest frame")
            assert listener.received == [(1, largest)]

    asyncio.run(run())


def test_the_newer_connection_of_a_member_replaces_the_older(pair: Pair) -> None:
    async def run() -> None:
        async with (
            pair.listener() as listener,
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"wss://127.0.0.1:{pair.port}{PEER_PATH}", ssl=client_context()
            ) as old,
        ):
            await old.send_bytes(pair.hello(await old.receive_bytes(timeout=5)))
            await until(lambda: listener.server.connected(1), what="the first connection")
            async with Dialing(pair.client) as dialer:
                dialer.dialer.send(0, STATUS)
                await old.receive(timeout=5)
                assert old.close_code == 1001
                await until(lambda: listener.received, what="a frame over the second")
                assert listener.server.connected(1)

    asyncio.run(run())


def test_a_receiver_that_does_not_read_costs_frames_not_memory(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        monkeypatch.setattr(dialing, "QUEUE_FRAMES_MAX", 8)
        async with pair.listener() as listener, Dialing(pair.client) as dialer:
            await until(lambda: dialer.dialer.connected(0), what="connected")
            listener.gate.clear()
            body = Bodies((bytes(1024 * 1024),))
            for _ in range(40):
                dialer.dialer.send(0, body)
                await asyncio.sleep(0)
            dialer.dialer.send(0, STATUS)
            assert dialer.seen.dropped > 0
            listener.gate.set()
            await until(lambda: (1, STATUS) in listener.received, what="the newest frame")
            assert len(listener.received) + dialer.seen.dropped == 41

    asyncio.run(run())


def test_only_tls_1_3_is_spoken(pair: Pair) -> None:
    async def run() -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with pair.listener(), aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.ws_connect(f"wss://127.0.0.1:{pair.port}{PEER_PATH}", ssl=old)

    asyncio.run(run())


def test_a_hello_made_for_another_member_is_refused(pair: Pair) -> None:
    """A member that relays my challenge to another gains nothing: the hello names the server."""

    async def run() -> None:
        other = pair.local(2)
        async with (
            Listener(other, pair.keys[2], pair.port) as listener,
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"wss://127.0.0.1:{pair.port}{PEER_PATH}", ssl=client_context()
            ) as ws,
        ):
            await ws.send_bytes(pair.hello(await ws.receive_bytes(timeout=5)))
            await ws.receive(timeout=5)
            assert ws.close_code == 1008
            assert listener.seen.refused == {"hello-signature": 1}

    asyncio.run(run())
