"""`dwcp links`: the matrix, and predictions with what was measured beside them."""

from __future__ import annotations

from typing import Any

import pytest

from dwcp.cli.links import ModesBody, NetworkBody, PeerBody, StatusBody, delays_ms, tree
from dwcp.wire.records import EpochRecord
from replica.store.driver import GENESIS


def said(record: EpochRecord, rtt_us: int | None, *, silent: int | None = None) -> Any:
    """Every member but the silent one, all links alike; the first leads, with 3 ms a commit."""
    names = [member.name for member in record.members]
    found = {}
    for number, name in enumerate(names):
        peers = tuple(PeerBody(rtt_us, name=other) for other in names if other != name)
        modes = ModesBody(
            decided="Internet", forced=None, asked=None, network=NetworkBody(rtt_us),
            commit_ms=3.0 if number == 0 else None,
        )  # fmt: skip
        found[name] = StatusBody(
            name=name, mode="Internet", protocol="pbft", primary=names[0], peers=peers, modes=modes
        )
    if silent is not None:
        del found[names[silent]]
    return found


def test_every_leader_is_predicted_and_the_one_that_runs_is_measured_beside() -> None:
    shown = tree(GENESIS, said(GENESIS, 2000))
    found = {(row["protocol"], row["leader"]): row for row in shown["predictions"]}
    assert len(found) == 8, "four leaders, two protocols"
    assert found["pbft", "demo-0"]["predicted_ms"] == 3.0, "three one-way delays of 1 ms"
    assert found["pbft", "demo-0"]["measured_ms"] == 3.0
    assert {row["measured_ms"] for key, row in found.items() if key != ("pbft", "demo-0")} == {None}
    assert shown["links"]["demo-1"]["demo-2"]["rttUs"] == 2000


@pytest.mark.parametrize("number", range(4))
def test_a_silent_members_links_are_known_from_their_other_end(number: int) -> None:
    matrix = delays_ms(GENESIS, said(GENESIS, 2000, silent=number))
    assert matrix == [[0.0 if i == j else 1.0 for j in range(4)] for i in range(4)]


def test_what_is_not_measured_is_not_predicted() -> None:
    assert tree(GENESIS, said(GENESIS, None))["predictions"] == []
