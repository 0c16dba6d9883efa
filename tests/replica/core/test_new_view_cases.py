"""Independent cases of what a new view must keep, put before `recover`.

Those cases choose for each sequence number; ours chooses a chain. Where a case can be told as
chains, our start must hold every batch that the case keeps, at its place. What can not be told
so is listed with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dwcp.wire.peer import Header
from dwcp.wire.signing import digest
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.quorum import quorum
from dwcp_replica.core.recover import Statement, recover

START = Point(0, digest("start"), 0)
Places = dict[int, tuple[int, str]]
"""Sequence number -> view (from 0, as the cases count) and batch."""


class NotAChainError(Exception):
    """Why a case can not be told as chains."""


def branch(base: Point, places: Places) -> Branch:
    """The chain of these batches above `base`."""
    headers: list[Header] = []
    at = base
    for seq in sorted(seq for seq in places if seq > base.index):
        view, name = places[seq]
        if seq != at.index + 1:
            raise NotAChainError("a certificate above a number that its holder lacks")
        if view + 1 < at.term:
            raise NotAChainError("a certificate of a lower view above one of a higher view")
        headers.append(Header(0, view + 1, seq, digest(name), at.hash, bytes(64)))
        at = Point(seq, headers[-1].hash(), view + 1)
    return Branch.of(base, headers)


def stable(seq: int) -> Point:
    """The place of a checkpoint; nothing below it takes part."""
    return Point(seq, digest("checkpoint", b"%d" % seq), 0) if seq else START


def start_of(
    shown: Iterable[tuple[Places, Places]], checkpoints: list[int], highest: int
) -> Branch:
    """What `recover` makes of (log, certified) pairs. All of them begin at the highest checkpoint,
    which is what a replica that lags behind it shows once it has caught up."""
    base = stable(highest)
    statements = []
    for (log, certified), seq in zip(shown, checkpoints, strict=True):
        cc = branch(base, certified)
        statements.append(
            Statement(branch(base, log), cc if cc.headers else None, base if seq else None)
        )
    return recover(statements)


def holds(start: Branch, kept: dict[int, str]) -> None:
    """The start has these batches at their places."""
    found = {header.index: header.batch for header in start.headers}
    assert {seq: found.get(seq) for seq in kept} == {s: digest(b) for s, b in kept.items()}


# --- the signed protocol (OSDI 1999, section 4.4) ------------------------------------------------


def signed_case(case: dict[str, Any]) -> None:
    """Each member holds what it has prepared; a view's chain has one entry for each number."""
    expected = case["expected"]
    low = expected["min_s"]
    changes = case["view_changes"]
    claims = [{p["seq"]: (p["view"], p["digest"]) for p in c["prepared"]} for c in changes]
    if len({view for held in claims for view, _ in held.values()}) == 1:
        claims = [filled(held, claims) for held in claims]
    shown = [(held, held) for held in claims]
    start = start_of(shown, [c["stable_checkpoint"] for c in changes], low)
    kept = {p["seq"]: p["digest"] for p in expected["pre_prepares"] if p["digest"] is not None}
    holds(start, kept)
    assert start.base.index == low == max(c["stable_checkpoint"] for c in changes)
    assert start.tip.index == expected["max_s"], "nothing above what anybody had prepared"


def filled(held: Places, claims: list[Places]) -> Places:
    """In one view there is one chain: who prepared a number holds all below it."""
    everything = {seq: place for claim in claims for seq, place in claim.items()}
    view = next(iter(everything.values()))[0]
    top = max(held, default=0)
    return {seq: everything.get(seq, (view, f"unprepared {seq}")) for seq in range(1, top + 1)}


def test_signed_cases(conformance: Path) -> None:
    run_all(conformance / "bft_facts" / "newview_osdi.jsonl", signed_case, at_least=6)


# --- the protocol without signatures: counted claims in place of certificates ------------------


def counted_case(case: dict[str, Any]) -> None:
    """Where the claims are such as certificates could prove, we keep at least as much."""
    if case["op"] == "select_checkpoint":
        raise NotAChainError(
            "our checkpoints are shown with a certificate, not by counting holders"
        )
    changes = case["view_changes"]
    if len(changes) < quorum(case["n"]):
        assert case["expected"] is None, "less than a quorum decides nothing: nor does it here"
        return
    if case["expected"] is None:
        raise NotAChainError("undecided: claims contradict each other, which certificates can not")
    low = case["checkpoint"]["seq"]
    shown = [(latest(c["preprepared"]), latest(c["prepared"])) for c in changes]
    for log, certified in shown:
        if not set(certified.items()) <= set(log.items()):
            raise NotAChainError("a certificate for what its holder never accepted")
    if len({(s, p) for _, c in shown for s, p in c.items()}) > len(
        {s for _, c in shown for s in c}
    ):
        raise NotAChainError("two certificates of one view for one number")
    start = start_of(shown, [low for _ in changes], low)
    kept = {one["seq"]: one["digest"] for one in case["expected"]}
    holds(start, kept)
    assert set(kept) == set(range(low + 1, low + 1 + len(kept)))


def latest(entries: list[dict[str, Any]]) -> Places:
    """The batch of the highest view for each number, told by the view that first proposed it."""
    by_view = sorted(entries, key=lambda entry: entry["view"])
    return {entry["seq"]: (entry["orig_view"], entry["digest"]) for entry in by_view}


def test_counted_cases(conformance: Path) -> None:
    run_all(conformance / "bft_facts" / "newview_mac.jsonl", counted_case, at_least=10)


def run_all(file: Path, check: Any, at_least: int) -> None:
    """Check every case; print how many were checked, and why the others were not."""
    reasons: Counter[str] = Counter()
    checked = 0
    for line in file.read_text().splitlines():
        case = json.loads(line)
        try:
            check(case)
        except NotAChainError as reason:
            print(f"{case['id']}: not checked: {reason}")
            reasons[str(reason)] += 1
        except AssertionError as error:
            raise AssertionError(f"{case['id']}: {error}") from error
        else:
            checked += 1
    print(f"{file.stem}: {checked} checked, {reasons.total()} can not be told as chains")
    for reason, count in sorted(reasons.items()):
        print(f"  {count}: {reason}")
    assert checked >= at_least
