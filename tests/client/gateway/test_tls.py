"""The gateway over TLS: who may come in, and certificates that are renewed while it runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from client.gateway.running import running
from dwcp import errors
from dwcp.certificates import TlsFiles, renewing_context
from dwcp.gateway.health import why_unhealthy
from dwcp.gateway.proto import rpc_pb2
from dwcp.gateway.rpc import RpcServer
from dwcp.gateway.server import Gateway
from dwcp.wire.operations import Access, Grant
from replica.authority import Authority
from replica.waiting import in_loop

PUT = "/etcdserverpb.KV/Put"


@asynccontextmanager
async def secured(files: TlsFiles) -> AsyncIterator[tuple[int, int]]:
    """A gateway's JSON port and gRPC port, both with these files."""
    async with running() as found:
        rpc = RpcServer(found.desk, found.metrics)
        runner = Gateway(found.desk, found.metrics).runner()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=renewing_context(files)).start()
        try:
            yield runner.addresses[0][1], await rpc.start("127.0.0.1", 0, files)
        finally:
            await rpc.stop()
            await runner.cleanup()


def shown(port: int) -> bytes:
    """The certificate on a port, DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return found


def credentials_of(authority: Path, pair: TlsFiles | None) -> grpc.ChannelCredentials:
    key, chain = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
    return grpc.ssl_channel_credentials(authority.read_bytes(), key, chain)


async def put(port: int, authority: Path, pair: TlsFiles | None = None) -> grpc.StatusCode:
    """Write over gRPC; how it ended."""
    credentials = credentials_of(authority, pair)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        call = channel.unary_unary(PUT)
        try:
            await call(rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@in_loop
async def test_it_shows_its_certificate_and_the_next_one_when_that_is_there(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("gateway")
    trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    async with secured(files) as (port, rpc_port), aiohttp.ClientSession() as http:
        url = f"https://127.0.0.1:{port}/version"
        async with http.get(url, ssl=trust) as response:
            assert response.status == 200
        assert await put(rpc_port, tmp_path / "ca.crt") is grpc.StatusCode.OK
        before = [await asyncio.to_thread(shown, p) for p in (port, rpc_port)]
        assert before[0] == before[1] == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())

        key = files.key.read_bytes()
        authority.issue("gateway")
        new_key = files.key.read_bytes()
        files.key.write_bytes(key)  # half of the pair is there: what was shown goes on
        for place in (port, rpc_port):
            assert await asyncio.to_thread(shown, place) == before[0]
        files.key.write_bytes(new_key)
        after = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
        assert after != before[0]
        for place in (port, rpc_port):
            assert await asyncio.to_thread(shown, place) == after
        assert await put(rpc_port, tmp_path / "ca.crt") is grpc.StatusCode.OK
        files.certificate.unlink()
        for place in (port, rpc_port):
            assert await asyncio.to_thread(shown, place) == after


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("gateway")
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    with pytest.raises(ssl.SSLError):
        files.context()


@in_loop
async def test_a_gateway_whose_client_may_read_little_is_ready() -> None:
    """Refused is answered too: enough replicas have said so."""
    async with running() as found:
        key = found.loopback.members.client.public_key
        for access in (Access(admin=True, grants=(Grant(b"a", read=True),)), Access()):
            await found.client.set_access(key, access)
            with pytest.raises(errors.Refused):
                await found.client.get("health")
            assert await why_unhealthy(found.desk, serializable=False) is None
            assert await why_unhealthy(found.desk, serializable=True) is None


@in_loop
async def test_only_whom_the_authority_vouches_for_comes_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("stranger")
    files = replace(authority.issue("gateway"), authority=tmp_path / "ca.crt")
    user = authority.issue("user")
    async with secured(files) as (port, rpc_port), aiohttp.ClientSession() as http:
        url = f"https://127.0.0.1:{port}/version"
        for pair in (None, stranger):
            trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
            if pair is not None:
                trust.load_cert_chain(pair.certificate, pair.key)
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await http.get(url, ssl=trust)
            assert await put(rpc_port, tmp_path / "ca.crt", pair) is grpc.StatusCode.UNAVAILABLE
        trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        trust.load_cert_chain(user.certificate, user.key)
        async with http.get(url, ssl=trust) as response:
            assert response.status == 200
        assert await put(rpc_port, tmp_path / "ca.crt", user) is grpc.StatusCode.OK
