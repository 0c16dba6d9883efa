"""An answer takes five one-way delays, and the page says what is true today."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwcp_replica.sim.latency import (
    EQUAL,
    FAST_READ,
    ORDERED,
    ORDERED_BESIDE_FAST,
    REGIONS,
    SIZES,
    Row,
    floor_ms,
    measured_ms,
    rows,
    uniform,
)
from dwcp_replica.sim.latency_page import picture, table
from dwcp_replica.sim.page import between

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def found() -> list[Row]:
    return rows()


@pytest.mark.parametrize("n", SIZES)
def test_so_many_delays_where_every_link_is_equal(n: int) -> None:
    measured = measured_ms(n, "Sydney", uniform(40))
    assert measured == floor_ms(n, "Sydney", uniform(40))
    assert measured == {ORDERED: 5 * 40, ORDERED_BESIDE_FAST: 5 * 40, FAST_READ: 2 * 40}


@pytest.mark.slow
def test_no_message_waits_for_another_without_need(found: list[Row]) -> None:
    """Over links of different lengths too: what the fastest quorums allow, and no less."""
    expected = {(n, client) for n in SIZES for client in (EQUAL, *REGIONS)}
    assert {(row.n, row.client) for row in found} == expected
    assert all(row.measured_ms == row.floor_ms for row in found)


@pytest.mark.slow
def test_the_page_and_the_picture_are_those_of_today(found: list[Row]) -> None:
    """Write them anew: dwcp sim latency --write docs."""
    assert between((DOCS / "latency.md").read_text(), "latency").strip() == table(found)
    assert (DOCS / "latency.svg").read_text() == picture(found)
