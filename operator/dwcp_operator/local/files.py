"""Files that are there whole or not at all, also after a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def write_once(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Write a new file durably; False, and nothing changed, when it exists already.

    The bytes are durable under a temporary name first, and linking fails when the name is
    taken: no reader and no crash ever shows a part of the file, and it is made only once.
    """
    draft = _write_draft(path, data, mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
        sync_directory(path.parent)
    return True


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content durably and at once."""
    _write_draft(path, data, mode).replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_draft(path: Path, data: bytes, mode: int) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def rotate(path: Path, *, size_max: int) -> None:
    """Move a log that has grown beyond `size_max` bytes aside, over the one moved before."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size > size_max:
        path.replace(path.with_name(path.name + ".1"))


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file; none when it does not exist. Reads at most 64 KiB."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_536))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
