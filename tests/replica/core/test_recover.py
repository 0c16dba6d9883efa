"""`recover`, rule by rule: each case is one that a simpler rule gets wrong (epochs.md)."""

from __future__ import annotations

import pytest

from dwcp.wire.peer import Header
from dwcp.wire.signing import digest
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.recover import Statement, UnsafeStartError, recover

START = Point(0, digest("start"), 0)


def chain(*entries: tuple[int, str], base: Point = START) -> Branch:
    """A branch of (term, name) entries."""
    headers: list[Header] = []
    at = base
    for term, name in entries:
        header = Header(0, term, at.index + 1, digest(name), at.hash, bytes(64))
        headers.append(header)
        at = Point(header.index, header.hash(), term)
    return Branch.of(base, headers)


def said(log: Branch, cc: Branch | None = None, checkpoint: Point | None = None) -> Statement:
    return Statement(log, cc, checkpoint)


EMPTY = chain()
A = chain((1, "a"))
AB = chain((1, "a"), (1, "b"))
AC = chain((1, "a"), (1, "c"))
A2 = chain((1, "a"), (2, "x"))


def test_nothing_was_done() -> None:
    assert recover([said(EMPTY)] * 3).tip == START


def test_the_term_beats_the_length() -> None:
    assert recover([said(AB), said(A2), said(EMPTY)]).tip == A2.tip
    longer = chain((1, "a"), (1, "b"), (1, "c"), (1, "d"))
    assert recover([said(longer), said(A2), said(EMPTY)]).tip == A2.tip


def test_a_certificate_of_the_term_beats_the_length() -> None:
    """A liar shows a longer branch; the certified one stays."""
    long_lie = chain((1, "a"), (1, "c"), (1, "d"), (1, "e"))
    assert recover([said(long_lie), said(AB, cc=AB), said(A)]).tip == AB.tip


def test_a_certificate_of_an_older_term_does_not_beat_the_term() -> None:
    assert recover([said(A2), said(AB, cc=AB), said(A)]).tip == A2.tip


def test_what_extends_the_certificate_is_kept() -> None:
    """Beyond the certificate the longest chain counts: an entry may be prepared elsewhere."""
    assert recover([said(AB), said(A, cc=A), said(A)]).tip == AB.tip


def test_the_longest_certificate_of_the_term_counts() -> None:
    assert recover([said(A, cc=A), said(AB, cc=AB), said(AC)]).tip == AB.tip


def test_a_certificate_whose_branch_left_the_log_counts() -> None:
    other = chain((1, "z"))
    assert recover([said(other, cc=AB), said(other), said(EMPTY)]).tip == AB.tip


def test_a_checkpoint_counts_as_a_certificate_of_its_entry() -> None:
    base = AB.tip
    shown = Branch.of(base, ())
    lie = chain((1, "z"), (1, "y"), (1, "x"))
    assert recover([said(shown, checkpoint=base), said(lie), said(EMPTY)]).tip == base


def test_a_checkpoint_stands_for_its_prefix() -> None:
    """A statement that begins at the checkpoint contains certificates below it."""
    base = AB.tip
    above = chain((1, "c"), base=base)
    found = recover([said(above, checkpoint=base), said(AB, cc=A), said(A)])
    assert found.tip == above.tip


def test_equal_lengths_are_decided_by_the_hash_for_all_alike() -> None:
    first = recover([said(AB), said(AC), said(A)])
    assert first.tip == recover([said(A), said(AC), said(AB)]).tip


def test_a_start_off_the_stable_checkpoint_is_refused() -> None:
    checkpoint = AB.tip
    newer = chain((1, "z"), (2, "y"))
    with pytest.raises(UnsafeStartError, match="checkpoint 2"):
        recover([said(newer, cc=newer), said(AB, checkpoint=checkpoint), said(EMPTY)])
