"""How long one liar can keep a view from beginning, and what a restart must remember."""

from __future__ import annotations

from replica.core.pbft.test_view_start import Stage


def test_a_resigning_primary_can_not_send_one_member_far_ahead() -> None:
    """A primary's own VIEW-CHANGE is joined at once for any view up to n further. Shown to one
    member only, it sends that member to view 5, which the liar leads again; the two others must
    pass views 2, 3, 4 and 5 by time-out, each twice as long, before a view can begin: over a
    minute without service, instead of one or two time-outs.
    """
    stage = Stage(liar=0, timeout_ms=2000)
    stage.tell([3], stage.change(5, ()))
    assert stage.goes_on(15_000)


def test_a_silent_primary_is_replaced_within_that_time() -> None:
    """The measure for the test above: the same liar says nothing at all."""
    stage = Stage(liar=0, timeout_ms=2000)
    assert stage.goes_on(15_000)
