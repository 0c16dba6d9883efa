from __future__ import annotations

import pytest

from dwcp_operator.plan import restart


@pytest.mark.parametrize(
    ("attempts", "delay_ms"),
    [(0, 0), (1, 1000), (2, 2000), (3, 4000), (6, 32_000), (7, 60_000), (8, 60_000), (500, 60_000)],
)
@pytest.mark.parametrize("last_exit", [None, 0, 70, 75, -9])
def test_doubles_from_one_second_to_sixty(
    attempts: int, delay_ms: int, last_exit: int | None
) -> None:
    assert restart(attempts, last_exit).delay_ms == delay_ms


@pytest.mark.parametrize("attempts", [0, 1, 9])
def test_exit_78_is_final(attempts: int) -> None:
    assert restart(attempts, 78).delay_ms is None


def test_attempts_are_a_count() -> None:
    with pytest.raises(AssertionError, match="count"):
        restart(-1, None)
