"""Pods that take a backup, and those that serve one to the members of a cluster to be."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from dwcp_operator.backups import KIND, DWCPBackup
from dwcp_operator.build.names import MANAGER, SERVE_PORT, Object, Subject
from dwcp_operator.build.pod import USER, PodSettings
from dwcp_operator.build.secrets import AUTHORITY, EPOCHS, GENESIS
from dwcp_operator.resources import API_VERSION

BACKUP_LABEL: Final = "dwcp.dev/backup"
RESTORE_LABEL: Final = "dwcp.dev/restore"
DEADLINE_S: Final = 600
_VOLUME: Final = "/backup"
_CLIENT: Final = "/etc/dwcp"
_PERMIT: Final = "/run/dwcp"
_RESULT: Final = "/dev/termination-log"
_REQUESTS: Final = {"cpu": "50m", "memory": "128Mi"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a backup; `name` is its Pod's."""

    backup: DWCPBackup
    uid: str
    name: str

    def metadata(self) -> Object:
        """Metadata of what goes with the resource."""
        owner = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.backup.metadata.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        labels = {
            "app.kubernetes.io/name": "dwcp",
            "app.kubernetes.io/component": "backup",
            "app.kubernetes.io/part-of": "dwcp",
            "app.kubernetes.io/managed-by": MANAGER,
            BACKUP_LABEL: self.backup.metadata.name,
        }
        return {
            "name": self.name,
            "namespace": self.backup.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        }


def permit(attempt: Attempt, signed: bytes) -> Object:
    """The admin's permit for one attempt: good for a quarter of an hour."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": attempt.metadata(),
        "type": "Opaque",
        "immutable": True,
        "data": {"permit": base64.b64encode(signed).decode()},
    }


def backup_pod(attempt: Attempt, client_secret: str, settings: PodSettings) -> Object:
    """The Pod that takes one backup onto the volume, and says what it took when it ends."""
    spec = attempt.backup.spec
    arguments = [
        *("backup", "create", "--data", _CLIENT, "--to", _VOLUME, "--keep", str(spec.keep)),
        *("--permit", f"{_PERMIT}/permit", "--result", _RESULT),
    ]
    items = [{"key": name, "path": name} for name in (GENESIS, AUTHORITY, EPOCHS)]
    # an authority is there only where spec.tls names a Secret, and epochs when one has ended
    genesis = {"secretName": client_secret, "items": items, "optional": True}
    volumes: list[Object] = [
        {"name": "backup", "persistentVolumeClaim": {"claimName": spec.claim}},
        {"name": "genesis", "secret": genesis},
        {"name": "permit", "secret": {"secretName": attempt.name, "defaultMode": 0o440}},
    ]
    mounts = [
        {"name": "backup", "mountPath": _VOLUME},
        {"name": "genesis", "mountPath": _CLIENT, "readOnly": True},
        {"name": "permit", "mountPath": _PERMIT, "readOnly": True},
    ]
    body = _pod(attempt.metadata(), arguments, volumes, mounts, settings)
    body["spec"] |= {"restartPolicy": "Never", "activeDeadlineSeconds": DEADLINE_S}
    return body


def restore_pod(subject: Subject, settings: PodSettings) -> Object:
    """The Pod that serves the backup, after checking it."""
    source = subject.cluster.spec.restore
    assert source is not None, "a cluster that begins from a backup"
    arguments = [
        *("backup", "serve", f"{_VOLUME}/{source.file.lstrip('/')}"),
        *("--genesis", source.genesis_hash, "--listen", f"0.0.0.0:{SERVE_PORT}"),
    ]
    claim = {"claimName": source.claim, "readOnly": True}
    volumes: list[Object] = [{"name": "backup", "persistentVolumeClaim": claim}]
    mounts = [{"name": "backup", "mountPath": _VOLUME, "readOnly": True}]
    metadata = subject.metadata(subject.restore_name)
    # not the label that members bear: it must not count as one of them
    metadata["labels"] = {RESTORE_LABEL: subject.name, "app.kubernetes.io/part-of": "dwcp"}
    body = _pod(metadata, arguments, volumes, mounts, settings)
    container = body["spec"]["containers"][0]
    container["ports"] = [{"name": "serve", "containerPort": SERVE_PORT}]
    container["readinessProbe"] = {
        "httpGet": {"path": "/origin", "port": "serve"},
        "periodSeconds": 1,
        "failureThreshold": 2,
    }
    return body


def restore_service(subject: Subject) -> Object:
    """The name under which members find the backup."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(subject.restore_name),
        "spec": {
            "selector": {RESTORE_LABEL: subject.name},
            "ports": [{"name": "serve", "port": SERVE_PORT, "targetPort": "serve"}],
        },
    }


def _pod(
    metadata: Object, arguments: list[str], volumes: list[Object], mounts: list[Any],
    settings: PodSettings,
) -> Object:  # fmt: skip
    """A Pod that runs the command line, without any rights."""
    image = {"image": settings.image}
    if settings.pull_policy is not None:
        image["imagePullPolicy"] = settings.pull_policy
    container: Object = {
        "name": "backup",
        **image,
        "command": ["dwcp"],
        "args": arguments,
        "resources": {"requests": dict(_REQUESTS)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 2,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
        },
    }
