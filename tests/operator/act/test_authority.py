"""The operator's own authority: certificates that hold, and are renewed before their end."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dwcp.certificates import TlsFiles
from dwcp_operator.act.authority import (
    AUTHORITY_RENEWED,
    AUTHORITY_VALID,
    RENEWED,
    VALID,
    Authority,
    authority,
    renewed,
)

NOW = datetime.now(UTC).replace(microsecond=0)
HOSTS = ("demo-gateway.shop.svc", "localhost")


def kept(data: dict[str, bytes], path: Path) -> TlsFiles:
    path.mkdir()
    for name, content in data.items():
        (path / name).write_bytes(content)
    return TlsFiles(path / "tls.crt", path / "tls.key", path / "ca.crt")


async def shake(server: TlsFiles, user: TlsFiles | None, host: str) -> None:
    """One handshake and a byte. Raises what TLS says."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server.context())
    trust = ssl.create_default_context(cafile=server.authority)
    if user is not None:
        trust.load_cert_chain(user.certificate, user.key)
    port = listening.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname=host
        )
        try:
            if await reader.read(1) != b"!":
                raise ssl.SSLError("the server hung up")
        finally:
            writer.close()
    finally:
        listening.close()


def test_users_and_gateways_take_each_others_certificates(tmp_path: Path) -> None:
    by = authority(None, "shop/demo", NOW)
    gateway = kept(by.issue("demo-gateway", HOSTS, NOW), tmp_path / "gateway")
    user = kept(by.issue("app", (), NOW), tmp_path / "user")
    asyncio.run(shake(gateway, user, HOSTS[0]))
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(shake(gateway, user, "elsewhere"))
    with pytest.raises(ssl.SSLError):
        asyncio.run(shake(gateway, None, HOSTS[0]))
    with pytest.raises(ssl.SSLError):  # a user's certificate is none for a server
        asyncio.run(shake(user, user, HOSTS[0]))


def test_a_certificate_is_renewed_before_its_end_and_not_earlier() -> None:
    by = authority(None, "shop/demo", NOW)
    made = by.issue("demo-gateway", HOSTS, NOW)

    def due(later: timedelta) -> bool:
        return renewed(made, by, "demo-gateway", HOSTS, NOW + later) is not None

    assert not due(timedelta(0))
    assert not due(VALID - RENEWED - timedelta(seconds=1))
    assert due(VALID - RENEWED)
    assert due(2 * VALID)


@pytest.mark.parametrize("change", ["host", "certificate", "key", "stranger"])
def test_what_does_not_hold_is_made_anew(change: str) -> None:
    by = authority(None, "shop/demo", NOW)
    made = by.issue("demo-gateway", HOSTS, NOW)
    hosts = HOSTS
    match change:
        case "host":
            hosts = (*HOSTS, "another")
        case "certificate":
            made["tls.crt"] = b"torn"
        case "key":
            made["tls.key"] = by.issue("demo-gateway", HOSTS, NOW)["tls.key"]
        case "stranger":
            made = authority(None, "shop/demo", NOW).issue("demo-gateway", HOSTS, NOW)
    again = renewed(made, by, "demo-gateway", hosts, NOW)
    assert again is not None
    assert renewed(again, by, "demo-gateway", hosts, NOW) is None


def test_the_authority_follows_itself_and_both_are_trusted(tmp_path: Path) -> None:
    """Who still shows what the old one vouched for is let in, and the other way round."""
    begin = NOW - AUTHORITY_VALID + AUTHORITY_RENEWED
    old = authority(None, "shop/demo", begin)
    user = old.issue("app", (), NOW)
    assert authority(old, "shop/demo", NOW - timedelta(seconds=1)) is old
    new = authority(old, "shop/demo", NOW)
    assert new is not old
    assert new.certificates[1:] == old.certificates
    bundle = renewed(user, new, "app", (), NOW)
    assert bundle is not None
    assert bundle["tls.crt"] == user["tls.crt"], "only the bundle is another"
    assert bundle["ca.crt"] == new.pem
    gateway = kept(new.issue("demo-gateway", HOSTS, NOW), tmp_path / "gateway")
    asyncio.run(shake(gateway, kept(bundle, tmp_path / "user"), HOSTS[0]))
    last = authority(new, "shop/demo", NOW + AUTHORITY_VALID - AUTHORITY_RENEWED)
    assert last.certificates[1:] == new.certificates[:1], "one whose time is over is dropped"


def test_it_is_read_back_and_a_damaged_one_is_refused() -> None:
    by = authority(None, "shop/demo", NOW)
    assert Authority.load(by.data()).pem == by.pem
    other = authority(None, "shop/demo", NOW)
    for spoilt in (
        {},
        {**by.data(), "ca.key": b""},
        {**by.data(), "ca.key": other.data()["ca.key"]},
    ):
        with pytest.raises(ValueError, match=r".+"):
            Authority.load(spoilt)
