"""What is read of one cluster, and which Pods of it are nobody's."""

from __future__ import annotations

from dwcp_operator.act.snapshot import Snapshot
from kube.subjects import resource, subject


def pod(name: str, **metadata: str) -> dict[str, object]:
    return {"kind": "Pod", "metadata": {"name": name, **metadata}}


def test_a_former_member_that_is_being_deleted_is_left_alone() -> None:
    """On a node that is gone its Pod stays for ever: to delete it again and again helps nobody."""
    going = pod("demo-8", deletionTimestamp="2026-01-01T00:00:00Z")
    pods = (pod("demo-0"), pod("demo-7"), going)
    objects = {("Pod", str(p["metadata"]["name"])): p for p in pods}  # type: ignore[index]
    found = Snapshot(subject(), resource(), objects, frozenset())
    assert found.strangers == ("demo-7",)
