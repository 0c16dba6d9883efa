from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from dwcp.wire.records import EpochRecord
from dwcp_replica.core.quorum import faults, quorum
from dwcp_replica.sim.crypto import HashSigner
from replica.core.conversation import genesis


def shares_an_honest_member(n: int, votes: int) -> bool:
    """The dumb twin: every two sets of voters, counted out."""
    sets = list(combinations(range(n), votes))
    first = sets[0]
    return all(len(set(first) & set(other)) > faults(n) for other in sets)


def record(n: int) -> EpochRecord:
    return genesis([HashSigner(bytes([i]) * 32) for i in range(n)], bytes(32), 100, 1000)


@pytest.mark.parametrize("n", range(4, 14))
def test_quorum_is_the_smallest_safe_one(n: int) -> None:
    assert shares_an_honest_member(n, quorum(n))
    assert not shares_an_honest_member(n, quorum(n) - 1)
    assert quorum(n) <= n - faults(n), "the honest alone must be able to form one"


@pytest.mark.parametrize(("n", "votes"), [(1, 1), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_crash_trust_needs_a_majority(n: int, votes: int) -> None:
    assert quorum(n, "Crash") == votes


def test_unknown_trust_is_refused() -> None:
    with pytest.raises(ValueError, match="use Byzantine or Crash"):
        quorum(4, "Blind")


def test_independent_cases(conformance: Path) -> None:
    checked = 0
    for line in (conformance / "bft_facts" / "quorum.jsonl").read_text().splitlines():
        case = json.loads(line)
        n, kind = case["n"], case["kind"]
        if kind == "primary":
            # our views start at 1, the paper's at 0
            assert record(n).primary(case["view"] + 1) == case["primary"], case["id"]
        else:
            assert faults(n) == case["f"], case["id"]
        if kind in ("quorum", "quorum_arithmetic"):
            assert quorum(n) == case["min_safe_quorum"], case["id"]
        if kind == "role_quorums":
            # that project asks n - f of everything: the same where n = 3f + 1, more elsewhere
            assert quorum(n) <= case["commit"] == case["view_change"] == n - faults(n), case["id"]
            assert (quorum(n) == case["commit"]) == (n % 3 == 1), case["id"]
        checked += 1
    print(f"bft_facts/quorum: {checked} cases")
    assert checked >= 50


def test_majorities_from_independent_cases(conformance: Path) -> None:
    """What a majority has acknowledged, and whether a vote is decided, by `quorum` alone."""
    checked, joint = 0, 0
    for line in (conformance / "raft_quorum" / "quorum.jsonl").read_text().splitlines():
        case = json.loads(line)
        halves = [set(case["voters"]), set(case.get("voters_joint") or case["voters"])]
        voters = halves[0] or halves[1]
        if not voters or (halves[1] or voters) != voters:
            joint += 1  # ours are whole sets: members change by the next epoch, never jointly
            continue
        enough = quorum(len(voters), "Crash")
        if case["op"] == "committed_index":
            acked = sorted((case["acked"].get(str(v), 0) for v in voters), reverse=True)
            assert acked[enough - 1] == case["expected"], case["id"]
        else:
            votes = [case["votes"].get(str(v)) for v in voters]
            won, lost = votes.count(True) >= enough, votes.count(False) > len(voters) - enough
            assert ("won" if won else "lost" if lost else "pending") == case["expected"], case["id"]
        checked += 1
    print(
        f"raft_quorum: {checked} cases; {joint} of joint or empty memberships, which are not ours"
    )
    assert checked >= 20


def test_joint_changes_are_listed_and_not_run(conformance: Path) -> None:
    """Members change as a whole set with the next epoch: there is no joint phase to compare, and
    no change of one voter at a time inside an epoch. A case of another kind would be for us."""
    replaced = {"simple", "enter_joint", "leave_joint"}
    for line in (conformance / "raft_confchange" / "confchange.jsonl").read_text().splitlines():
        case = json.loads(line)
        operations = {step["op"] for step in case["steps"]}
        assert operations <= replaced, f"{case['id']} asks what we answer: run it"
        print(
            f"{case['id']}: not run: whole-set epochs in place of {', '.join(sorted(operations))}"
        )
