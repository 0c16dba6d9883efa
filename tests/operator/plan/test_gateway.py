"""Gateways are made and removed from any point at which an operator may have stopped."""

from __future__ import annotations

import itertools

import pytest

from dwcp_operator.plan.gateway import (
    EnsurePart,
    GatewayStep,
    GatewayWanted,
    Part,
    RemovePart,
    plan_gateway,
)

ALL = frozenset(Part)
WANTED = [
    None,
    GatewayWanted(1, own_certificates=True),
    GatewayWanted(3, own_certificates=True),
    GatewayWanted(2, own_certificates=False),
]


def needed(wanted: GatewayWanted | None) -> frozenset[Part]:
    """A deliberately dumb twin."""
    if wanted is None:
        return frozenset()
    return (
        ALL
        - (frozenset() if wanted.replicas > 1 else {Part.BUDGET})
        - (frozenset() if wanted.own_certificates else {Part.AUTHORITY, Part.CERTIFICATES})
    )


def after(there: frozenset[Part], steps: tuple[GatewayStep, ...]) -> frozenset[Part]:
    for step in steps:
        match step:
            case EnsurePart(part):
                there |= {part}
            case RemovePart(part):
                assert part in there, f"{part} is removed and is not there"
                there -= {part}
    return there


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_from_everything_there_may_be_and_every_prefix_it_gets_there(
    wanted: GatewayWanted | None,
) -> None:
    parts = tuple(Part)
    for count in range(len(parts) + 1):
        for there in map(frozenset, itertools.combinations(parts, count)):
            steps = plan_gateway(wanted, there)
            assert after(there, steps) == needed(wanted)
            for cut in range(len(steps)):
                stopped = after(there, steps[:cut])
                assert after(stopped, plan_gateway(wanted, stopped)) == needed(wanted)


def test_what_gateways_show_comes_before_them_and_is_removed_after_them() -> None:
    made = plan_gateway(GatewayWanted(2, own_certificates=True), frozenset())
    assert made == tuple(EnsurePart(part) for part in Part)
    assert plan_gateway(None, ALL) == tuple(RemovePart(part) for part in reversed(Part))
    assert plan_gateway(None, frozenset()) == ()


def test_before_the_genesis_nothing_is_made_and_what_is_not_wanted_goes() -> None:
    early = GatewayWanted(1, own_certificates=True, begun=False)
    assert plan_gateway(early, frozenset()) == ()
    assert plan_gateway(early, ALL) == (RemovePart(Part.BUDGET),)
