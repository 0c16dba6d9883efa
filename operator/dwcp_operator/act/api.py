"""The Kubernetes API as the operator uses it: dicts in, dicts out, every failure one class.

Requests go through the `kubernetes` package's own aiohttp client; objects stay dicts, since a
newer API server may send fields that the package's models do not know.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.dynamic import DynamicClient

from dwcp_operator import backups
from dwcp_operator.build.names import MANAGER, Object
from dwcp_operator.resources import API_VERSION, KIND, PLURAL

REQUEST_TIMEOUT_S: Final = 4.0
"""Less than what is left of a lease when an action begins: see elector.py."""
IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
"""A variable that every pod has."""
NO_ANSWER: Final = 0
"""The status of an ApiError when the server was not reached or did not answer in time."""

_PLURALS: Final = {
    ("v1", "Pod"): "pods",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "Secret"): "secrets",
    ("v1", "ConfigMap"): "configmaps",
    ("apps/v1", "Deployment"): "deployments",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("events.k8s.io/v1", "Event"): "events",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrules",
    (API_VERSION, KIND): PLURAL,
    (API_VERSION, backups.KIND): backups.PLURAL,
}


class ApiError(Exception):
    """The API server refused or was not reached; `status` is HTTP's, or NO_ANSWER."""

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{what}: {message}")
        self.status = status
        self.reason = reason

    @property
    def is_conflict(self) -> bool:
        """True when the object has changed since it was read, or is there already."""
        return self.status == 409

    @property
    def is_missing(self) -> bool:
        """True when there is no such object or kind."""
        return self.status == 404


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where the API server has it."""

    api_version: str
    kind: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """The path of the collection, or of one object."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        path = f"{root}{self.api_version}{where}/{_PLURALS[self.api_version, self.kind]}"
        if name is not None:
            path += f"/{name}"
        return path + (f"/{subresource}" if subresource else "")


POD: Final = Kind("v1", "Pod")
CLAIM: Final = Kind("v1", "PersistentVolumeClaim")
SERVICE: Final = Kind("v1", "Service")
ACCOUNT: Final = Kind("v1", "ServiceAccount")
SECRET: Final = Kind("v1", "Secret")
CONFIG_MAP: Final = Kind("v1", "ConfigMap")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment")
BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget")
POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease")
EVENT: Final = Kind("events.k8s.io/v1", "Event")
POD_MONITOR: Final = Kind("monitoring.coreos.com/v1", "PodMonitor")
PROMETHEUS_RULE: Final = Kind("monitoring.coreos.com/v1", "PrometheusRule")
CLUSTER: Final = Kind(API_VERSION, KIND)
BACKUP: Final = Kind(API_VERSION, backups.KIND)


def kind_of(body: Mapping[str, Any]) -> Kind:
    """The kind of an object that names it."""
    return Kind(body["apiVersion"], body["kind"])


class KubeApi:
    """One connection pool to the API server; use it in `async with`. Methods raise ApiError."""

    def __init__(self, configuration: Configuration) -> None:
        self._client = ApiClient(configuration)
        self._dynamic = DynamicClient(self._client)  # type: ignore[no-untyped-call]

    @classmethod
    async def connect(cls) -> Self:
        """The API server of the pod's own cluster, or that of KUBECONFIG outside of one."""
        configuration = Configuration()
        if IN_CLUSTER in os.environ and "KUBECONFIG" not in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    # --- reading ---------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None when there is none."""
        try:
            return await self._request("get", kind.path(namespace, name))
        except ApiError as error:
            if error.is_missing:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects with these labels, as they are now (not from a cache that may be old)."""
        selector = ",".join(f"{k}={v}" for k, v in labels.items()) if labels else None
        found = await self._request("get", kind.path(namespace), label_selector=selector)
        # Items of a list do not name their kind.
        named = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [{**named, **item} for item in found["items"]]

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind: whether its definition is installed."""
        try:
            found = await self._request("get", f"/apis/{kind.api_version}")
        except ApiError as error:
            if error.is_missing:
                return False
            raise
        return any(r["kind"] == kind.kind for r in found["resources"])

    # --- writing ---------------------------------------------------------------------------

    async def create(self, body: Object, *, dry_run: bool = False) -> Object:
        """Make an object; a conflict when one of its name exists.

        With `dry_run` the server only says whether it would: nothing is made.
        """
        path = kind_of(body).path(body["metadata"]["namespace"])
        asked = {"dry_run": "All"} if dry_run else {}
        return await self._request("post", path, body=body, field_manager=MANAGER, **asked)

    async def apply(self, body: Object) -> Object:
        """Server-side apply: our fields become as in `body`; those of others stay."""
        metadata = body["metadata"]
        return await self._request(
            "patch",
            kind_of(body).path(metadata["namespace"], metadata["name"]),
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=MANAGER,
            force_conflicts="true",
        )

    async def merge(self, found: Mapping[str, Any], patch: Object) -> Object:
        """Merge patch on an object that was read."""
        metadata = found["metadata"]
        return await self._request(
            "patch",
            kind_of(found).path(metadata["namespace"], metadata["name"]),
            body=patch,
            content_type="application/merge-patch+json",
            field_manager=MANAGER,
        )

    async def replace(self, body: Object, subresource: str = "") -> Object:
        """Put an object that was read back; a conflict when it has changed since."""
        metadata = body["metadata"]
        assert "resourceVersion" in metadata, "what is replaced was read before"
        path = kind_of(body).path(metadata["namespace"], metadata["name"], subresource)
        return await self._request("put", path, body=body, field_manager=MANAGER)

    async def delete(self, found: Mapping[str, Any]) -> None:
        """Remove exactly the object that was read; gone already is as good."""
        metadata = found["metadata"]
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        try:
            await self._request(
                "delete",
                kind_of(found).path(metadata["namespace"], metadata["name"]),
                body={"preconditions": preconditions},
            )
        except ApiError as error:
            if not error.is_missing:
                raise

    async def evict(self, found: Mapping[str, Any]) -> None:
        """Remove exactly the Pod that was read, unless its disruption budget forbids it now.

        The server counts this together with the evictions of a drain; it refuses with 429.
        """
        metadata = found["metadata"]
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": {"preconditions": preconditions},
        }
        path = POD.path(metadata["namespace"], metadata["name"], "eviction")
        try:
            await self._request("post", path, body=body)
        except ApiError as error:
            if not error.is_missing:
                raise

    async def _request(self, method: str, path: str, **parameters: Any) -> Object:
        what = f"{method.upper()} {path}"
        try:
            response = await self._dynamic.request(
                method, path, serialize=False, _request_timeout=REQUEST_TIMEOUT_S, **parameters
            )
            found: Object = await response.json()
        except ApiException as error:
            reason, message = _said(error)
            raise ApiError(what, error.status or NO_ANSWER, reason, message) from None
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            message = str(error) or type(error).__name__
            raise ApiError(what, NO_ANSWER, "NoAnswer", message) from None
        except ValueError as error:
            raise ApiError(what, NO_ANSWER, "BadAnswer", f"no JSON: {error}") from None
        return found


def _said(error: ApiException) -> tuple[str, str]:
    """Reason and message of a Kubernetes Status, or the HTTP reason where there is none."""
    try:
        status = json.loads(error.body or "")
        return str(status["reason"]), str(status["message"])
    except (ValueError, KeyError, TypeError):
        return "Unknown", f"{error.status} {error.reason}"
