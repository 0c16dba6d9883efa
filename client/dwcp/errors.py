"""What can go wrong for a caller, by what it says about the operation.

DWCPError
├── NotExecuted            the operation changed nothing
│   ├── Refused            the cluster said no; `code` is a gRPC status code, as etcd uses it
│   │   └── Compacted      what a watch asks for is no longer kept
│   ├── Busy               this client's own queue is full
│   └── TimedOut           the deadline passed before the operation left this client
├── Indeterminate          it may have been executed, or may be yet
│   └── NotEnoughReplies   it was sent, and fewer than f+1 replicas gave one same answer in time
├── BrokenAnswer           f+1 replicas agree on an answer that does not fit the question
├── BadCluster             the genesis or the client key does not hold
├── ClientClosed           the client was closed, or not started
└── ClientFailed           a background task of the client ended: it can not go on
"""
# The names are the ones users read in the documentation: they say what happened.
# ruff: noqa: N818

from __future__ import annotations

from typing import Final

INVALID_ARGUMENT: Final = 3
"""gRPC status codes, of which etcd uses some."""
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
FAILED_PRECONDITION: Final = 9
OUT_OF_RANGE: Final = 11


class DWCPError(Exception):
    """The base of all errors of this package."""


class NotExecuted(DWCPError):
    """The operation was not executed and never will be: it is safe to try again."""


class Refused(NotExecuted):
    """The cluster refused the operation, which changed nothing; `code` is a gRPC status code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Compacted(Refused):
    """A watch stands below the compaction; it can begin anew at `compact_revision`."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(
            OUT_OF_RANGE,
            f"etcdserver: mvcc: required revision has been compacted (at {compact_revision}): "
            "read the keys again and watch from the revision of that answer on",
        )
        self.compact_revision = compact_revision


class Busy(NotExecuted):
    """This client has too many operations waiting: wait for some before sending more."""


class TimedOut(NotExecuted):
    """The deadline passed while the operation was still waiting in this client."""


class Indeterminate(DWCPError):
    """Whether the operation was executed is not known: read before you repeat it."""


class NotEnoughReplies(Indeterminate):
    """The operation was sent, but fewer than f+1 replicas gave one same answer in time."""


class BrokenAnswer(DWCPError):
    """f+1 replicas signed an answer that does not fit the question.

    Either more than f replicas are faulty, or they speak a newer protocol than this client.
    """


class BadCluster(DWCPError):
    """The genesis record or the client key that was given can not be used."""


class ClientClosed(DWCPError):
    """The client is not running: use it inside `async with`."""


class ClientFailed(DWCPError):
    """A background task of the client ended; its cause is `__cause__`. Make a new client."""
