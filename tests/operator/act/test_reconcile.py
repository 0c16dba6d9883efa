"""Rounds against an API server that fails when the test says so; members do not answer here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from dwcp_operator.act.api import ApiError, KubeApi
from dwcp_operator.act.events import Events
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.reconcile import Reconciler, Tools
from dwcp_operator.act.writer import Writer
from dwcp_operator.build.pod import PodSettings
from dwcp_operator.elector import LeaseLostError
from kube.apiserver import ApiServer, serving
from kube.subjects import UID, resource
from replica.waiting import in_loop

ROUNDS_MAX = 30


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


def put_resource(server: ApiServer, **spec: Any) -> None:
    server.put("dwcpclusters", resource(**spec))


async def rounds(loop: Reconciler, count: int) -> None:
    for _ in range(count):
        await loop.round()
        loop.touch()


def objects(server: ApiServer) -> set[tuple[str, str]]:
    return {
        (kind, name)
        for kind, _, name in server.objects
        if kind not in ("events", "dwcpclusters", "leases")
    }


def writes(server: ApiServer) -> list[str]:
    return [w for w in server.writes if "/events" not in w and not w.endswith("/status")]


def condition(server: ApiServer, kind: str) -> dict[str, Any]:
    found = server.objects["dwcpclusters", "shop", "demo"]["status"]["conditions"]
    return next(c for c in found if c["type"] == kind)


@in_loop
async def test_a_new_resource_gets_keys_volumes_and_pods() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        for _ in range(3):
            assert await loop.round() is not None
            loop.touch()
        tag = UID[:8]
        assert server.names("pods") == {f"demo-{i}" for i in range(4)}
        assert server.names("persistentvolumeclaims") == {f"demo-{i}-{tag}" for i in range(4)}
        assert server.names("secrets") == {
            f"demo-{tag}-admin",
            f"demo-{tag}-clients",
            *(f"demo-{i}-{tag}-token" for i in range(4)),
        }
        assert server.names("services") == {"demo", "demo-members"}
        assert server.names("poddisruptionbudgets") == {"demo"}
        assert server.names("networkpolicies") == {"demo"}
        assert server.names("serviceaccounts") == {"demo-member"}
        found = server.objects["dwcpclusters", "shop", "demo"]["status"]
        assert found["clusterId"] == UID.replace("-", "")
        assert found["observedGeneration"] == 1
        assert condition(server, "Available")["status"] == "False"
        assert condition(server, "Progressing")["reason"] == "WaitingForIdentity"


@in_loop
async def test_a_settled_round_writes_nothing() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 4)
        before = list(server.writes)
        await rounds(loop, 3)
        assert server.writes == before


@in_loop
async def test_a_restarted_operator_touches_no_pod_key_or_volume() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        first = reconciler(api, http)
        await rounds(first, 4)
        before, mark = objects(server), len(server.writes)
        second = reconciler(api, http)
        await rounds(second, 3)
        assert objects(server) == before
        later = [w for w in server.writes[mark:] if "/events" not in w]
        kept = ("/pods", "/secrets", "/persistentvolumeclaims", "/configmaps")
        assert not [w for w in later if any(part in w for part in kept)]


@pytest.mark.slow
@in_loop
async def test_killed_after_any_write_it_ends_at_the_same_place_with_the_same_keys() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        whole = reconciler(api, http)
        await rounds(whole, 4)
        wanted, total = objects(server), len(writes(server))
    for writes_before_death in range(total):
        async with serving() as (server, api), aiohttp.ClientSession() as http:
            put_resource(server)
            with dying_after(writes_before_death) as require:
                doomed = reconciler(api, http, require)
                with pytest.raises(LeaseLostError):
                    await rounds(doomed, ROUNDS_MAX)
            keys = {k: v for k, v in server.objects.items() if k[0] == "secrets"}
            fresh = reconciler(api, http)
            await rounds(fresh, 5)
            assert objects(server) == wanted
            for place, secret in keys.items():
                assert server.objects[place]["data"] == secret["data"]


@contextmanager
def dying_after(count: int) -> Iterator[Callable[[], None]]:
    """A lease that is lost before write number `count`."""
    left = count

    def require() -> None:
        nonlocal left
        if left == 0:
            raise LeaseLostError("lost")
        left -= 1

    yield require


@in_loop
async def test_what_can_be_read_only_in_part_is_not_acted_on() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        for path in ("/pods", "/secrets/", "/persistentvolumeclaims", "/configmaps/", "/services"):
            server.fail = lambda method, where, path=path: method == "GET" and path in where
            with pytest.raises(ApiError):
                await loop.round()
            assert server.writes == []
        server.fail = lambda _method, _path: False
        await loop.round()
        assert server.writes


@in_loop
async def test_nothing_is_done_for_a_resource_that_is_deleted() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        assert await reconciler(api, http).round() is None
        raw = resource()
        raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        server.put("dwcpclusters", raw)
        assert await reconciler(api, http).round() is None
        assert server.writes == []


@in_loop
async def test_a_pod_that_is_going_away_is_waited_for() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        pod = server.objects["pods", "shop", "demo-1"]
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        mark = len(server.writes)
        await rounds(loop, 3)
        assert not [w for w in server.writes[mark:] if "/pods" in w]
        assert condition(server, "Progressing")["reason"] == "BackingOff"
        del server.objects["pods", "shop", "demo-1"]
        loop.touch()
        await loop.round()
        assert "demo-1" in server.names("pods")


@in_loop
async def test_an_evicted_pod_is_removed_and_made_anew() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        old = server.objects["pods", "shop", "demo-2"]["metadata"]["uid"]
        server.objects["pods", "shop", "demo-2"]["status"] = {"phase": "Failed"}
        for _ in range(2):
            loop.touch()
            await loop.round()
        assert server.objects["pods", "shop", "demo-2"]["metadata"]["uid"] != old


@in_loop
async def test_what_belongs_to_others_is_left_alone_and_told() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        meta = {"name": "demo", "namespace": "shop"}
        server.put(
            "services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"x": 1}}
        )
        loop = reconciler(api, http)
        await rounds(loop, 8)
        assert server.objects["services", "shop", "demo"]["spec"] == {"x": 1}
        assert condition(server, "Degraded")["reason"] == "ActionFailed"
        assert "Service named demo" in condition(server, "Degraded")["message"]
        assert server.names("pods"), "the rest is made"
        condition(server, "Degraded")["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        mark = len(server.writes)
        await rounds(loop, 3)
        assert condition(server, "Degraded")["lastTransitionTime"] == "2026-01-01T00:00:00Z"
        assert not [w for w in server.writes[mark:] if w.endswith("/status")]


@in_loop
async def test_objects_of_a_deleted_namesake_are_not_taken_for_ours() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        raw = resource()
        raw["metadata"]["uid"] = "aaaaaaaa-89ab-4cde-8f01-23456789abcd"
        server.put("dwcpclusters", raw)
        loop.touch()
        assert await loop.round() is None, "another resource: it begins without our memory"
        new = reconciler(api, http)
        await rounds(new, 2)
        mark = len(server.writes)
        await new.round()
        assert not [w for w in server.writes[mark:] if w == "POST /api/v1/namespaces/shop/pods"]
        assert {f"demo-{i}-aaaaaaaa" for i in range(4)} <= server.names("persistentvolumeclaims")


@in_loop
async def test_volumes_and_keys_follow_a_changed_reclaim() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        kept = [k for k in server.objects if k[0] == "persistentvolumeclaims" or "admin" in k[2]]
        assert all("ownerReferences" not in server.objects[k]["metadata"] for k in kept)
        put_resource(server, storage={"reclaim": "Delete"})
        await loop.round()
        assert len(kept) == 5
        for k in kept:
            (owner,) = server.objects[k]["metadata"]["ownerReferences"]
            assert owner["uid"] == UID
        put_resource(server)
        loop.touch()
        await loop.round()
        assert all("ownerReferences" not in server.objects[k]["metadata"] for k in kept)


@in_loop
async def test_a_lost_claim_is_not_made_anew_once_there_is_a_genesis() -> None:
    """The claim of a cluster without genesis is: nothing was ever written to it."""
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        put_resource(server)
        loop = reconciler(api, http)
        await rounds(loop, 3)
        claim = ("persistentvolumeclaims", "shop", f"demo-1-{UID[:8]}")
        del server.objects[claim], server.objects["pods", "shop", "demo-1"]
        await loop.round()
        assert claim in server.objects


@in_loop
async def test_adopting_without_the_kept_keys_says_which_secret_to_restore() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        volumes = [{"member": f"demo-{i}", "claim": f"old-{i}"} for i in range(4)]
        put_resource(server, bootstrap={"adopt": {"clusterId": "f" * 32, "volumes": volumes}})
        loop = reconciler(api, http)
        await rounds(loop, 8)
        message = condition(server, "Degraded")["message"]
        assert "demo-ffffffff-admin is missing" in message
        assert not server.names("secrets")
        assert not server.names("pods")


@in_loop
async def test_a_resource_that_is_not_understood_is_told_and_left_alone() -> None:
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        raw = resource(replicas=5)
        server.put("dwcpclusters", raw)
        assert await reconciler(api, http).round() is not None
        (event,) = [v for k, v in server.objects.items() if k[0] == "events"]
        assert event["reason"] == "ResourceUnreadable"
        assert "use 4 or 7" in event["note"]
        assert not writes(server)
        told = condition(server, "Degraded")
        assert told["reason"] == "ResourceUnreadable"
        assert "use 4 or 7" in told["message"]
        mark = len(server.writes)
        await reconciler(api, http).round()
        assert [w for w in server.writes[mark:] if w.endswith("/status")] == []


@in_loop
async def test_adopted_members_of_another_cluster_are_told_and_end_no_round() -> None:
    """The definition lets a name through that only begins alike: its rules have a budget."""
    async with serving() as (server, api), aiohttp.ClientSession() as http:
        volumes = [{"member": f"demo-x-{i}", "claim": f"old-{i}"} for i in range(4)]
        put_resource(server, bootstrap={"adopt": {"clusterId": "f" * 32, "volumes": volumes}})
        await rounds(reconciler(api, http), 2)
        assert "demo-0 to demo-3" in condition(server, "Degraded")["message"]
