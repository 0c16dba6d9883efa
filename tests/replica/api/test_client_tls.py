"""TLS on the client port: pinned by the genesis, or vouched for by an authority of the user's."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from dwcp import errors
from dwcp.client import Client
from dwcp.directory import pinned, trust_in
from dwcp.wire.records import SignedGenesis
from dwcp_replica.__main__ import main
from dwcp_replica.node.config import EXIT_REFUSED
from dwcp_replica.node.throwaway import throwaway_context
from replica.authority import Authority
from replica.harness import Tasks
from replica.waiting import in_loop, until


def tls_tasks(path: Path) -> Tasks:
    cluster = Tasks(path)
    for place in cluster.places:
        place.client_tls = True
    return cluster


async def genesis_of(cluster: Tasks) -> SignedGenesis:
    return await cluster.operator.bootstrap(cluster.places)


@in_loop
async def test_a_client_pins_the_certificates_that_the_genesis_names(tmp_path: Path) -> None:
    async with tls_tasks(tmp_path) as cluster:
        genesis = await genesis_of(cluster)
        assert all(member.client.startswith("https://") for member in genesis.record.members)
        async with Client.connect(genesis, cluster.client) as client:
            await client.put("k", "v")
            found = await client.get("k")
            assert found is not None
            assert found.value == b"v"
            await until(lambda: all(client.connected.values()), what="connected to all")
        plain = cluster.places[0].url.replace("https", "http")
        with pytest.raises(aiohttp.ClientError):
            await cluster.http.call("GET", f"{plain}/healthz")


@in_loop
async def test_another_certificate_is_refused_and_counted(tmp_path: Path) -> None:
    """Somebody stands where member 3 was: the client talks to the others only."""
    cluster = tls_tasks(tmp_path)
    cluster.places[3].client_tls_files = Authority(tmp_path).issue("somebody")
    async with cluster:
        genesis = await genesis_of(cluster)
        async with Client.connect(genesis, cluster.client) as client:
            await until(lambda: client.refused.get("certificate"), what="refused")
            await until(lambda: sum(client.connected.values()) == 3, what="connected to three")
            assert not client.connected[cluster.places[3].name]


@in_loop
async def test_an_authority_of_the_users_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cluster = Tasks(tmp_path)
    for place in cluster.places:
        place.client_tls_files = authority.issue(place.name)
    async with cluster:
        genesis = await genesis_of(cluster)
        (tmp_path / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
        cluster.client.save(tmp_path / "client.key")
        async with Client.from_directory(tmp_path) as client:  # ca.crt lies beside them
            await client.put("k", "v")
        (tmp_path / "ca.crt").unlink()
        async with Client.from_directory(tmp_path) as client:
            with pytest.raises(errors.TimedOut, match="another TLS certificate than its genesis"):
                await client.put("k", "v", timeout_ms=500)


@in_loop
async def test_a_client_follows_its_authority_and_members_their_certificates(
    tmp_path: Path,
) -> None:
    """cert-manager's authority is another one, and nobody is started anew."""
    old = Authority(tmp_path)
    cluster = Tasks(tmp_path)
    for place in cluster.places:
        place.client_tls_files = old.issue(place.name)
    async with cluster:
        genesis = await genesis_of(cluster)
        (tmp_path / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
        cluster.client.save(tmp_path / "client.key")
        trust = trust_in(tmp_path)
        assert await answers(cluster, trust(genesis.record.members[0]))
        async with Client.from_directory(tmp_path) as client:
            await client.put("k", "1")
        kept = Client.from_directory(tmp_path)
        (tmp_path / "new").mkdir()
        new = Authority(tmp_path / "new")
        for place in cluster.places:
            files = new.issue(place.name)
            assert place.client_tls_files is not None
            files.certificate.replace(place.client_tls_files.certificate)
            files.key.replace(place.client_tls_files.key)
        assert not await answers(cluster, trust(genesis.record.members[0]))
        (tmp_path / "new" / "ca.crt").replace(tmp_path / "ca.crt")
        assert await answers(cluster, trust(genesis.record.members[0]))
        async with kept as client:
            await client.put("k", "2")


async def answers(cluster: Tasks, trust: ssl.SSLContext | aiohttp.Fingerprint) -> bool:
    """Whether the first member's certificate is trusted."""
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{cluster.places[0].url}/healthz", ssl=trust),
        ):
            return True
    except aiohttp.ClientSSLError:
        return False


@in_loop
async def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cluster = Tasks(tmp_path)
    for place in cluster.places:
        place.client_tls_files = authority.issue(place.name, "127.0.0.2")
    async with cluster:
        genesis = await genesis_of(cluster)
        trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        async with Client.connect(genesis, cluster.client, authority=trust) as client:
            with pytest.raises(errors.TimedOut, match="certificate"):
                await client.put("k", "v", timeout_ms=500)


def test_files_that_do_not_fit_are_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    start = [
        "--data", str(tmp_path), "--name", "a-0", "--cluster", "a", "--namespace", "default",
        "--client-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0",
    ]  # fmt: skip
    certificate = ["--client-tls-certificate", str(one.certificate)]
    assert main([*start, *certificate]) == EXIT_REFUSED
    assert "belong together" in capsys.readouterr().err
    assert main([*start, *certificate, "--client-tls-key", str(other.key)]) == EXIT_REFUSED
    assert "can not be used" in capsys.readouterr().err


@in_loop
async def test_a_member_without_a_certificate_answers_probes_over_tls() -> None:
    """A kubelet asks over https, and would restart a refused member that answers in plain."""
    app = web.Application()
    app.router.add_get("/healthz", _ok)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=throwaway_context("a-0")).start()
    try:
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/healthz"
        async with aiohttp.ClientSession() as http, http.get(url, ssl=False) as response:
            assert response.status == 200
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientSSLError):
                await http.get(url)
    finally:
        await runner.cleanup()


async def _ok(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def test_without_an_authority_the_record_is_trusted_and_a_broken_one_is_told(
    tmp_path: Path,
) -> None:
    assert trust_in(tmp_path) is pinned
    (tmp_path / "ca.crt").write_text("torn")
    with pytest.raises(errors.BadCluster, match=r"ca\.crt in .* can not be used"):
        trust_in(tmp_path)
