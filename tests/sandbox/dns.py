"""Cluster DNS: CoreDNS as a Deployment behind the Service `kube-dns`, and a query to prove it."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from typing import Any

from sandbox.binaries import COREDNS
from sandbox.layout import DNS_DOMAIN, DNS_SERVICE_ADDRESS, Layout
from sandbox.network import inside
from sandbox.shell import SandboxError

IMAGE = f"localhost/sandbox/coredns:{COREDNS}"
NAMESPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
SELECTOR = ",".join(f"{label}={value}" for label, value in LABELS.items())
PORT = 1053  # not 53: CoreDNS runs without any right
READY_PORT = 8181

# There is no `forward`: a name outside the cluster gets its answer, "refused", at once.
COREFILE = f""".:{PORT} {{
    errors
    ready
    kubernetes {DNS_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 2
    }}
    cache 2
    loadbalance
}}
"""


def _object(api: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": LABELS}
    if not kind.startswith("ClusterRole"):
        metadata["namespace"] = NAMESPACE
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def manifest(replicas: int) -> dict[str, Any]:
    """All objects of cluster DNS as one List; replicas spread over nodes."""
    rbac = "rbac.authorization.k8s.io"
    watch = ["list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": watch},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
    ]
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "sandbox:coredns"}
    ports = [
        {"name": f"dns-{protocol.lower()}", "port": 53, "targetPort": PORT, "protocol": protocol}
        for protocol in ("UDP", "TCP")
    ]
    service = {"clusterIP": DNS_SERVICE_ADDRESS, "selector": LABELS, "ports": ports}
    items = [
        _object("v1", "ServiceAccount", "coredns"),
        _object(f"{rbac}/v1", "ClusterRole", "sandbox:coredns", rules=rules),
        _object(
            f"{rbac}/v1", "ClusterRoleBinding", "sandbox:coredns", roleRef=role, subjects=[subject]
        ),
        _object("v1", "ConfigMap", "coredns", data={"Corefile": COREFILE}),
        _object("v1", "Service", "kube-dns", spec=service),
        _object("apps/v1", "Deployment", "coredns", spec=_deployment(replicas)),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def probe(name: str) -> dict[str, Any]:
    """A Service without pods, whose name is new."""
    return _object("v1", "Service", name, spec={"ports": [{"port": 1}]})


def _deployment(replicas: int) -> dict[str, Any]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": LABELS},
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "topologySpreadConstraints": [spread],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
        "containers": [_container()],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    return {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}


def _container() -> dict[str, Any]:
    return {
        "name": "coredns",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": READY_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def encode_query(name: str, number: int) -> bytes:
    """A query for the IPv4 addresses of `name` (RFC 1035, section 4.1)."""
    recursion_desired = 0x0100
    header = struct.pack(">6H", number, recursion_desired, 1, 0, 0, 0)
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    question = b"".join(bytes([len(label)]) + label for label in labels)
    return header + question + b"\0" + struct.pack(">2H", 1, 1)


def decode_answer(answer: bytes, number: int) -> list[str]:
    """The IPv4 addresses in an answer to a query with that number; none for a failure."""
    found, flags, questions, answers, _, _ = struct.unpack_from(">6H", answer)
    if found != number or flags & 0x000F:
        return []
    position = 12
    for _ in range(questions):
        position = _skip_name(answer, position) + 4
    addresses = []
    for _ in range(answers):
        position = _skip_name(answer, position)
        kind, _, _, length = struct.unpack_from(">2HIH", answer, position)
        position += 10
        if kind == 1:
            addresses.append(str(ipaddress.IPv4Address(answer[position : position + length])))
        position += length
    return addresses


def _skip_name(message: bytes, position: int) -> int:
    """The position behind a name: labels up to an empty one, or up to a pointer of two bytes."""
    while message[position]:
        if message[position] & 0xC0:
            return position + 2
        position += message[position] + 1
    return position + 1


def resolve(layout: Layout, name: str, timeout_s: float = 1.0) -> list[str]:
    """Ask cluster DNS, from inside the namespace, for the IPv4 addresses of `name`.

    Raises: SandboxError when there is no answer in time.
    """
    number = secrets.randbelow(1 << 16)
    with inside(layout, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((DNS_SERVICE_ADDRESS, 53))
            client.send(encode_query(name, number))
            return decode_answer(client.recv(4096), number)
        except OSError as error:
            raise SandboxError(f"cluster DNS did not answer for {name}: {error}") from error
