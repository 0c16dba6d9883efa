"""The checkers are proved: each bug planted in the engine must be caught within its seeds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dwcp_replica.core.certificates import Membership
from dwcp_replica.sim.page import between, marks
from dwcp_replica.sim.planted import PLANTED
from dwcp_replica.sim.planting import Caught, hunt, planted, write_table
from dwcp_replica.sim.run import simulate

ASSURANCE = Path(__file__).resolve().parents[3] / "docs" / "assurance.md"
QUICK = (
    "quorum-2f",
    "votes-without-digest",
    "skipped-fsync",
    "new-view-drops-prepared",
    "view-change-not-durable",
    "unverified-clients",
    "stale-checkpoint-accepted",
    "repetitions-executed",
)
SUBSET_S = 90


def caught(name: str) -> Caught:
    found = hunt(PLANTED[name])
    print(f"replay: dwcp sim planted --only {name}")
    assert found.caught, f"{name} ({PLANTED[name].what}): {found.by or 'not caught'}"
    return found


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught(name: str) -> None:
    caught(name)


@pytest.mark.slow
def test_ninety_seconds_of_planted_bugs() -> None:
    began_s = time.monotonic()
    names = [name for name in PLANTED if name not in QUICK]
    hunted = 0
    while hunted < len(names) and time.monotonic() - began_s < SUBSET_S:
        caught(names[hunted])
        hunted += 1
    assert hunted >= 20, f"only {hunted} hunts in {SUBSET_S} s: the simulator has become slow"


def test_there_are_enough() -> None:
    assert len(PLANTED) >= 20
    assert all(bug.what for bug in PLANTED.values())


def test_a_planted_bug_leaves_no_trace() -> None:
    before = Membership.quorum
    with planted(PLANTED["quorum-2f"]):
        assert Membership.quorum is not before
    assert Membership.quorum is before
    assert simulate(3).operations == 20


def test_a_mutation_that_fits_the_engine_no_more_is_not_a_catch() -> None:
    broken = PLANTED["quorum-2f"]

    def ill_fitting(patches: object) -> None:
        patches.set(Membership, "quorum", property(lambda self: self.no_such_thing))  # type: ignore[attr-defined]

    found = hunt(type(broken)(broken.name, broken.what, ill_fitting, broken.setting, 1))
    assert not found.caught
    assert "AttributeError" in found.by


def test_the_table_is_written_between_its_marks() -> None:
    rows = [
        Caught("one", caught=True, seeds=3, seconds=1.25, by="Violation: a|b"),
        Caught("two", caught=False, seeds=9, seconds=0.0, by=""),
    ]
    begin, end = marks("planted")
    page = write_table(f"before\n{begin}\nold\n{end}\nafter\n", rows, "abc1234")
    assert "| one | yes | 3 | 1.2 | Violation: a/b |" in page
    assert "| two | **no** | 9 | 0.0 |  |" in page
    assert "abc1234" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_a_page_without_marks_says_which_to_add() -> None:
    with pytest.raises(ValueError, match=r"<!-- planted:begin -->"):
        write_table("a page\n", [], "abc1234")


def test_the_page_lists_every_planted_bug() -> None:
    table = between(ASSURANCE.read_text(), "planted")
    missing = [name for name in PLANTED if f"| {name} | yes |" not in table]
    assert not missing, "write it anew: dwcp sim planted --write docs/assurance.md"
