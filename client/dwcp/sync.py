"""The verifying client for programs without an event loop: the same calls, blocking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from dwcp import errors
from dwcp.client import DEADLINE_MS, Client
from dwcp.identity import Ed25519Signer
from dwcp.lease import KeptLease
from dwcp.results import (
    DeleteResult,
    ExecuteResult,
    Header,
    LeaseResult,
    LeasesResult,
    LeaseStanding,
    PutResult,
    RangeResult,
    StatusResult,
    TxnResult,
)
from dwcp.watch import News, Watch
from dwcp.wire.operations import Access, Compare, KeyValue, Operation, TxnOperation
from dwcp.wire.records import EpochRecord, SignedGenesis
from dwcp.wire.watch import Filter

JOIN_S_MAX: Final = 10.0

_T = TypeVar("_T")


async def _next_of(watch: Watch) -> News:
    """The next news of a watch."""
    return await anext(watch)


class SyncClient:
    """A `Client` whose event loop runs in a thread of its own; any thread may call it.

    Methods raise what Client's raise.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def connect(
        cls,
        genesis: SignedGenesis | EpochRecord,
        key: Ed25519Signer,
        *,
        deadline_ms: int = DEADLINE_MS,
    ) -> Self:
        """As Client.connect; use the result in `with`."""
        return cls(Client.connect(genesis, key, deadline_ms=deadline_ms))

    @classmethod
    def from_directory(cls, data_dir: Path | str, *, deadline_ms: int = DEADLINE_MS) -> Self:
        """As Client.from_directory; use the result in `with`."""
        return cls(Client.from_directory(data_dir, deadline_ms=deadline_ms))

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dwcp", daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the session, the connections and the thread."""
        if self._loop is None or self._thread is None:
            return
        loop, thread = self._loop, self._thread
        try:
            self._run(self._client.close())
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join(JOIN_S_MAX)
            assert not thread.is_alive(), "the client's event loop did not stop"
            loop.close()

    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        lease: int = 0,
        prev_kv: bool = False,
        timeout_ms: int | None = None,
    ) -> PutResult:
        """Write `value` under `key`, attached to a lease unless that is 0."""
        return self._run(
            self._client.put(key, value, lease=lease, prev_kv=prev_kv, timeout_ms=timeout_ms)
        )

    def get(
        self, key: str | bytes, *, serializable: bool = False, timeout_ms: int | None = None
    ) -> KeyValue | None:
        """Read one key; None when it does not exist. `serializable` as in Client.range."""
        return self._run(self._client.get(key, serializable=serializable, timeout_ms=timeout_ms))

    def range(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        timeout_ms: int | None = None,
    ) -> RangeResult:
        """Read the keys in [key, range_end)."""
        return self._run(
            self._client.range(
                key,
                range_end,
                limit=limit,
                revision=revision,
                keys_only=keys_only,
                count_only=count_only,
                serializable=serializable,
                timeout_ms=timeout_ms,
            )
        )

    def delete(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        prev_kv: bool = False,
        timeout_ms: int | None = None,
    ) -> DeleteResult:
        """Delete the keys in [key, range_end), or the one key."""
        return self._run(
            self._client.delete(key, range_end, prev_kv=prev_kv, timeout_ms=timeout_ms)
        )

    def command(self, payload: bytes, *, timeout_ms: int | None = None) -> bytes:
        """Execute a command of the embedded state machine; its answer."""
        return self._run(self._client.command(payload, timeout_ms=timeout_ms))

    def execute(
        self, *operations: Operation | bytes, timeout_ms: int | None = None
    ) -> ExecuteResult:
        """Send operations together, as Client.execute."""
        return self._run(self._client.execute(*operations, timeout_ms=timeout_ms))

    def txn(
        self,
        compare: Sequence[Compare] = (),
        success: Sequence[TxnOperation] = (),
        failure: Sequence[TxnOperation] = (),
        *,
        timeout_ms: int | None = None,
    ) -> TxnResult:
        """Execute one of two branches, all of it or nothing, as Client.txn."""
        return self._run(self._client.txn(compare, success, failure, timeout_ms=timeout_ms))

    def compact(self, revision: int, *, timeout_ms: int | None = None) -> Header:
        """Forget what only reads below `revision` could see."""
        return self._run(self._client.compact(revision, timeout_ms=timeout_ms))

    def store_status(self, *, timeout_ms: int | None = None) -> StatusResult:
        """The store's sizes and alarms."""
        return self._run(self._client.store_status(timeout_ms=timeout_ms))

    @contextmanager
    def lease(self, ttl_s: int) -> Iterator[KeptLease]:
        """A lease that is kept alive while the block runs, and revoked at its end."""
        kept = self._client.lease(ttl_s)
        self._run(kept.__aenter__())
        try:
            yield kept
        finally:
            self._run(kept.__aexit__(None, None, None))

    def lease_grant(
        self, ttl_s: int, lease_id: int = 0, *, timeout_ms: int | None = None
    ) -> LeaseResult:
        """Make a lease, as Client.lease_grant."""
        return self._run(self._client.lease_grant(ttl_s, lease_id, timeout_ms=timeout_ms))

    def lease_revoke(self, lease_id: int, *, timeout_ms: int | None = None) -> Header:
        """End a lease, and delete its keys."""
        return self._run(self._client.lease_revoke(lease_id, timeout_ms=timeout_ms))

    def lease_keep_alive(self, lease_id: int, *, timeout_ms: int | None = None) -> LeaseResult:
        """Give a lease its whole time again, as Client.lease_keep_alive."""
        return self._run(self._client.lease_keep_alive(lease_id, timeout_ms=timeout_ms))

    def lease_time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout_ms: int | None = None
    ) -> LeaseStanding:
        """How long a lease still has, as Client.lease_time_to_live."""
        return self._run(
            self._client.lease_time_to_live(lease_id, keys=keys, timeout_ms=timeout_ms)
        )

    def leases(self, *, timeout_ms: int | None = None) -> LeasesResult:
        """The ids of all leases."""
        return self._run(self._client.leases(timeout_ms=timeout_ms))

    def access(self, client: bytes, *, timeout_ms: int | None = None) -> Access | None:
        """What a client may do; None: everything."""
        return self._run(self._client.access(client, timeout_ms=timeout_ms))

    def set_access(
        self, client: bytes, access: Access | None, *, timeout_ms: int | None = None
    ) -> Header:
        """Let a client do this from now on, and no more; None: everything."""
        return self._run(self._client.set_access(client, access, timeout_ms=timeout_ms))

    @contextmanager
    def watch(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        start_revision: int = 0,
        filters: Sequence[Filter] = (),
        prev_kv: bool = False,
    ) -> Iterator[Iterator[News]]:
        """What happens to the keys in [key, range_end), as Client.watch; each `next` waits.

        with client.watch("k") as watch:
            for news in watch: ...
        """
        watch = self._client.watch(
            key, range_end, start_revision=start_revision, filters=filters, prev_kv=prev_kv
        )
        self._run(watch.__aenter__())
        try:
            yield iter(lambda: self._run(_next_of(watch)), None)
        finally:
            self._run(watch.__aexit__(None, None, None))

    @property
    def liars(self) -> Mapping[str, str]:
        """The members proven to have lied to this client, and how, by name."""
        return self._client.liars

    @property
    def connected(self) -> Mapping[str, bool]:
        """Which members this client is connected to, by name."""
        return self._client.connected

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            coroutine.close()
            raise errors.ClientClosed("the client is not running: use it inside `with`")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
