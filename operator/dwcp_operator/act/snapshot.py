"""Everything of one cluster that the API server knows, read at one time or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dwcp_operator.act.api import (
    ACCOUNT,
    BUDGET,
    CLAIM,
    CLUSTER,
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    POD_MONITOR,
    POLICY,
    PROMETHEUS_RULE,
    SECRET,
    SERVICE,
    Kind,
    KubeApi,
)
from dwcp_operator.build.names import CLUSTER_ID_LABEL, CLUSTER_LABEL, Object, Subject
from dwcp_operator.resources import ClusterStatus, DWCPCluster

Key = tuple[str, str]
"""Kind and name."""

_LISTED = (POD, CLAIM, SERVICE, ACCOUNT, BUDGET, POLICY)


class UnreadableError(Exception):
    """The resource does not hold what this version of the operator can read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The resource and what belongs to it; objects of others under the same names are left out.

    `raw` is the resource as it was read: a status is written back with its resourceVersion.
    """

    subject: Subject
    raw: Object
    objects: Mapping[Key, Object]
    taken: frozenset[Key]
    """Names that we need and that belong to something else."""
    given: Mapping[str, Object] = field(default_factory=dict)
    """Secrets of the user's that the resource names."""

    def find(self, kind: Kind, name: str) -> Object | None:
        """An object of this cluster."""
        return self.objects.get((kind.kind, name))

    @property
    def strangers(self) -> tuple[str, ...]:
        """Pods that run as members and are none, nor are to become one.

        One that is being deleted is none of them: on a node that is gone it stays for ever.
        """
        known = {*self.subject.everyone, self.subject.restore_name}
        return tuple(
            sorted(
                name
                for (kind, name), found in self.objects.items()
                if kind == POD.kind
                and name not in known
                and "deletionTimestamp" not in found["metadata"]
            )
        )

    @property
    def generation(self) -> int:
        """The generation of the spec that was read."""
        return self.subject.cluster.metadata.generation

    def status(self) -> ClusterStatus | None:
        """The status that was written last; None when there is none that can be read."""
        try:
            return TypeAdapter(ClusterStatus).validate_python(self.raw.get("status"))
        except ValidationError:
            return None


def subject_of(raw: Mapping[str, Any]) -> Subject:
    """The cluster that a resource describes. Raises UnreadableError."""
    plain = {key: raw[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    known = (raw.get("status") or {}).get("membership") or {}
    try:
        return Subject(
            DWCPCluster.model_validate(plain),
            raw["metadata"]["uid"],
            tuple(known["names"]) if known else None,
            tuple(known.get("joining") or ()),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(f"{where}: {first['msg']}") from None


async def read(api: KubeApi, namespace: str, name: str, *, extras: bool = True) -> Snapshot | None:
    """Read everything; None when the resource is gone or being deleted.

    `extras` says whether to look for monitoring objects that nobody asks for now. Raises
    ApiError when any part can not be read, and UnreadableError.
    """
    raw = await api.get(CLUSTER, namespace, name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None
    subject = subject_of(raw)
    lists = asyncio.gather(*(api.list(kind, namespace, subject.selector) for kind in _LISTED))
    by_name = [*_wanted_by_name(subject), *extra_objects(subject, only_asked=not extras)]
    by_name += gateway_objects(subject, only_asked=not extras)
    named = asyncio.gather(*(api.get(kind, namespace, wanted) for kind, wanted in by_name))
    theirs = asyncio.gather(*(api.get(SECRET, namespace, s) for s in _given(subject)))
    listed, single, given = await asyncio.gather(lists, named, theirs)
    found = [item for items in listed for item in items]
    found += [item for item in single if item is not None]
    by_key = {(o["kind"], o["metadata"]["name"]): o for o in found}
    ours = {key: o for key, o in by_key.items() if is_ours(subject, o)}
    taken = frozenset(by_key.keys() - ours.keys())
    secrets = {secret["metadata"]["name"]: secret for secret in given if secret is not None}
    return Snapshot(subject, raw, ours, taken, secrets)


def _given(subject: Subject) -> list[str]:
    """Names of the user's own Secrets."""
    gateway = subject.cluster.spec.gateway
    names = {subject.tls_secret, None if gateway is None else gateway.tls.secret_name}
    return sorted(name for name in names if name is not None)


def _wanted_by_name(subject: Subject) -> list[tuple[Kind, str]]:
    """Secrets and ConfigMaps are read by name: the operator may not list them.

    So are adopted claims, which may bear the labels of an older version.
    """
    wanted = [(SECRET, subject.admin_secret), (SECRET, subject.client_keys_secret)]
    wanted += [(SECRET, subject.client_secret(c)) for c in subject.cluster.spec.clients]
    wanted += [(SECRET, subject.token_secret(m)) for m in subject.everyone]
    wanted += [(CONFIG_MAP, subject.genesis_map)]
    if subject.cluster.spec.restore is not None:
        wanted += [(POD, subject.restore_name), (SERVICE, subject.restore_name)]
    if subject.cluster.spec.adopt is not None:
        wanted += [(CLAIM, subject.claim(m)) for m in subject.members]
    return wanted


def extra_objects(subject: Subject, *, only_asked: bool) -> list[tuple[Kind, str]]:
    """Kinds and names of the objects for monitoring: those asked for, or all there may be."""
    asked = subject.cluster.spec.monitoring
    places = (
        (asked.pod_monitor, POD_MONITOR, subject.name),
        (asked.rules, PROMETHEUS_RULE, subject.name),
        (asked.dashboard, CONFIG_MAP, subject.dashboard_map),
    )
    return [(kind, name) for wanted, kind, name in places if wanted or not only_asked]


def gateway_objects(subject: Subject, *, only_asked: bool) -> list[tuple[Kind, str]]:
    """What of the gateways is read by name: when they are asked for, or there may be some."""
    if only_asked and subject.cluster.spec.gateway is None:
        return []
    secrets = [(SECRET, subject.gateway_secret(what)) for what in ("ca", "tls", "client")]
    return [(DEPLOYMENT, subject.gateway_name), *secrets]


def is_ours(subject: Subject, found: Mapping[str, Any]) -> bool:
    """True for what this resource controls, and for what is kept without an owner for its id."""
    metadata = found["metadata"]
    controllers = [r["uid"] for r in metadata.get("ownerReferences", []) if r.get("controller")]
    if controllers:
        return controllers == [subject.uid]
    labels = metadata.get("labels", {})
    kept = found["kind"] in ("PersistentVolumeClaim", "Secret")
    ids = (labels.get(CLUSTER_LABEL), labels.get(CLUSTER_ID_LABEL))
    return kept and ids == (subject.name, subject.cluster_id)
