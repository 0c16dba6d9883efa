from __future__ import annotations

import pytest

from dwcp_operator import rules
from dwcp_operator.resources import ClusterSpec

CHANGES = {
    "trust": ("Crash", "it is part of the cluster's genesis; make a new cluster"),
    "checkpointInterval": (50, "it is part of the cluster's genesis; make a new cluster"),
    "requestTimeout": ("3s", "it is part of the cluster's genesis; make a new cluster"),
    "fastReads": (True, "it is part of the cluster's genesis; make a new cluster"),
    "clients": (["a"], "adding and removing clients is not yet supported"),
    "bootstrap": ({"adopt": {}}, "it is read once, when the cluster is created"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_fixed_fields_stay(field: str) -> None:
    value, reason = CHANGES[field]
    old = ClusterSpec().manifest()
    (sentence,) = rules.forbidden_changes(old, {**old, field: value})
    assert sentence.startswith(f"spec.{field}")
    assert f"can not be changed: {reason}" in sentence


@pytest.mark.parametrize(("before", "after"), [("2Gi", "1Gi"), ("2Gi", "2000M"), ("1Ti", "1T")])
def test_a_volume_may_grow_and_not_shrink(before: str, after: str) -> None:
    small, large = ({"storage": {"size": size}} for size in (after, before))
    assert rules.forbidden_changes(small, large) == ()
    assert rules.forbidden_changes(large, large) == ()
    (sentence,) = rules.forbidden_changes(large, small)
    assert sentence.startswith("spec.storage.size can not be made smaller")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1Gi", 2**30), ("500Mi", 500 * 2**20), ("2G", 2 * 10**9), ("1Ti", 2**40),
        ("1.5Gi", 3 * 2**29), ("1024", 1024), ("1k", 1000), ("1Ki", 1024),
        ("", None), ("Gi", None), ("-1Gi", None), ("1gi", None), ("1e3", None),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    assert rules.size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "good"),
    [("500m", True), ("512Mi", True), ("0.5", True), ("1e3", True), ("2", True)]
    + [(bad, False) for bad in ("-1", "1.", "one", "", "1 Gi", "1Gb", ".5")],
)
def test_quantities(text: str, good: bool) -> None:
    assert (rules.quantity_problem(text) is None) == good


@pytest.mark.parametrize("field", ["mode", "image", "resources"])
def test_other_fields_may_change(field: str) -> None:
    old = ClusterSpec().manifest()
    assert rules.forbidden_changes(old, {**old, field: "other"}) == ()


def test_what_the_genesis_says_can_not_be_added_or_taken_away() -> None:
    old = ClusterSpec().manifest()
    new = {key: value for key, value in old.items() if key != "fastReads"}
    (added,) = rules.forbidden_changes(old, new)
    (removed,) = rules.forbidden_changes(new, old)
    assert added == removed
    assert added.startswith("spec.fastReads can not be changed")


@pytest.mark.parametrize("text", ["0s", "30s", "999999s"])
def test_a_failing_member_is_replaced_after_half_a_minute_or_more_or_never(text: str) -> None:
    assert rules.replace_after_problem(text) is None
    assert "use 30s or more" in (rules.replace_after_problem("29s") or "")
    assert "is not a duration" in (rules.replace_after_problem("soon") or "")


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("2s", 2000), ("500ms", 500), ("0s", 0), ("1.5s", None), ("", None), ("-1s", None)],
)
def test_durations(text: str, duration_ms: int | None) -> None:
    assert rules.parse_duration_ms(text) == duration_ms
