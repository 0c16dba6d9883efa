from __future__ import annotations

import pytest

from dwcp_operator import rules
from dwcp_operator.resources import ClusterSpec

CHANGES = {
    "replicas": (7, "changing the number of replicas is not yet supported"),
    "trust": ("Crash", "it is part of the cluster's genesis; make a new cluster"),
    "checkpointInterval": (50, "it is part of the cluster's genesis; make a new cluster"),
    "requestTimeout": ("3s", "it is part of the cluster's genesis; make a new cluster"),
    "clients": (["a"], "adding and removing clients is not yet supported"),
    "bootstrap": ({"adopt": {}}, "it is read once, when the cluster is created"),
    "storage": ({"size": "2Gi"}, "a volume can not shrink, and growing it is not yet supported"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_fixed_fields_stay(field: str) -> None:
    value, reason = CHANGES[field]
    old = ClusterSpec().manifest()
    (sentence,) = rules.forbidden_changes(old, {**old, field: value})
    assert sentence.startswith(f"spec.{field}")
    assert f"can not be changed: {reason}" in sentence


@pytest.mark.parametrize("field", ["mode", "image", "resources"])
def test_other_fields_may_change(field: str) -> None:
    old = ClusterSpec().manifest()
    assert rules.forbidden_changes(old, {**old, field: "other"}) == ()


def test_the_storage_class_can_not_be_added_or_taken_away() -> None:
    old = ClusterSpec().manifest()
    new = {**old, "storage": {"size": "1Gi", "storageClassName": "fast", "reclaim": "Retain"}}
    (added,) = rules.forbidden_changes(old, new)
    (removed,) = rules.forbidden_changes(new, old)
    assert added == removed
    assert added.startswith("spec.storage.storageClassName can not be changed")


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("2s", 2000), ("500ms", 500), ("0s", 0), ("1.5s", None), ("", None), ("-1s", None)],
)
def test_durations(text: str, duration_ms: int | None) -> None:
    assert rules.parse_duration_ms(text) == duration_ms
