"""What a DWCPCluster may say, and the sentence for what it may not.

The checks here are the only statement of the rules: the pydantic models call them, the CEL
rules of the custom resource definition are generated from them, and `dwcp up` applies the
same table to a changed manifest. Every sentence continues "spec.field=value ...".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

REPLICAS_MAX: Final = 31
NAME_LENGTH_MAX: Final = 52
"""Leaves room in a DNS label for a member's number and a Service's suffix."""
REQUEST_TIMEOUT_MS_MIN: Final = 100
REQUEST_TIMEOUT_MS_MAX: Final = 60_000
SETTLE_TIME_MS_MAX: Final = 600_000
BACKUP_PERIOD_MS_MIN: Final = 60_000
REPLACE_AFTER_MS_MIN: Final = 30_000
STEP_DEADLINE_MS_MIN: Final = 10_000
STEP_DEADLINE_MS_MAX: Final = 3_600_000
CHECKPOINT_INTERVAL_MIN: Final = 10
CHECKPOINT_INTERVAL_MAX: Final = 1000

NAME_PATTERN: Final = "^[a-z]([a-z0-9-]*[a-z0-9])?$"
LABEL_PATTERN: Final = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
DURATION_PATTERN: Final = "^[0-9]{1,6}(ms|s)$"
SIZE_PATTERN: Final = "^[1-9][0-9]{0,5}(Mi|Gi|Ti|M|G|T)$"
TIME_PATTERN: Final = "^([01][0-9]|2[0-3]):[0-5][0-9]$"
QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[munkMGTPE]|[eE][+-]?[0-9]+)?$"
CLUSTER_ID_PATTERN: Final = "^[0-9a-f]{32}$"
HASH_PATTERN: Final = "^[0-9a-f]{64}$"
FILE_PATTERN: Final = "^[A-Za-z0-9_./-]+$"

ADOPTED_COUNT: Final = (
    "adopts a number of volumes that is not 3f+1: name one volume for each member that the earlier "
    "cluster had"
)
ONE_BOOTSTRAP: Final = "must name one way to begin: adopt, for volumes, or backup, for a backup"

_UNITS: Final = {
    "": 1,
    "k": 1000,
    **{letter: 1000**power for power, letter in enumerate("MGTPE", 2)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}

PROTOCOL_OF: Final[Mapping[str, Literal["pbft", "raft"]]] = {
    "Auto": "pbft",
    "Datacenter": "raft",
    "Hybrid": "raft",
    "Internet": "pbft",
}
"""The protocol of a new cluster, by its mode."""
TRUSTS: Final = ("Byzantine", "Crash")
TRUSTS_SUPPORTED: Final = ("Byzantine",)


def replicas_problem(replicas: int) -> str | None:
    """Why this many replicas do not do under Byzantine trust, or None."""
    if replicas > REPLICAS_MAX:
        return f"is more than the {REPLICAS_MAX} members a cluster may have: use 4, 7, 10 or 13"
    if replicas < 4 or (replicas - 1) % 3:
        low = max(4, (replicas - 1) // 3 * 3 + 1)
        high = min(low + 3, REPLICAS_MAX)
        return f"is not 3f+1: use {low} or {high}"
    return None


def trust_problem(trust: str) -> str | None:
    """Why this trust does not do, or None."""
    return None if trust in TRUSTS_SUPPORTED else "is not yet supported: use Byzantine"


def parse_duration_ms(text: str) -> int | None:
    """Milliseconds of a duration such as 2s or 500ms; None when it is not one."""
    if re.fullmatch(DURATION_PATTERN, text) is None:
        return None
    if text.endswith("ms"):
        return int(text[:-2])
    return int(text[:-1]) * 1000


def request_timeout_problem(text: str) -> str | None:
    """Why this request timeout does not do, or None."""
    duration_ms = parse_duration_ms(text)
    if duration_ms is None:
        return "is not a duration: write seconds or milliseconds, such as 2s or 500ms"
    if not REQUEST_TIMEOUT_MS_MIN <= duration_ms <= REQUEST_TIMEOUT_MS_MAX:
        return "is out of range: use 100ms to 60s"
    return None


def size_problem(text: str) -> str | None:
    """Why this volume size does not do, or None."""
    if re.fullmatch(SIZE_PATTERN, text) is None:
        return "is not a volume size: write a whole number and its unit, such as 1Gi or 500Mi"
    return None


def step_deadline_problem(text: str) -> str | None:
    """Why this deadline of a rolling change's step does not do, or None."""
    duration_ms = parse_duration_ms(text)
    if duration_ms is None:
        return "is not a duration: write seconds, such as 300s"
    if not STEP_DEADLINE_MS_MIN <= duration_ms <= STEP_DEADLINE_MS_MAX:
        return "is out of range: use 10s to 3600s"
    return None


def settle_time_problem(text: str) -> str | None:
    """Why this pause between a rolling change's steps does not do, or None."""
    duration_ms = parse_duration_ms(text)
    if duration_ms is None:
        return "is not a duration: write seconds, such as 10s"
    return None if duration_ms <= SETTLE_TIME_MS_MAX else "is out of range: use 0s to 600s"


def replace_after_problem(text: str) -> str | None:
    """Why a failing member can not be replaced after this time, or None."""
    duration_ms = parse_duration_ms(text)
    if duration_ms is None:
        return "is not a duration: write seconds, such as 1800s, or 0s for never"
    if 0 < duration_ms < REPLACE_AFTER_MS_MIN:
        return "is out of range: use 30s or more, or 0s for never"
    return None


def time_problem(text: str) -> str | None:
    """Why this time of day does not do, or None."""
    if re.fullmatch(TIME_PATTERN, text) is None:
        return "is not a time of day: write hours and minutes in UTC, such as 02:00"
    return None


def backup_period_problem(text: str) -> str | None:
    """Why this time between backups does not do, or None."""
    duration_ms = parse_duration_ms(text)
    if duration_ms is None or duration_ms < BACKUP_PERIOD_MS_MIN:
        return "is no time between backups: write 60s or more"
    return None


def file_problem(path: str) -> str | None:
    """Why this is no file's path, or None."""
    if re.fullmatch(FILE_PATTERN, path) is None or ".." in path.split("/"):
        return "is not a path: use letters, digits, dots, hyphens and slashes, and never .."
    return None


def quantity_problem(text: str) -> str | None:
    """Why this amount of a compute resource does not do, or None."""
    if re.fullmatch(QUANTITY_PATTERN, text) is None:
        return "is not a quantity: write a number and its unit, such as 500m or 512Mi"
    return None


def size_bytes(text: str) -> int | None:
    """Bytes of a volume size, such as 1Gi; None for what is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(|[kMGTPE]|[KMGTPE]i)", text)
    return None if found is None else int(Fraction(found[1]) * _UNITS[found[2]])


def name_problem(name: str) -> str | None:
    """Why this cluster name does not do, or None."""
    if len(name) > NAME_LENGTH_MAX:
        return (
            f"has {len(name)} characters: use at most {NAME_LENGTH_MAX}, "
            "members' names are made from it"
        )
    if re.fullmatch(NAME_PATTERN, name) is None:
        return (
            "is not a DNS label: use lower-case letters, digits and hyphens, "
            "beginning with a letter, such as demo"
        )
    return None


def adoption_problem(name: str, replicas: int) -> str:
    """What is wrong with adopted volumes that are not those of exactly this cluster's members."""
    return (
        "spec.bootstrap.adopt names members that are not this cluster's: name a volume for each of "
        f"{name}-0 to {name}-{replicas - 1}; metadata.name must be that of the old cluster"
    )


def label_problem(name: str) -> str | None:
    """Why this is not a name of a namespace, client or member, or None."""
    if len(name) > 63 or re.fullmatch(LABEL_PATTERN, name) is None:
        return "is not a DNS label: use lower-case letters, digits and hyphens, such as default"
    return None


@dataclass(frozen=True, slots=True)
class Fixed:
    """A field of the spec that keeps the value it was created with, and why."""

    path: tuple[str, ...]
    reason: str

    @property
    def name(self) -> str:
        """The field as users write it, such as spec.storage.size."""
        return ".".join(("spec", *self.path))

    def sentence(self) -> str:
        """What is wrong with changing it."""
        return f"{self.name} can not be changed: {self.reason}"


_IN_GENESIS: Final = "it is part of the cluster's genesis; make a new cluster for another value"

FIXED: Final = (
    Fixed(("trust",), _IN_GENESIS),
    Fixed(("checkpointInterval",), _IN_GENESIS),
    Fixed(("requestTimeout",), _IN_GENESIS),
    Fixed(("fastReads",), _IN_GENESIS),
    Fixed(("modes",), _IN_GENESIS),
    Fixed(("tls",), "the members' addresses in the genesis say whether they speak TLS"),
    Fixed(("clients",), "adding and removing clients is not yet supported"),
    Fixed(("bootstrap",), "it is read once, when the cluster is created"),
)

SHRINKS: Final = (
    "spec.storage.size can not be made smaller: a volume can not shrink; "
    "only a growth that was not begun can be taken back"
)


def _value_at(tree: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def forbidden_changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """A sentence for each fixed field in which two specs (as in a manifest, defaults filled in)
    differ, and for a volume that would shrink."""
    sentences = [
        fixed.sentence()
        for fixed in FIXED
        if _value_at(old, fixed.path) != _value_at(new, fixed.path)
    ]
    before, after = (size_bytes(str(_value_at(s, ("storage", "size")))) or 0 for s in (old, new))
    if after < before:
        sentences.append(SHRINKS)
    return tuple(sentences)
