"""The Pod of a member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dwcp_operator.build.names import CLIENT_PORT, PEER_PORT, Object, Subject
from dwcp_operator.build.secrets import CERTIFICATE, PRIVATE_KEY
from dwcp_operator.pods import Placement, PodTemplate

USER: Final = 65532
GRACE_PERIOD_S: Final = 10
CONTAINER: Final = "replica"
SPEC_HASH: Final = "dwcp.dev/spec-hash"
"""Annotation: names the template that this Pod was made from."""

_DATA: Final = "/data"
_TOKEN_DIRECTORY: Final = "/run/dwcp"  # noqa: S105 - a path
_TOKEN_KEY: Final = "token"  # noqa: S105 - the name of a key
_TLS: Final = "tls"
_TLS_DIRECTORY: Final = "/run/dwcp-tls"
_DEFAULT_REQUESTS: Final = {"cpu": "50m", "memory": "128Mi"}


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the operator, not the user, decides of all Pods.

    `image` runs where the resource names none; `pull_policy` None leaves it to Kubernetes.
    """

    image: str
    pull_policy: str | None = None


def pod(
    subject: Subject,
    member: str,
    settings: PodSettings,
    template: PodTemplate,
    *,
    with_token: bool,
) -> Object:
    """The Pod that runs a member on its volume, made from `template`.

    `with_token` mounts the member's one-time token: needed until it holds the complete genesis.
    """
    metadata = subject.metadata(member, member)
    metadata["annotations"] = {SPEC_HASH: template.revision}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "hostname": member,
            "subdomain": subject.members_service,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": GRACE_PERIOD_S,
            "serviceAccountName": subject.account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **_placed(template.placement, member),
            "topologySpreadConstraints": _spread(subject),
            "affinity": _affinity(subject),
            "containers": [_container(subject, member, settings, template, with_token=with_token)],
            "volumes": _volumes(subject, member, with_token=with_token),
        },
    }


def mounts_token(pod: Mapping[str, Any]) -> bool:
    """True when this Pod, once made by `pod`, mounts the member's token."""
    return any(v.get("name") == _TOKEN_KEY for v in pod["spec"].get("volumes", ()))


def _container(
    subject: Subject,
    member: str,
    settings: PodSettings,
    template: PodTemplate,
    *,
    with_token: bool,
) -> Object:
    image = {"image": template.image or settings.image}
    if settings.pull_policy is not None:
        image["imagePullPolicy"] = settings.pull_policy
    mounts: list[Object] = [{"name": "data", "mountPath": _DATA}]
    if with_token:
        mounts.append({"name": _TOKEN_KEY, "mountPath": _TOKEN_DIRECTORY, "readOnly": True})
    if subject.tls_secret is not None:
        mounts.append({"name": _TLS, "mountPath": _TLS_DIRECTORY, "readOnly": True})
    return {
        "name": CONTAINER,
        **image,
        "command": ["python", "-m", "dwcp_replica"],
        "args": [
            *_arguments(subject, member, with_token=with_token),
            *template.features.arguments(*_place(subject, member)),
        ],
        # A volume that can not be used is shown in the status; restarting would not help it.
        "env": [{"name": "DWCP_STAY_ON_REFUSAL", "value": "1"}],
        "ports": [
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
        ],
        "resources": _resources(template),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe(subject, "/healthz", period_s=1, failures=120),
        "livenessProbe": _probe(subject, "/healthz", period_s=10, failures=6),
        "readinessProbe": _probe(subject, "/readyz", period_s=2, failures=2),
        "volumeMounts": mounts,
    }


def _arguments(subject: Subject, member: str, *, with_token: bool) -> list[str]:
    arguments = [
        *("--data", _DATA),
        *("--name", member),
        *("--cluster", subject.name),
        *("--namespace", subject.namespace),
        *("--client-listen", f"0.0.0.0:{CLIENT_PORT}"),
        *("--peer-listen", f"0.0.0.0:{PEER_PORT}"),
    ]
    if subject.cluster.spec.restore is not None and member not in subject.joining:
        arguments += ["--restore", subject.restore_url]
    if with_token:
        arguments += ["--token-file", f"{_TOKEN_DIRECTORY}/{_TOKEN_KEY}"]
    return arguments + _tls(subject)


def _place(subject: Subject, member: str) -> tuple[int, int]:
    """A member's place among the members; who is to join comes last."""
    members = subject.members
    return members.index(member) if member in members else len(members), len(members)


def _tls(subject: Subject) -> list[str]:
    """The certificate of the client port: the member's own, or the user's."""
    if subject.tls_secret is None:
        return ["--client-tls"] if subject.speaks_tls else []
    return [
        *("--client-tls-certificate", f"{_TLS_DIRECTORY}/{CERTIFICATE}"),
        *("--client-tls-key", f"{_TLS_DIRECTORY}/{PRIVATE_KEY}"),
    ]


def _probe(subject: Subject, path: str, *, period_s: int, failures: int) -> Object:
    scheme = {"scheme": "HTTPS"} if subject.speaks_tls else {}
    return {
        "httpGet": {"path": path, "port": "client", **scheme},
        "periodSeconds": period_s,
        "timeoutSeconds": min(5, 2 * period_s),
        "failureThreshold": failures,
    }


def _resources(template: PodTemplate) -> Object:
    """What the user wrote, or a small guarantee, so that members are not the first to go."""
    resources = template.resources.model_dump(mode="json", exclude_none=True)
    return resources or {"requests": dict(_DEFAULT_REQUESTS)}


def _volumes(subject: Subject, member: str, *, with_token: bool) -> list[Object]:
    claim = {"claimName": subject.claim(member)}
    volumes: list[Object] = [{"name": "data", "persistentVolumeClaim": claim}]
    if with_token:
        secret = {"secretName": subject.token_secret(member), "defaultMode": 0o440}
        volumes.append({"name": _TOKEN_KEY, "secret": secret})
    if subject.tls_secret is not None:
        secret = {"secretName": subject.tls_secret, "defaultMode": 0o440}
        volumes.append({"name": _TLS, "secret": secret})
    return volumes


def _placed(placement: Placement, member: str) -> Object:
    """Where the member may run, by the user's word; absent fields are left to Kubernetes."""
    site = placement.site(member)
    selector = {**(placement.node_selector or {}), **(site.node_selector if site else {})}
    wanted = [
        t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in placement.tolerations
    ]
    placed: Object = {"tolerations": [*_tolerations(), *wanted]}
    if selector:
        placed["nodeSelector"] = selector
    if placement.priority_class_name is not None:
        placed["priorityClassName"] = placement.priority_class_name
    return placed


def _tolerations() -> list[Object]:
    """Stay on a node that is not reached.

    The volume is there, the Pod can run nowhere else, and it is never deleted by force: being
    evicted would only make it start anew when the node comes back.
    """
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    return [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in keys]


def _spread(subject: Subject) -> list[Object]:
    """Nodes first, then zones: one that is lost should take at most f members with it."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": subject.selector},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _affinity(subject: Subject) -> Object:
    """Prefer a node without another member, more strongly than the scheduler's own balance."""
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": subject.selector},
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
