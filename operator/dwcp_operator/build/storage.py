"""The members' PersistentVolumeClaims and what happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dwcp_operator.build.names import Object, Subject

AccessMode = Literal["ReadWriteOnce", "ReadWriteOncePod"]


def claim(subject: Subject, member: str, access_mode: AccessMode) -> Object:
    """The empty volume of a new member.

    ReadWriteOncePod keeps a second Pod from ever running on it, where the volume's driver can.
    """
    storage = subject.cluster.spec.storage
    spec: Object = {
        "accessModes": [access_mode],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": subject.reclaimed_metadata(subject.claim(member), member),
        "spec": spec,
    }


def reclaim_patch(subject: Subject, found: Mapping[str, Any]) -> Object | None:
    """The merge patch that makes a claim or key Secret follow spec.storage.reclaim, or None.

    With Delete it carries our owner reference, with Retain no reference of ours. It names the
    object's resourceVersion: if the object has changed since it was read, nothing is done.
    """
    metadata = found["metadata"]
    before = metadata.get("ownerReferences", [])
    after = [r for r in before if r["uid"] != subject.uid]
    if subject.cluster.spec.storage.reclaim == "Delete":
        after.append(subject.owner())
    if before == after or (not before and not after):
        return None
    version = metadata["resourceVersion"]
    return {"metadata": {"resourceVersion": version, "ownerReferences": after or None}}


def growth_patch(subject: Subject, found: Mapping[str, Any]) -> Object:
    """The merge patch that asks a claim for the size in the resource.

    It names the object's resourceVersion: if the claim has changed since it was read, nothing is
    done.
    """
    return {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"resources": {"requests": {"storage": subject.cluster.spec.storage.size}}},
    }
