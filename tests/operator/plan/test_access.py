"""Changes of rights, from all states that a log may hold to all that a resource may ask for."""

from __future__ import annotations

import itertools

import pytest

from dwcp.wire.operations import Access, Grant
from dwcp_operator.plan.access import Rights, SetRights, may_administer, plan_access

ADMIN, READER, NOTHING = Access(admin=True), Access(grants=(Grant(b"a", read=True),)), Access()
CLIENTS = ("app", "batch", "web")
KINDS = (None, ADMIN, READER, NOTHING)
STATES = [dict(zip(CLIENTS, kinds, strict=True)) for kinds in itertools.product(KINDS, repeat=3)]
SOUND = [state for state in STATES if any(map(may_administer, state.values()))]


def carried_out(held: Rights, step: SetRights) -> dict[str, Access | None]:
    """As the members do it."""
    assert may_administer(held[step.by]), f"{step.by} may not change rights any more"
    assert held[step.client] != step.access, "nothing is ordered that is so already"
    return {**held, step.client: step.access}


def test_every_change_is_ordered_by_who_may_and_can_be_cut_off() -> None:
    for held, wanted in itertools.product(SOUND, SOUND):
        state: dict[str, Access | None] = held
        for step in plan_access(wanted, held):
            state = carried_out(state, step)
            assert any(map(may_administer, state.values())), "nobody is left who may"
            later = state
            for again in plan_access(wanted, state):
                later = carried_out(later, again)
            assert later == wanted
        assert state == wanted


def test_what_is_so_is_left_alone() -> None:
    assert plan_access(SOUND[0], SOUND[0]) == ()


def test_without_an_administrator_it_says_so() -> None:
    nobody: dict[str, Access | None] = dict.fromkeys(CLIENTS, READER)
    with pytest.raises(ValueError, match="no client may administer"):
        plan_access(SOUND[0], nobody)
    with pytest.raises(ValueError, match="no client would be left"):
        plan_access(nobody, SOUND[0])


def test_an_administrator_may_give_its_place_to_another() -> None:
    held: Rights = {"app": None, "web": READER}
    wanted: Rights = {"app": READER, "web": ADMIN}
    assert plan_access(wanted, held) == (
        SetRights("web", ADMIN, "app"),
        SetRights("app", READER, "web"),
    )
