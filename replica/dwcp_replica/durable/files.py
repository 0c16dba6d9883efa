"""Files that are there completely or not at all, also after a crash."""

from __future__ import annotations

import os
from pathlib import Path

from dwcp_replica.durable.faults import DiskFailure


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises DiskFailure."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise DiskFailure(f"can not sync the directory {path}: {error}") from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`; the kernel may take it in pieces. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` into the file at `path`, atomically and durably.

    Raises OSError when it can not be written (the old file stands then), DiskFailure when the
    directory can not be synced.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_directory(path.parent)


def erase_file(path: Path) -> None:
    """Overwrite a file's bytes and remove it, durably; one that is not there is erased already.

    What a file system or a disk keeps of older versions (snapshots, spare blocks) is out of reach.
    Raises OSError, DiskFailure.
    """
    try:
        fd = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        write_all(fd, bytes(os.fstat(fd).st_size))
        os.fsync(fd)
    finally:
        os.close(fd)
    path.unlink()
    sync_directory(path.parent)
