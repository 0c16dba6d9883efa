"""A local cluster that begins from a backup: the backup is checked before anything is made."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dwcp.wire.backup import BackupDamagedError
from dwcp.wire.records import Origin
from dwcp_operator.local.errors import RefusedChangeError
from dwcp_operator.resources import BackupSource
from dwcp_replica.node.restoring import read_backup
from dwcp_replica.store.backup import BackupFaultError
from dwcp_replica.store.records import MemoryRecords


def origin_of(source: BackupSource) -> tuple[Path, Origin]:
    """The backup's absolute path and what it proves. Raises RefusedChangeError."""
    if source.claim is not None:
        raise RefusedChangeError(
            "spec.bootstrap.backup.claim is a volume on Kubernetes: leave it out, and name a file "
            "of this machine"
        )
    path = Path(source.file).absolute()
    try:
        found = read_backup(path, MemoryRecords()).origin
    except OSError as error:
        raise RefusedChangeError(f"{path} can not be read: {error.strerror}") from None
    except (BackupFaultError, BackupDamagedError) as error:
        raise RefusedChangeError(f"{path} does not hold: {error}") from None
    assert found is not None, "a whole backup was read"
    if found.genesis.hex() != source.genesis_hash:
        raise RefusedChangeError(
            f"{path} is of the cluster with genesis {found.genesis.hex()}, and "
            f"spec.bootstrap.backup.genesisHash says {source.genesis_hash}"
        )
    return path, msgspec.structs.replace(found, loss=source.accepted_loss)
