"""The Deployment of the gateways, their Service and disruption budget.

Their Pods do not bear the label by which members are found: a gateway is no member, counts in no
quorum and is behind no Service of the members.
"""

from __future__ import annotations

from typing import Any, Final

from dwcp_operator.access import Gateway
from dwcp_operator.build.names import Object, Subject
from dwcp_operator.build.pod import USER, PodSettings
from dwcp_operator.build.secrets import AUTHORITY, CERTIFICATE, PRIVATE_KEY

GATEWAY_LABEL: Final = "dwcp.dev/gateway"
HTTP_PORT: Final = 2379
GRPC_PORT: Final = 2389
PROBES_PORT: Final = 2381
CONTAINER: Final = "gateway"
GRACE_PERIOD_S: Final = 10

_DATA: Final = "/etc/dwcp"
_TLS_DIRECTORY: Final = "/run/dwcp-tls"
_DEFAULT_REQUESTS: Final = {"cpu": "50m", "memory": "96Mi"}


def names(subject: Subject) -> tuple[str, ...]:
    """The names of the Service in cluster DNS: what certificates made here are for."""
    service, namespace = subject.gateway_name, subject.namespace
    return (
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        "localhost",
    )


def endpoint(subject: Subject) -> str:
    """Where users reach the gateways over gRPC."""
    return f"https://{subject.gateway_name}.{subject.namespace}.svc:{GRPC_PORT}"


def selector(subject: Subject) -> dict[str, str]:
    """Labels that exactly this cluster's gateways have."""
    return {GATEWAY_LABEL: subject.name}


def service(subject: Subject) -> Object:
    """The Service in front of the gateways that are ready."""
    ports = [
        {"name": name, "port": port, "targetPort": name}
        for name, port in (("http", HTTP_PORT), ("grpc", GRPC_PORT))
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(subject.gateway_name),
        "spec": {"type": "ClusterIP", "selector": selector(subject), "ports": ports},
    }


def disruption_budget(subject: Subject) -> Object:
    """A drain takes one gateway at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": subject.metadata(subject.gateway_name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(subject)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def deployment(subject: Subject, wanted: Gateway, settings: PodSettings) -> Object:
    """The gateways; none run while the cluster hibernates."""
    labels = {
        **{k: v for k, v in subject.labels().items() if k.startswith("app.kubernetes.io/")},
        "app.kubernetes.io/component": "gateway",
        **selector(subject),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": subject.metadata(subject.gateway_name),
        "spec": {
            "replicas": 0 if subject.cluster.spec.hibernate else wanted.replicas,
            "selector": {"matchLabels": selector(subject)},
            # a watch is cut off when its gateway goes: the next one is there before
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(subject, wanted, settings)},
        },
    }


def _pod(subject: Subject, wanted: Gateway, settings: PodSettings) -> Object:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": selector(subject)},
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {
        "terminationGracePeriodSeconds": GRACE_PERIOD_S,
        "serviceAccountName": subject.account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
        },
        "containers": [_container(subject, wanted, settings)],
        "volumes": [
            _secret("data", subject.client_secret(_client(subject, wanted))),
            _secret("tls", tls_secret(subject, wanted)),
        ],
    }


def tls_secret(subject: Subject, wanted: Gateway) -> str:
    """The Secret with what the gateways show: the user's, or the operator's."""
    return wanted.tls.secret_name or subject.gateway_secret("tls")


def _client(subject: Subject, wanted: Gateway) -> str:
    return wanted.client or subject.cluster.spec.clients[0]


def _secret(name: str, secret: str) -> Object:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _container(subject: Subject, wanted: Gateway, settings: PodSettings) -> Object:
    image = {"image": subject.cluster.spec.image or settings.image}
    if settings.pull_policy is not None:
        image["imagePullPolicy"] = settings.pull_policy
    resources: dict[str, Any] = wanted.resources.model_dump(mode="json", exclude_none=True)
    return {
        "name": CONTAINER,
        **image,
        "command": ["dwcp", "gateway"],
        "args": _arguments(subject, wanted),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "probes", "containerPort": PROBES_PORT},
        ],
        "resources": resources or {"requests": dict(_DEFAULT_REQUESTS)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/livez", period_s=1, failures=120),
        "livenessProbe": _probe("/livez", period_s=10, failures=6),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA, "readOnly": True},
            {"name": "tls", "mountPath": _TLS_DIRECTORY, "readOnly": True},
        ],
    }


def _arguments(subject: Subject, wanted: Gateway) -> list[str]:
    arguments = [
        *("--data", _DATA),
        *("--listen", f"0.0.0.0:{HTTP_PORT}"),
        *("--grpc", f"0.0.0.0:{GRPC_PORT}"),
        *("--probes", f"0.0.0.0:{PROBES_PORT}"),
        *("--advertise", endpoint(subject)),
        *("--tls-certificate", f"{_TLS_DIRECTORY}/{CERTIFICATE}"),
        *("--tls-key", f"{_TLS_DIRECTORY}/{PRIVATE_KEY}"),
    ]
    if not wanted.anonymous:
        arguments += ["--tls-client-authority", f"{_TLS_DIRECTORY}/{AUTHORITY}"]
    return arguments


def _probe(path: str, *, period_s: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "probes"},
        "periodSeconds": period_s,
        "timeoutSeconds": min(5, 2 * period_s),
        "failureThreshold": failures,
    }
