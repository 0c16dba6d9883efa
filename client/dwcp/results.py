"""What the client's methods return: etcd's responses, with their header."""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.operations import KeyValue, Result, StatusResponse
from dwcp.wire.operations import TxnResult as TxnStep


@dataclass(frozen=True, slots=True)
class Header:
    """Where an answer stands: `revision` as in etcd's ResponseHeader, `index` in the log."""

    cluster_id: bytes
    revision: int
    index: int


@dataclass(frozen=True, slots=True)
class PutResult:
    """A key was written at `header.revision`; prev_kv only when asked for, and existing."""

    header: Header
    prev_kv: KeyValue | None

    @property
    def revision(self) -> int:
        """The revision that this write made."""
        return self.header.revision


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys in order; `count` ignores the limit, `more` says that it cut something off."""

    header: Header
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int

    @property
    def revision(self) -> int:
        """The store's revision when the range was read."""
        return self.header.revision


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """`deleted` keys are gone; prev_kvs only when asked for."""

    header: Header
    deleted: int
    prev_kvs: tuple[KeyValue, ...]

    @property
    def revision(self) -> int:
        """The store's revision after the deletion."""
        return self.header.revision


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """The results of operations that were sent together, in order; a Failure stays a result."""

    header: Header
    results: tuple[Result, ...]

    @property
    def revision(self) -> int:
        """The store's revision after the last operation."""
        return self.header.revision


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Whether the comparisons held, and the results of the branch taken, in order."""

    header: Header
    succeeded: bool
    responses: tuple[TxnStep, ...]

    @property
    def revision(self) -> int:
        """The store's revision after the transaction."""
        return self.header.revision


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """A lease and the seconds it has from now on; 0 when there is no such lease."""

    header: Header
    id: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class LeaseStanding:
    """Seconds left (-1: no such lease) of those granted, and the keys if asked for."""

    header: Header
    id: int
    ttl_s: int
    granted_ttl_s: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LeasesResult:
    """The ids of all leases, the one that ends first first."""

    header: Header
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StatusResult:
    """The replicated part of etcd's status."""

    header: Header
    status: StatusResponse
