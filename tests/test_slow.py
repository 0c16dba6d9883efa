"""The list of slow tests names tests that are there: one that was renamed would be quick again."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import SLOW

ROOT = Path(__file__).resolve().parent.parent
LISTED = [line for line in SLOW.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("listed", LISTED)
def test_it_is_there(listed: str) -> None:
    path, *_, name = listed.split("::")
    assert f"def {name.split('[')[0]}(" in (ROOT / path).read_text()


def test_the_list_is_in_order() -> None:
    assert sorted(set(LISTED)) == LISTED
