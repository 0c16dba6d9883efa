"""Exploration: real engines, every order of what may arrive, to a bound; and it finds bugs."""

from __future__ import annotations

import pytest

from dwcp_replica.sim.explore import Bound
from dwcp_replica.sim.planted import PLANTED
from dwcp_replica.sim.planting import planted
from dwcp_replica.sim.scenes import SCENES, explore, runs

SHORT = ("two-faces-raft", "seal-sets", "slot", "whole-lying-pbft", "whole-lying-raft")
FOUND = (
    ("quorum-2f", "two-faces-pbft", None),
    ("quorum-2f", "two-faces-raft", None),
    ("votes-without-digest", "two-faces-pbft", None),
    ("commit-without-cc", "two-faces-pbft", None),
    ("final-after-one-round", "two-faces-pbft", None),
    ("raft-same-term-overwrite", "two-faces-raft", None),
    ("seal-set-2f", "seal-sets", None),
    ("acks-after-seal", "seal-sets", None),
    ("seal-not-durable", "whole-pbft", None),
    ("slot-prepared-not-durable", "whole-pbft", None),
)


@pytest.mark.parametrize("name", SHORT)
def test_a_scene_keeps_every_promise_within_its_bound(name: str) -> None:
    found = explore(name)
    print(found)
    assert not found.violation, (found.violation, found.trace)
    assert found.exhausted
    assert found.states > 20, "something happens in it"


@pytest.mark.parametrize("name", ["whole-pbft", "whole-raft"])
def test_an_undisturbed_run_lives_through_two_epochs(name: str) -> None:
    found = explore(name, runs(0))
    assert (found.epochs, found.final) == (2, 4)


def test_what_a_bound_leaves_out_is_said() -> None:
    assert not explore("two-faces-raft", Bound(depth_max=100, states_max=50)).exhausted
    some = explore("two-faces-raft", Bound(depth_max=2, states_max=1000))
    assert some.exhausted
    assert not some.complete
    assert explore("slot").complete


def test_a_disturbance_is_part_of_a_run() -> None:
    """One loss, one message overtaken or one crash: many more states, and no promise broken."""
    found = explore("whole-raft", Bound(10_000, 1500, delays_max=1))
    assert not found.violation, found.trace
    assert found.states == 1500


@pytest.mark.parametrize(("bug", "scene", "bound"), FOUND)
def test_a_planted_bug_is_found(bug: str, scene: str, bound: Bound | None) -> None:
    with planted(PLANTED[bug]):
        found = explore(scene, bound)
    assert found.violation, f"{PLANTED[bug].what} {found}"
    assert found.trace, "it says how"


@pytest.mark.slow
def test_what_a_two_faced_leader_may_do_is_explored_to_its_end() -> None:
    found = explore("two-faces-raft", at_length=True)
    print(found)
    assert found.complete
    assert found.states > 10_000
    assert found.final == 1


def test_every_scene_says_what_it_is() -> None:
    assert all(scene.what for scene in SCENES.values())
