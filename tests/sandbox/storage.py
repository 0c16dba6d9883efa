"""Volumes: PersistentVolumes of type `local`, made beforehand, on directories of the nodes.

Unlike host-path volumes these honour fsGroup, are bound to their node, and work with
ReadWriteOncePod. That access mode can not be combined with another, so each node has as many
volumes of the one kind as of the other. Sizes are nominal: nothing enforces them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.layout import Layout, Node

CLASS_NAME = "sandbox-local"
LABEL = "sandbox.dwcp.dev/volume"
CAPACITY = "2Gi"
ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod")
SPENT_PHASES = frozenset({"Released", "Failed"})


def storage_class() -> dict[str, Any]:
    """The default class; a volume is chosen when a pod is scheduled."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS_NAME, "annotations": default},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }


def volume_name(node: Node, number: int) -> str:
    return f"{node.name}-{number:02d}"


def volume(node: Node, number: int) -> dict[str, Any]:
    """The PersistentVolume for directory `number` of `node`; even numbers are ReadWriteOnce."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(node, number), "labels": {LABEL: node.name}},
        "spec": {
            "storageClassName": CLASS_NAME,
            "capacity": {"storage": CAPACITY},
            "accessModes": [ACCESS_MODES[number % 2]],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(node.volume(number))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }


def volume_numbers(per_mode: int) -> range:
    """The numbers of a node's volumes when there are `per_mode` of each access mode."""
    return range(len(ACCESS_MODES) * per_mode)


def manifest(nodes: Sequence[Node], per_mode: int) -> dict[str, Any]:
    """The class and all volumes of `nodes` as one List."""
    volumes = [volume(node, number) for node in nodes for number in volume_numbers(per_mode)]
    return {"apiVersion": "v1", "kind": "List", "items": [storage_class(), *volumes]}


def make_directories(nodes: Sequence[Node], per_mode: int) -> None:
    """Make the directories behind the volumes; what is in them stays."""
    for node in nodes:
        for number in volume_numbers(per_mode):
            node.volume(number).mkdir(parents=True, exist_ok=True)


def spent(volumes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the volumes whose claim is gone, from the items of `kubectl get pv`."""
    return [
        item["metadata"]["name"]
        for item in volumes
        if item.get("status", {}).get("phase") in SPENT_PHASES
    ]


def parse_volume_name(layout: Layout, name: str) -> tuple[Node, int]:
    """The node and the number in a name made by `volume_name`."""
    node, number = name.rsplit("-", 1)
    return layout.node(int(node.removeprefix("node-"))), int(number)


def wipe(node: Node, number: int) -> None:
    """Empty the directory behind a volume and give it back to root, as a new one is."""
    directory = node.volume(number)
    shutil.rmtree(directory)
    directory.mkdir()
