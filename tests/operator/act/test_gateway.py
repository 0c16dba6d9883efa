"""Gateways against a small API server: made when clients can read the genesis, and taken away."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dwcp_operator.act.api import KubeApi
from dwcp_operator.act.authority import RENEWED, VALID
from dwcp_operator.act.clients import client_patch
from dwcp_operator.act.events import Events
from dwcp_operator.act.gateway import Gateways, gateway_status
from dwcp_operator.act.keeper import KeeperError
from dwcp_operator.act.snapshot import Snapshot, read
from dwcp_operator.act.writer import Writer
from dwcp_operator.build import secrets
from dwcp_operator.build.pod import PodSettings
from kube.apiserver import ApiServer, serving
from kube.subjects import resource
from replica.waiting import in_loop

NAMES = {"demo-gateway-ca", "demo-gateway-client", "demo-gateway-tls"}


class Stage:
    def __init__(self, server: ApiServer, api: KubeApi) -> None:
        self.server = server
        self._api = api
        self._now = datetime.now(UTC)
        writer = Writer(api, lambda: None)
        self._gateways = Gateways(
            writer, Events(api, "test"), PodSettings("dwcp:1"), lambda: self._now
        )

    def pass_time(self, span: timedelta) -> None:
        self._now += span

    async def look(self) -> Snapshot:
        found = await read(self._api, "shop", "demo")
        assert found is not None
        return found

    async def round(self, *, published: bool = True, steps: int = 99) -> None:
        """Look, and do the first `steps` of what is due."""
        actions = self._gateways.actions(await self.look(), published=published)
        for action in itertools.islice(actions, steps):
            await action

    def change(self, **spec: Any) -> None:
        self.server.put("dwcpclusters", resource(**spec))

    def secret(self, name: str) -> dict[str, bytes]:
        return secrets.data_of(self.server.objects["secrets", "shop", name])


@asynccontextmanager
async def stage(**spec: Any) -> AsyncIterator[Stage]:
    async with serving() as (server, api):
        found = Stage(server, api)
        found.change(**spec)
        yield found


@in_loop
async def test_they_are_made_once_the_genesis_can_be_read_and_go_when_not_asked_for() -> None:
    async with stage(gateway={}) as found:
        await found.round(published=False)
        assert not found.server.writes
        await found.round()
        assert found.server.names("deployments") == {"demo-gateway"}
        assert found.server.names("services") == {"demo-gateway"}
        assert found.server.names("poddisruptionbudgets") == {"demo-gateway"}
        assert found.server.names("secrets") == NAMES
        mark = len(found.server.writes)
        await found.round()
        assert len(found.server.writes) == mark, "what is there and as wanted is left alone"
        found.change()
        await found.round()
        left = ("deployments", "services", "poddisruptionbudgets", "secrets")
        assert not any(found.server.names(kind) for kind in left)


@in_loop
async def test_cut_off_anywhere_the_next_round_goes_on() -> None:
    for steps in range(6):
        async with stage(gateway={}) as found:
            await found.round(steps=steps)
            await found.round()
            assert found.server.names("secrets") == NAMES
            assert found.server.names("poddisruptionbudgets") == {"demo-gateway"}
            found.change()
            await found.round(steps=steps)
            await found.round()
            assert not found.server.names("secrets") | found.server.names("deployments")


@in_loop
async def test_a_certificate_is_renewed_and_the_authority_stays() -> None:
    async with stage(gateway={}) as found:
        await found.round()
        first, authority = found.secret("demo-gateway-tls"), found.secret("demo-gateway-ca")
        found.pass_time(VALID - RENEWED - timedelta(minutes=1))
        await found.round()
        assert found.secret("demo-gateway-tls") == first
        found.pass_time(timedelta(minutes=2))
        await found.round()
        second = found.secret("demo-gateway-tls")
        assert second["tls.crt"] != first["tls.crt"]
        assert second["ca.crt"] == first["ca.crt"] == authority["ca.crt"]
        assert found.secret("demo-gateway-ca") == authority


@in_loop
async def test_a_secret_of_the_users_must_hold_what_cert_manager_makes() -> None:
    async with stage(gateway={"tls": {"secretName": "mine"}}) as found:
        with pytest.raises(KeeperError, match=r"mine, which spec\.gateway\.tls names, is missing"):
            await found.round()
        metadata = {"name": "mine", "namespace": "shop"}
        given = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
        found.server.put("secrets", {**given, "data": {"tls.crt": "eA==", "tls.key": "eA=="}})
        with pytest.raises(KeeperError, match=r"has no ca\.crt"):
            await found.round()
        whole = dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), "eA==")
        found.server.put("secrets", {**given, "data": whole})
        await found.round()
        assert found.server.names("secrets") == {"mine"}
        assert found.server.names("deployments") == {"demo-gateway"}
        found.change()
        await found.round()
        assert found.server.names("secrets") == {"mine"}, "the user's own is left alone"


@in_loop
async def test_a_damaged_authority_is_told_and_not_replaced() -> None:
    async with stage(gateway={}) as found:
        await found.round()
        found.server.objects["secrets", "shop", "demo-gateway-ca"]["data"]["ca.key"] = "eA=="
        mark = len(found.server.writes)
        with pytest.raises(KeeperError, match="demo-gateway-ca with the gateways' authority"):
            await found.round()
        assert len(found.server.writes) == mark


@in_loop
async def test_a_deployment_of_somebody_elses_is_left_alone() -> None:
    async with stage(gateway={"replicas": 1}) as found:
        metadata = {"name": "demo-gateway", "namespace": "shop"}
        other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}
        found.server.put("deployments", other)
        with pytest.raises(Exception, match="does not belong to this cluster"):
            await found.round()
        found.change()
        await found.round()
        assert found.server.names("deployments") == {"demo-gateway"}


@in_loop
async def test_the_status_says_how_many_answer() -> None:
    async with stage(gateway={"replicas": 3}) as found:
        assert (await found.look()).given == {}
        status = gateway_status(await found.look())
        assert status is not None
        assert (status.replicas, status.ready) == (0, 0)
        await found.round()
        made = found.server.objects["deployments", "shop", "demo-gateway"]
        made["status"] = {"replicas": 3, "readyReplicas": 2}
        status = gateway_status(await found.look())
        assert status is not None
        assert (status.replicas, status.ready) == (3, 2)
        assert status.endpoint == "https://demo-gateway.shop.svc:2389"
        found.change()
        assert gateway_status(await found.look()) is None


def test_a_clients_secret_is_added_to_and_an_old_one_stays() -> None:
    found: dict[str, Any] = {"metadata": {"resourceVersion": "7"}, "data": {"client.key": "eA=="}}
    patch = client_patch(found, {"ca.crt": b"x"})
    assert patch == {"metadata": {"resourceVersion": "7"}, "data": {"ca.crt": "eA=="}}
    assert client_patch({**found, "data": {"ca.crt": "eA=="}}, {"ca.crt": b"x"}) is None
    assert client_patch({**found, "immutable": True}, {"ca.crt": b"x"}) is None
