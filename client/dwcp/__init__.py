"""DWCP: small, precious state kept alive across machines that may be slow, crashed or hostile.

    async with dwcp.Client.from_directory(".dwcp") as client:
        await client.put("colour", "blue")

Names are loaded when they are first used, so that the command line and the replicas, which
need only a part of this package, start quickly.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwcp.calls import prefix_end
    from dwcp.client import Client
    from dwcp.errors import (
        BadCluster,
        BrokenAnswer,
        Busy,
        ClientClosed,
        ClientFailed,
        Compacted,
        DWCPError,
        Indeterminate,
        NotEnoughReplies,
        NotExecuted,
        Refused,
        TimedOut,
    )
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
    from dwcp.sync import SyncClient
    from dwcp.waiting import Limits
    from dwcp.watch import News, Watch
    from dwcp.wire.operations import (
        Access,
        Compare,
        DeleteRangeRequest,
        Failure,
        Grant,
        KeyValue,
        PutRequest,
        RangeRequest,
        TxnRequest,
    )
    from dwcp.wire.records import EpochRecord, SignedGenesis
    from dwcp.wire.watch import WatchEvent

__all__ = [
    "Access",
    "BadCluster",
    "BrokenAnswer",
    "Busy",
    "Client",
    "ClientClosed",
    "ClientFailed",
    "Compacted",
    "Compare",
    "DWCPError",
    "DeleteRangeRequest",
    "DeleteResult",
    "Ed25519Signer",
    "EpochRecord",
    "ExecuteResult",
    "Failure",
    "Grant",
    "Header",
    "Indeterminate",
    "KeptLease",
    "KeyValue",
    "LeaseResult",
    "LeaseStanding",
    "LeasesResult",
    "Limits",
    "News",
    "NotEnoughReplies",
    "NotExecuted",
    "PutRequest",
    "PutResult",
    "RangeRequest",
    "RangeResult",
    "Refused",
    "SignedGenesis",
    "StatusResult",
    "SyncClient",
    "TimedOut",
    "TxnRequest",
    "TxnResult",
    "Watch",
    "WatchEvent",
    "prefix_end",
]

_HOMES = (
    "dwcp.errors",
    "dwcp.results",
    "dwcp.wire.operations",
    "dwcp.wire.records",
    "dwcp.identity",
    "dwcp.lease",
    "dwcp.waiting",
    "dwcp.calls",
    "dwcp.client",
    "dwcp.sync",
    "dwcp.watch",
    "dwcp.wire.watch",
)


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in map(_import_module, _HOMES):
            if hasattr(home, name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
