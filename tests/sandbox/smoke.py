"""Proves that a sandbox does what an operator's tests rely on, in a namespace of its own.

A server pod on the first node keeps a file on a volume, under the restricted Pod Security
Standard and without root. A client pod on the last node asks it by the name of its Service.
"""

from __future__ import annotations

import json
from typing import Any

from sandbox.cluster import Sandbox
from sandbox.images import PROBE_IMAGE
from sandbox.layout import API_SERVICE_ADDRESS, DNS_DOMAIN
from sandbox.shell import CommandError, SandboxError, say, step

NAMESPACE = "sandbox-smoke"
USER = 65532
PORT = 8080
CLAIM = "data"
SERVER = "server"
CLIENT = "client"
URL = f"http://{SERVER}.{NAMESPACE}.svc.{DNS_DOMAIN}:{PORT}/"


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}


def pod(name: str, node: str, arguments: list[str], claim: str | None) -> dict[str, Any]:
    """A pod that the restricted Pod Security Standard admits, on `node`, maybe with a claim."""
    container: dict[str, Any] = {
        "name": name,
        "image": PROBE_IMAGE,
        "imagePullPolicy": "Never",
        "args": arguments,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": {"httpGet": {"port": PORT}, "periodSeconds": 1},
    }
    volume: dict[str, Any] = {"name": CLAIM, "emptyDir": {}}
    if claim is not None:
        volume = {"name": CLAIM, "persistentVolumeClaim": {"claimName": claim}}
    container["volumeMounts"] = [{"name": CLAIM, "mountPath": "/data"}]
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [volume],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(name), "spec": spec}


def manifest(first: str, last: str) -> dict[str, Any]:
    """Namespace, claim, Service, server on node `first` and client on node `last` as one List."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    service = {"selector": {"app": SERVER}, "ports": [{"port": PORT}]}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": enforce},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata("nobody")},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(CLAIM),
            "spec": claim,
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(SERVER), "spec": service},
        pod(SERVER, first, ["serve", "/data"], CLAIM),
        pod(CLIENT, last, ["serve", "/data"], None),
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def smoke(sandbox: Sandbox) -> None:
    """Run all checks and remove what was made; SandboxError names the check that failed."""
    nodes = sandbox.nodes
    with step("smoke: namespace and volume are new"):
        _clean_up(sandbox)
    with step(f"smoke: pods on {nodes[0].name} and {nodes[-1].name} become Ready"):
        sandbox.apply(manifest(nodes[0].name, nodes[-1].name))
        pods = [f"pod/{SERVER}", f"pod/{CLIENT}"]
        sandbox.wait(*pods, "--for=condition=Ready", f"--namespace={NAMESPACE}")
    with step("smoke: a Service answers by name, from the other pod"):
        _check_answer(json.loads(_in_client(sandbox, "get", URL)), visits=1)
    with step("smoke: DNS resolves, and nothing outside does"):
        _check_names(sandbox)
    with step("smoke: the volume outlives its pod"):
        sandbox.kubectl("delete", "pod", SERVER, f"--namespace={NAMESPACE}")
        sandbox.apply(pod(SERVER, nodes[0].name, ["serve", "/data"], CLAIM))
        sandbox.wait(f"pod/{SERVER}", "--for=condition=Ready", f"--namespace={NAMESPACE}")
        sandbox.wait_until(lambda: _unanswered(sandbox))
        _check_answer(json.loads(_in_client(sandbox, "get", URL)), visits=2)
    with step("smoke: logs are kept, rights are checked, root is refused"):
        _expect("serving" in sandbox.kubectl("logs", SERVER, f"--namespace={NAMESPACE}"), "a log")
        _check_rights(sandbox)
        _check_refused(sandbox, nodes[0].name)
    with step("smoke: the volume is recycled"):
        _clean_up(sandbox)
    say("smoke: all checks passed")


def _in_client(sandbox: Sandbox, *arguments: str) -> str:
    where = f"--namespace={NAMESPACE}"
    return sandbox.kubectl("exec", CLIENT, where, "--", "/probe", *arguments)


def _unanswered(sandbox: Sandbox) -> str:
    """The Service's rules follow the new pod's address a moment after it is Ready."""
    try:
        _in_client(sandbox, "get", URL)
    except CommandError as error:
        return error.output
    return ""


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise SandboxError(f"smoke: expected {what}")


def _check_answer(answer: dict[str, Any], visits: int) -> None:
    wanted = {
        "host": SERVER,
        "uid": USER,
        "gid": USER,
        "root_writable": False,
        "visits": visits,
    }
    _expect(answer == wanted, f"{wanted}, not {answer}")


def _check_names(sandbox: Sandbox) -> None:
    found = _in_client(sandbox, "resolve", "kubernetes.default.svc").split()
    _expect(found == [API_SERVICE_ADDRESS], f"{API_SERVICE_ADDRESS}, not {found}")
    try:
        _in_client(sandbox, "resolve", "example.com.")
    except CommandError:
        return
    raise SandboxError("smoke: example.com resolves: the sandbox can reach outside")


def _check_rights(sandbox: Sandbox) -> None:
    kubeconfig = sandbox.service_account_kubeconfig(NAMESPACE, "nobody")
    try:
        sandbox.kubectl(f"--kubeconfig={kubeconfig}", "get", "pods", f"--namespace={NAMESPACE}")
    except CommandError as error:
        _expect("Forbidden" in error.output, f"a refusal by RBAC, not {error.output}")
        return
    raise SandboxError("smoke: a service account without rights may list pods")


def _check_refused(sandbox: Sandbox, node: str) -> None:
    bad = pod("root", node, ["serve", "/data"], None)
    bad["spec"]["securityContext"] = {"runAsUser": 0}
    try:
        sandbox.apply(bad)
    except CommandError as error:
        _expect("violates PodSecurity" in error.output, f"Pod Security, not {error.output}")
        return
    raise SandboxError("smoke: a pod that runs as root was admitted")


def _clean_up(sandbox: Sandbox) -> None:
    """Remove the namespace, and recycle the volume that its claim leaves behind.

    The pods go first: deletion of a namespace that still has some is tried again only later.
    """
    where = (f"--namespace={NAMESPACE}", "--ignore-not-found")
    sandbox.kubectl("delete", "pod,pvc", "--all", *where)
    sandbox.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")
    sandbox.recycle_volumes()
