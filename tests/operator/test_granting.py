"""Rights as the resource writes them, as the log holds them, and as the status shows them."""

from __future__ import annotations

import asyncio

import pytest

from dwcp.client import Client
from dwcp.errors import BadCluster
from dwcp.wire.operations import Access, Grant
from dwcp_operator.access import AccessStatus, ClientAccess
from dwcp_operator.granting import (
    LOOK_AGAIN_S,
    RETRY_S,
    AccessError,
    Granter,
    administrator,
    kept,
    rights_of,
    shown,
    wanted_rights,
)
from kube.subjects import subject


def entry(**fields: object) -> ClientAccess:
    return ClientAccess.model_validate({"client": "app", **fields})


def test_prefixes_become_grants() -> None:
    found = rights_of(entry(read=["a/", "b"], write=["a/"]))
    assert found == Access(
        grants=(
            Grant(b"a/", b"a0", read=True, write=True),
            Grant(b"b", b"c", read=True),
        )
    )
    assert rights_of(entry(read=[""])) == Access(grants=(Grant(b"", b"\0", read=True),))
    assert rights_of(entry(admin=True)) == Access(admin=True)


def test_who_has_no_entry_may_do_everything_and_an_empty_one_nothing() -> None:
    assert wanted_rights(["app", "web"], [entry()]) == {"app": Access(), "web": None}


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (None, "everything"),
        (Access(), "nothing"),
        (rights_of(entry(admin=True, read=["a/"], write=["a/"])), "administer; read and write a/*"),
        (rights_of(entry(read=["", "b"])), "read *; read b*"),
        (Access(grants=(Grant(b"k", write=True),)), "write k"),
        (Access(grants=(Grant(b"a", b"c", read=True),)), "read [a, c)"),
    ],
)  # fmt: skip
def test_the_status_shows_them_in_words(access: Access | None, words: str) -> None:
    assert shown(access) == words


def test_a_failure_is_tried_again_after_a_while_and_a_success_looked_at_later() -> None:
    clock = [100.0]
    granter = Granter(lambda: clock[0])
    assert granter.is_due({"app": None})

    def opened(_: str) -> Client:
        raise BadCluster("nobody answers")

    with pytest.raises(AccessError, match="nobody answers"):
        asyncio.run(granter.bring({"app": None}, {"app": b"k" * 32}, opened))
    assert not granter.is_due({"app": None})
    clock[0] += RETRY_S
    assert granter.is_due({"app": None})
    assert granter.status is None
    assert LOOK_AGAIN_S > RETRY_S


def test_the_status_keeps_the_entry_from_which_rights_hold() -> None:
    def status(rights: str, index: int) -> AccessStatus:
        return AccessStatus(client="app", rights=rights, index=index)

    assert kept((), (status("nothing", 7),)) == (status("nothing", 7),)
    assert kept((status("nothing", 7),), (status("nothing", 90),)) == (status("nothing", 7),)
    assert kept((status("nothing", 7),), (status("read a*", 91),)) == (status("read a*", 91),)


def test_an_administrator_is_found_whoever_comes_first() -> None:
    access = [{"client": "app", "read": [""]}]
    assert administrator(subject(clients=["app", "web"], access=access).cluster.spec) == "web"
    assert administrator(subject(clients=["app", "web"]).cluster.spec) == "app"
