from __future__ import annotations

import asyncio

import pytest

from dwcp_operator import elector
from dwcp_operator.act.api import KubeApi
from dwcp_operator.elector import Elector, LeaseLostError
from kube.apiserver import ApiServer, serving
from replica.waiting import in_loop

PLACE = ("leases", "ops", "dwcp-operator")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules, ten times as fast."""
    monkeypatch.setattr(elector, "DURATION_S", 1)
    monkeypatch.setattr(elector, "HOLD_S", 0.5)
    monkeypatch.setattr(elector, "RENEW_EVERY_S", 0.05)
    return


def make(api: KubeApi, identity: str) -> Elector:
    return Elector(api, "ops", "dwcp-operator", identity)


def holder(server: ApiServer) -> str:
    return str(server.objects[PLACE]["spec"]["holderIdentity"])


@in_loop
async def test_of_two_that_want_it_one_holds_it() -> None:
    async with serving() as (server, api):
        first, second = make(api, "a"), make(api, "b")
        waits = {asyncio.create_task(e.acquire()) for e in (first, second)}
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert len(done) == 1
        assert first.held != second.held
        assert holder(server) == ("a" if first.held else "b")
        for wait in waits:
            wait.cancel()


@in_loop
async def test_a_lease_that_is_renewed_is_never_taken() -> None:
    async with serving() as (_, api):
        first, second = make(api, "a"), make(api, "b")
        await first.acquire()
        hold, wait = asyncio.create_task(first.hold()), asyncio.create_task(second.acquire())
        done, _ = await asyncio.wait({hold, wait}, timeout=2 * elector.DURATION_S)
        assert not done
        assert first.held
        for task in (hold, wait):
            task.cancel()


@in_loop
async def test_a_silent_holder_stops_acting_before_another_begins() -> None:
    async with serving() as (server, api):
        first, second = make(api, "a"), make(api, "b")
        await first.acquire()
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(second.acquire(), timeout=5)
        assert asyncio.get_running_loop().time() - began >= elector.DURATION_S
        assert not first.held
        with pytest.raises(LeaseLostError):
            first.require()
        with pytest.raises(LeaseLostError, match="held by b"):
            await first._renew()
        assert holder(server) == "b"


@in_loop
async def test_a_holder_whose_api_server_is_away_ends() -> None:
    async with serving() as (server, api):
        first = make(api, "a")
        await first.acquire()
        server.away = True
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(first.hold(), timeout=5)


@in_loop
async def test_a_short_absence_of_the_api_server_is_survived() -> None:
    async with serving() as (server, api):
        first = make(api, "a")
        await first.acquire()
        server.away = True
        hold = asyncio.create_task(first.hold())
        await asyncio.sleep(3 * elector.RENEW_EVERY_S)
        server.away = False
        done, _ = await asyncio.wait({hold}, timeout=2 * elector.HOLD_S)
        assert not done
        assert first.held
        hold.cancel()


@in_loop
async def test_a_released_lease_is_taken_at_once_and_by_the_same_identity_too() -> None:
    async with serving() as (_, api):
        first, second = make(api, "a"), make(api, "b")
        await first.acquire()
        await make(api, "a").acquire()  # the same container, started again
        await first.release()
        assert not first.held
        third = make(api, "a")
        await asyncio.wait_for(third.acquire(), timeout=elector.DURATION_S / 2)
        await third.release()
        await asyncio.wait_for(second.acquire(), timeout=elector.DURATION_S / 2)


@in_loop
async def test_an_api_server_that_is_away_is_waited_for() -> None:
    async with serving() as (server, api):
        server.away = True
        first = make(api, "a")
        wait = asyncio.create_task(first.acquire())
        await asyncio.sleep(3 * elector.RENEW_EVERY_S)
        assert not wait.done()
        server.away = False
        await asyncio.wait_for(wait, timeout=5)
        assert first.held
