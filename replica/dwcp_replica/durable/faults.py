"""What can be wrong with this replica's own disk; each error says what to do.

LocalFault                  stop the replica
├── DiskFailure             a write or sync failed: what the disk holds is unknown; never retried
├── LogDamaged              the log is damaged in the middle and takes no more records
└── DataFault               the data directory can not be used
    ├── MissingDirectory
    ├── DirectoryLocked     another process runs on it
    ├── ForeignDirectory    it belongs to something else, or parts of it are damaged
    │   ├── LostIdentity    the member's key is gone
    │   └── RemovedMember   the cluster goes on without this member
    └── GenesisConflict     it holds another genesis
DiskFull                    the records were not taken, and the log is as before: try later
"""

from __future__ import annotations


class LocalFault(Exception):  # noqa: N818 - a fault of ours, as against a PeerFault
    """This replica's own fault: it must stop."""


class DiskFailure(LocalFault):
    """A write or a sync failed. After a failed sync the kernel may drop the data and report
    success to the next sync, so that trying again proves nothing."""


class LogDamaged(LocalFault):
    """The log is damaged before its end and must stay as it is: nothing can be appended."""


class DiskFull(Exception):  # noqa: N818 - a state that passes, not a fault
    """There is no room for these records. None of them is in the log; those before them are."""


class DataFault(LocalFault):
    """The data directory can not be used as it is."""


class MissingDirectory(DataFault):
    """The data directory is not there."""


class DirectoryLocked(DataFault):
    """Another process, `pid` if known, holds the directory."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.pid = pid
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{path} is in use by {holder}: a member's key must never run twice, "
            "so stop that process first"
        )


class ForeignDirectory(DataFault):
    """The directory belongs to another member or to something else, or a file is damaged."""


class LostIdentity(ForeignDirectory):
    """A key file is gone. A member without its memory may contradict its own votes."""


class RemovedMember(ForeignDirectory):
    """The cluster goes on without this member, and its key is erased."""


class GenesisConflict(DataFault):
    """Another genesis is stored already; it is never replaced."""
