"""What must survive a crash: the member's directory with its keys, and the write-ahead log."""

from dwcp_replica.durable.datadir import DataDirectory
from dwcp_replica.durable.faults import (
    DataFault,
    DirectoryLocked,
    DiskFailure,
    DiskFull,
    ForeignDirectory,
    GenesisConflict,
    LocalFault,
    LogDamaged,
    LostIdentity,
    MissingDirectory,
    RemovedMember,
)
from dwcp_replica.durable.wal import Damage, DamageKind, Wal, wal_binding

__all__ = [
    "Damage",
    "DamageKind",
    "DataDirectory",
    "DataFault",
    "DirectoryLocked",
    "DiskFailure",
    "DiskFull",
    "ForeignDirectory",
    "GenesisConflict",
    "LocalFault",
    "LogDamaged",
    "LostIdentity",
    "MissingDirectory",
    "RemovedMember",
    "Wal",
    "wal_binding",
]
