"""The product on the sandbox: its image built and loaded, its charts installed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sandbox import bring_up, packages, teardown
from sandbox.cluster import Sandbox
from sandbox.images import Images, file_name
from sandbox.shell import CommandError, SandboxError, step

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "dwcp-system"
RELEASE = "dwcp-operator"
VOLUMES = 24
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
_CONTEXT = ("client", "operator", "replica", "Dockerfile", "pyproject.toml", "requirements.txt",
            "requirements-build.txt", ".dockerignore", "README.md")  # fmt: skip


@cache
def image_tag() -> str:
    """Names the image by what it is made from, so that a changed one is never taken for it."""
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"localhost/dwcp:{digest.hexdigest()[:12]}"


def _files() -> Iterator[Path]:
    for name in _CONTEXT:
        path = ROOT / name
        found = path.rglob("*") if path.is_dir() else [path]
        yield from (f for f in found if f.is_file() and "__pycache__" not in f.parts)


def build(sandbox: Sandbox) -> tuple[str, Path]:
    """The image's name and its archive, built unless it is there."""
    packages.extend_path()
    packages.ensure()
    tag = image_tag()
    archive = sandbox.cache / "images" / f"{file_name(tag)}.tar"
    if not archive.exists():
        for old in archive.parent.glob("localhost-dwcp-*.tar"):
            old.unlink()
        requirements = [ROOT / "requirements.txt", ROOT / "requirements-build.txt"]
        made = Images(sandbox.cache).build(tag, ROOT / "Dockerfile", ROOT, requirements, {})
        assert made == archive, f"{made} is not where it is looked for"
    return tag, archive


def up(sandbox: Sandbox, *, nodes: int = 1) -> str:
    """Sandbox, image, definition and operator; returns the image's name."""
    packages.require_root()
    tag, archive = build(sandbox)
    bring_up.up(sandbox, nodes, VOLUMES, [archive])
    install(sandbox, tag)
    return tag


def down(sandbox: Sandbox) -> None:
    """Leave nothing behind."""
    packages.require_root()
    teardown.down(sandbox.layout, sandbox.processes)


def install(sandbox: Sandbox, tag: str, **values: object) -> None:
    """Install or upgrade the charts, and wait until the operator is ready."""
    make_namespace(sandbox, SYSTEM)
    sandbox.kubectl("label", "namespace", "default", RESTRICTED, "--overwrite")
    repository, _, version = tag.rpartition(":")
    settings: dict[str, object] = {
        "image": {"repository": repository, "tag": version, "pullPolicy": "Never"},
        "volumeAccessMode": "ReadWriteOncePod",
        **values,
    }
    where = f"--namespace={SYSTEM}"
    charts = ROOT / "charts"
    with step("definition and operator installed"):
        sandbox.helm("upgrade", "--install", "dwcp-crds", charts / "dwcp-crds", where)
        pairs = [f"--set-json={name}={json.dumps(value)}" for name, value in settings.items()]
        sandbox.helm("upgrade", "--install", RELEASE, charts / "dwcp-operator", where, *pairs)
        rollout = ("rollout", "status", f"deployment/{RELEASE}", where, "--timeout=90s")
        sandbox.kubectl(*rollout, timeout_s=100)


def make_namespace(sandbox: Sandbox, name: str) -> None:
    """A namespace in which only restricted Pods are admitted."""
    sandbox.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": dict([RESTRICTED.split("=")])},
        }
    )


def remove_namespace(sandbox: Sandbox, name: str) -> None:
    """Remove a namespace with everything in it, and recycle the volumes that it leaves."""
    where = f"--namespace={name}"
    sandbox.kubectl("delete", "dwcpcluster", "--all", where, "--timeout=60s", timeout_s=70)
    sandbox.kubectl("delete", "pod,pvc", "--all", where, "--timeout=60s", timeout_s=70)
    sandbox.kubectl("delete", "namespace", name, "--timeout=60s", timeout_s=70)
    sandbox.recycle_volumes()


class Cluster:
    """One DWCPCluster, as a user sees it."""

    def __init__(self, sandbox: Sandbox, namespace: str, name: str) -> None:
        self.sandbox = sandbox
        self.namespace = namespace
        self.name = name

    @property
    def where(self) -> str:
        return f"--namespace={self.namespace}"

    def raw(self) -> Any:
        return self.sandbox.get("dwcpcluster", self.name, self.where)

    def status(self) -> dict[str, Any]:
        found = self.raw().get("status", {})
        assert isinstance(found, dict)
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = self.status().get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {"status": "absent"})

    def pods(self) -> dict[str, dict[str, Any]]:
        items = self.sandbox.get("pods", self.where, f"--selector=dwcp.dev/cluster={self.name}")
        return {pod["metadata"]["name"]: pod for pod in items["items"]}

    def wait_available(self, timeout_s: float) -> None:
        words = (f"dwcpcluster/{self.name}", "--for=condition=Available", self.where)
        self.sandbox.wait(*words, timeout_s=timeout_s)

    def wait_all_ready(self, timeout_s: float = 60.0) -> None:
        """Until every member votes in one view and has executed what the others have."""
        self.sandbox.wait_until(self.lacking, timeout_s)

    def lacking(self) -> str:
        """What is missing until every member votes in one view without lag."""
        status = self.status()
        members = status.get("members", [])
        n = len(members)
        if n < 4 or status.get("ready") != f"{n}/{n}":
            return f"members that vote: {status.get('ready')}"
        view = status.get("view")
        if view is None or any(m.get("view") != view or m.get("lag") for m in members):
            return f"members in view {view} without lag"
        return ""

    def events(self) -> list[str]:
        """Reasons of the Events on this resource, in the order in which they happened."""
        items = self.sandbox.get("events.events.k8s.io", self.where)["items"]
        mine = [e for e in items if e["regarding"].get("name") == self.name]
        mine.sort(key=lambda e: e["eventTime"] or "")
        return [e["reason"] for e in mine]

    # --- a client ------------------------------------------------------------------------------

    def start_client(self, tag: str) -> None:
        """A pod that mounts the client's Secret and waits to be told what to do."""
        self.sandbox.apply(client_pod(self.namespace, self.name, tag))
        words = (f"pod/{self.name}-app", "--for=condition=Ready", self.where)
        self.sandbox.wait(*words, timeout_s=60)

    def dwcp(self, *words: str, timeout_s: float = 40.0) -> str:
        """Run the command line in the client's pod."""
        command = ["exec", f"{self.name}-app", self.where, "--", "dwcp", *words]
        data = ["--data", "/etc/dwcp"]
        return self.sandbox.kubectl(*command, *data, timeout_s=timeout_s)

    def put(self, key: str, value: str) -> None:
        assert self.dwcp("put", key, value).strip() == "OK"

    def get(self, key: str) -> str:
        lines = self.dwcp("get", key).splitlines()
        return lines[1] if len(lines) > 1 else ""

    def lead_changed(self, view: int) -> str:
        """What is missing until the status shows a later view than `view` with a primary."""
        status = self.status()
        if (status.get("view") or 0) > view and status.get("primary"):
            return ""
        return f"a view after {view}; it is {status.get('view')}"


def client_pod(namespace: str, cluster: str, tag: str) -> dict[str, Any]:
    """A pod of a user's own, with the client's Secret of a cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{cluster}-app", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "app",
                    "image": tag,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "dwcp", "mountPath": "/etc/dwcp", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "dwcp", "secret": {"secretName": f"{cluster}-client"}}],
        },
    }


__all__ = ["Cluster", "CommandError", "Sandbox", "SandboxError", "build", "down", "install", "up"]
