"""Writes of one cluster's objects: fenced by the lease, and never on what belongs to others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from dwcp_operator.act.api import ApiError, Kind, KubeApi, kind_of
from dwcp_operator.act.snapshot import Key, Snapshot
from dwcp_operator.build.names import Object


class TakenError(Exception):
    """An object that we need exists and belongs to something else; says what to do."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"a {kind} named {name} exists and does not belong to this cluster: it is left alone; "
            "wait while it is being deleted, or delete or rename it"
        )


class Writer:
    """Every write asks `require` first, which raises when this process may no longer act."""

    def __init__(self, api: KubeApi, require: Callable[[], None]) -> None:
        self.api = self._api = api
        self._require = require
        self._applied: dict[Key, tuple[str, str]] = {}

    async def create(self, body: Object) -> Object:
        """Make an object. Raises ApiError, and TakenError when its name is in use."""
        self._require()
        try:
            return await self._api.create(body)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise TakenError(body["kind"], body["metadata"]["name"]) from None
            raise

    async def ensure(self, snapshot: Snapshot, body: Object) -> None:
        """Make an object be as `body` says: applied when it, or what we want of it, has changed.

        Raises ApiError, TakenError.
        """
        kind, name = kind_of(body), body["metadata"]["name"]
        key = (kind.kind, name)
        found = snapshot.find(kind, name)
        wanted = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if found is None:
            other = await self._api.get(kind, snapshot.subject.namespace, name)
            if key in snapshot.taken or other is not None:
                raise TakenError(kind.kind, name)
        elif self._applied.get(key) == (wanted, found["metadata"]["resourceVersion"]):
            return
        self._require()
        applied = await self._api.apply(body)
        self._applied[key] = (wanted, applied["metadata"]["resourceVersion"])

    async def merge(self, found: Mapping[str, Any], patch: Object) -> None:
        """Change an object that was read. Raises ApiError."""
        self._require()
        await self._api.merge(found, patch)

    async def delete(self, found: Mapping[str, Any]) -> None:
        """Remove exactly the object that was read. Raises ApiError."""
        self._require()
        await self._api.delete(found)

    async def evict(self, found: Mapping[str, Any]) -> None:
        """Remove exactly the Pod that was read, as its disruption budget allows.

        Raises ApiError, with status 429 when the budget does not.
        """
        self._require()
        await self._api.evict(found)

    async def try_out(self, body: Object) -> None:
        """Ask the API server whether it would make an object; nothing is made. Raises ApiError."""
        await self._api.create(body, dry_run=True)

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind. Raises ApiError."""
        return await self._api.serves(kind)

    async def replace_status(self, body: Object) -> Object:
        """Write the status of a resource that was read. Raises ApiError."""
        self._require()
        return await self._api.replace(body, "status")
