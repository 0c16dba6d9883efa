"""Changes of the resource against a small API server; members do not answer here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from dwcp_operator.act.api import KubeApi
from dwcp_operator.act.events import Events
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.reconcile import IDLE_S, Reconciler, Tools
from dwcp_operator.act.writer import Writer
from dwcp_operator.build.pod import PodSettings
from dwcp_operator.elector import LeaseLostError
from kube.apiserver import ApiServer, Object, now, serving
from kube.subjects import UID, resource
from replica.waiting import in_loop


def always() -> None:
    """The lease is held."""


def reconciler(
    api: KubeApi, http: aiohttp.ClientSession, require: Callable[[], None] = always
) -> Reconciler:
    tools = Tools(
        api=api,
        http=http,
        writer=Writer(api, require),
        events=Events(api, "test"),
        metrics=OperatorMetrics(),
        settings=Settings(PodSettings("dwcp:1")),
    )
    return Reconciler(tools, "shop", "demo")


def change(server: ApiServer, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    """Write the resource as a user does: its status stays."""
    before = server.objects.get(("dwcpclusters", "shop", "demo"), {})
    raw = resource(**spec)
    raw["metadata"]["annotations"] = annotations or {}
    raw["metadata"]["generation"] = before.get("metadata", {}).get("generation", 0) + 1
    if "status" in before:
        raw["status"] = before["status"]
    server.put("dwcpclusters", raw)


async def rounds(loop: Reconciler, count: int) -> None:
    for _ in range(count):
        loop.touch()
        await loop.round()


def found_status(server: ApiServer) -> Object:
    status: Object = server.objects["dwcpclusters", "shop", "demo"]["status"]
    return status


def condition(server: ApiServer, kind: str) -> Object:
    found: list[Object] = found_status(server)["conditions"]
    return next(c for c in found if c["type"] == kind)


def images(server: ApiServer) -> list[str]:
    pods = [body for (kind, _, _), body in sorted(server.objects.items()) if kind == "pods"]
    return [pod["spec"]["containers"][0]["image"] for pod in pods]


def events(server: ApiServer) -> list[str]:
    return [body["reason"] for (kind, _, _), body in server.objects.items() if kind == "events"]


def changes(server: ApiServer, mark: int) -> list[str]:
    """Writes besides statuses and Events since `mark`."""
    later = server.writes[mark:]
    return [w for w in later if "/events" not in w and not w.endswith("/status")]


# --- images ----------------------------------------------------------------------------------


@in_loop
async def test_before_the_genesis_a_wrong_image_is_mended_by_eviction() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, image="dwcp:wrong")
        loop = reconciler(api, http)
        await rounds(loop, 3)
        assert images(server) == ["dwcp:wrong"] * 4
        change(server, image="dwcp:right")
        await rounds(loop, 3)
        assert images(server) == ["dwcp:right"] * 4
        assert len([w for w in server.writes if w.endswith("/eviction")]) == 4
        assert "MemberRolled" in events(server)


@in_loop
async def test_a_pod_that_the_api_server_would_not_take_takes_nobody_down() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, image="dwcp:1")
        loop = reconciler(api, http)
        await rounds(loop, 3)
        server.invalid = lambda body: (
            "no such priority class" if "priorityClassName" in body.get("spec", {}) else ""
        )
        change(server, image="dwcp:1", placement={"priorityClassName": "none"})
        mark = len(server.writes)
        await rounds(loop, 8)
        assert changes(server, mark) == []
        assert images(server) == ["dwcp:1"] * 4
        told = condition(server, "Degraded")
        assert told["reason"] == "ActionFailed"
        assert "no such priority class" in told["message"]


@in_loop
async def test_a_full_quota_is_no_reason_since_the_evicted_one_makes_room() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, image="dwcp:1")
        loop = reconciler(api, http)
        await rounds(loop, 3)
        server.invalid = lambda body: (
            "exceeded quota: pods"
            if body.get("metadata", {}).get("name", "").endswith("-trial")
            else ""
        )
        change(server, image="dwcp:2")
        await rounds(loop, 3)
        assert images(server) == ["dwcp:2"] * 4


@in_loop
async def test_a_budget_that_a_drain_has_used_up_is_waited_for() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, image="dwcp:1")
        loop = reconciler(api, http)
        await rounds(loop, 3)
        server.evictions = 0
        change(server, image="dwcp:2")
        await rounds(loop, 8)
        assert images(server) == ["dwcp:1"] * 4
        assert "disruption budget" in condition(server, "Degraded")["message"]
        server.evictions = -1
        await rounds(loop, 3)
        assert images(server) == ["dwcp:2"] * 4
        assert condition(server, "Degraded")["status"] == "False"


@in_loop
async def test_another_image_of_the_operator_restarts_no_member() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server)
        await rounds(reconciler(api, http), 4)
        newer = reconciler(api, http)
        newer._executor._settings = Settings(PodSettings("dwcp:2"))
        mark = len(server.writes)
        await rounds(newer, 4)
        assert images(server) == ["dwcp:1"] * 4
        assert not [w for w in server.writes[mark:] if "/pods" in w]


# --- pause -----------------------------------------------------------------------------------


@in_loop
async def test_a_paused_resource_is_only_looked_at_and_its_generation_is_not_taken_up() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, image="dwcp:1")
        loop = reconciler(api, http)
        await rounds(loop, 4)
        paused = {"dwcp.dev/paused": "true"}
        change(server, paused, image="dwcp:2", storage={"size": "2Gi"}, monitoring={"rules": True})
        del server.objects["pods", "shop", "demo-1"]
        del server.objects["services", "shop", "demo"]
        mark = len(server.writes)
        await rounds(loop, 4)
        assert changes(server, mark) == []
        assert condition(server, "Progressing")["reason"] == "Paused"
        assert await loop.round() == IDLE_S, "a pause may last for days"
        assert found_status(server)["observedGeneration"] == 1
        assert "Paused" in events(server)
        change(server, image="dwcp:1")
        await rounds(loop, 3)
        assert "demo-1" in server.names("pods")
        assert "demo" in server.names("services")
        assert found_status(server)["observedGeneration"] == 3


# --- volumes ---------------------------------------------------------------------------------


def sizes(server: ApiServer) -> set[str]:
    return {
        body["spec"]["resources"]["requests"]["storage"]
        for (kind, _, _), body in server.objects.items()
        if kind == "persistentvolumeclaims"
    }


@in_loop
async def test_claims_grow_with_the_resource_although_no_member_answers() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        assert found_status(server)["storageSize"] == "1Gi"
        change(server, storage={"size": "3Gi"})
        await rounds(loop, 2)
        assert sizes(server) == {"3Gi"}
        assert found_status(server)["storageSize"] == "3Gi"
        mark = len(server.writes)
        await rounds(loop, 2)
        assert not [w for w in server.writes[mark:] if "persistentvolumeclaims" in w]


@in_loop
async def test_a_growth_that_is_refused_is_told_and_can_be_taken_back() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        server.fail = lambda method, path: method == "PATCH" and "persistentvolumeclaims" in path
        change(server, storage={"size": "3Gi"})
        await rounds(loop, 8)
        assert condition(server, "Degraded")["reason"] == "ActionFailed"
        assert found_status(server)["storageSize"] == "1Gi", (
            "what the CEL rule allows to go back to"
        )
        change(server)
        await rounds(loop, 2)
        assert condition(server, "Degraded")["status"] == "False"


def claim_says(server: ApiServer, index: int, *, asked: str, holds: str, pending: str = "") -> None:
    claim = server.objects["persistentvolumeclaims", "shop", f"demo-{index}-{UID[:8]}"]
    claim["spec"]["resources"]["requests"]["storage"] = asked
    claim["status"] = {"phase": "Bound", "capacity": {"storage": holds}}
    if pending:
        claim["status"]["conditions"] = [
            {"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": pending}
        ]


@in_loop
async def test_a_volume_that_waits_for_a_restart_gets_one_and_no_second() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, storage={"size": "2Gi"})
        loop = reconciler(api, http)
        await rounds(loop, 3)
        uid = server.objects["pods", "shop", "demo-1"]["metadata"]["uid"]
        server.objects["pods", "shop", "demo-1"]["metadata"]["creationTimestamp"] = now(-60)
        claim_says(server, 1, asked="2Gi", holds="1Gi", pending=now(-30))
        await rounds(loop, 3)
        assert server.objects["pods", "shop", "demo-1"]["metadata"]["uid"] != uid
        assert [w for w in server.writes if w.endswith("/eviction")] == [
            "POST /api/v1/namespaces/shop/pods/demo-1/eviction"
        ]
        notes = [
            b.get("note", "") for (kind, _, _), b in server.objects.items() if kind == "events"
        ]
        assert any("VolumeGrown" in note for note in notes)


@in_loop
async def test_a_volume_that_still_grows_is_waited_for() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, storage={"size": "2Gi"})
        loop = reconciler(api, http)
        await rounds(loop, 3)
        claim_says(server, 2, asked="2Gi", holds="1Gi")
        await rounds(loop, 1)
        assert "demo-2" in condition(server, "Progressing")["message"]
        claim_says(server, 2, asked="2Gi", holds="2Gi")
        mark = len(server.writes)
        await rounds(loop, 2)
        assert changes(server, mark) == []


# --- interruptions -----------------------------------------------------------------------------


@pytest.mark.slow
@in_loop
async def test_killed_after_any_write_of_a_change_another_operator_ends_it() -> None:
    """A roll is cut off before each of its writes; what is left is taken up as it stands."""
    for writes_left in range(9):
        async with serving() as (server, api), aiohttp.ClientSession() as http:
            change(server, image="dwcp:1")
            await rounds(reconciler(api, http), 3)
            change(server, image="dwcp:2", storage={"size": "2Gi"}, monitoring={"dashboard": True})
            left = writes_left

            def require() -> None:
                nonlocal left
                if left == 0:
                    raise LeaseLostError("lost")
                left -= 1

            doomed = reconciler(api, http, require)
            with pytest.raises(LeaseLostError):
                await rounds(doomed, 9)
            await rounds(reconciler(api, http), 3)
            assert images(server) == ["dwcp:2"] * 4
            assert sizes(server) == {"2Gi"}
            assert "demo-dashboard" in server.names("configmaps")
            evicted = [w for w in server.writes if w.endswith("/eviction")]
            assert len(evicted) == len(set(evicted)) == 4, "nobody is restarted twice"


# --- monitoring ------------------------------------------------------------------------------


EVERYTHING = {"podMonitor": True, "rules": True, "dashboard": True}


@in_loop
async def test_monitoring_is_made_when_asked_for_and_goes_when_not() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        server.apis = {"monitoring.coreos.com/v1"}
        change(server, monitoring=EVERYTHING)
        loop = reconciler(api, http)
        await rounds(loop, 2)
        assert server.names("podmonitors") == {"demo"}
        assert server.names("prometheusrules") == {"demo"}
        assert "demo-dashboard" in server.names("configmaps")
        mark = len(server.writes)
        await rounds(loop, 3)
        assert not [w for w in server.writes[mark:] if "monitor" in w or "configmaps" in w]
        change(server)
        await rounds(loop, 2)
        assert server.names("podmonitors") == server.names("prometheusrules") == set()
        assert "demo-dashboard" not in server.names("configmaps")


@in_loop
async def test_where_its_api_is_missing_it_is_told_once_and_nothing_is_degraded() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server, monitoring=EVERYTHING)
        loop = reconciler(api, http)
        await rounds(loop, 8)
        assert events(server).count("MonitoringAbsent") == 2
        assert condition(server, "Degraded")["status"] == "False"
        assert "demo-dashboard" in server.names("configmaps"), "needs no API of others"


@in_loop
async def test_what_others_own_under_that_name_is_left_alone() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        meta = {"name": "demo-dashboard", "namespace": "shop"}
        server.put("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        change(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        assert "demo-dashboard" in server.names("configmaps")
        assert not server.objects["configmaps", "shop", "demo-dashboard"].get("data")


@pytest.mark.parametrize("index", range(4))
@in_loop
async def test_members_say_where_they_run(index: int) -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        change(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        pod = server.objects["pods", "shop", f"demo-{index}"]
        pod["spec"]["nodeName"] = "node-7"
        pod["metadata"]["labels"]["topology.kubernetes.io/zone"] = "east"
        await rounds(loop, 1)
        member = found_status(server)["members"][index]
        assert (member["node"], member["zone"]) == ("node-7", "east")
        assert member["revision"] == found_status(server)["upgrade"]["revision"]
        assert UID.startswith(found_status(server)["clusterId"][:8])
