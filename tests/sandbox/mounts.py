"""Mounts below a directory, and removing a directory that must hold none."""

from __future__ import annotations

import shutil
from pathlib import Path

from sandbox.shell import CommandError, SandboxError, run

ATTEMPTS = 5


def parse_mounts_below(mountinfo: str, directory: Path) -> list[Path]:
    """Mount points at or below `directory` in the text of /proc/self/mountinfo, last one first.

    The kernel writes blanks and the like in octal, such as \\040.
    """
    points = []
    for line in mountinfo.splitlines():
        raw = line.split(" ")[4]
        point = Path(raw.encode().decode("unicode_escape"))
        if point == directory or directory in point.parents:
            points.append(point)
    return points[::-1]


def below(directory: Path) -> list[Path]:
    """Mount points at or below `directory` now, the latest first."""
    return parse_mounts_below(Path("/proc/self/mountinfo").read_text(), directory)


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below `directory`; what is busy is detached."""
    for _ in range(ATTEMPTS):
        points = below(directory)
        if not points:
            return
        for point in points:
            try:
                run(["umount", "--no-canonicalize", point])
            except CommandError:
                run(["umount", "--no-canonicalize", "--lazy", point])
    raise SandboxError(f"these are mounted again and again: {below(directory)}")


def remove_tree(path: Path) -> None:
    """Remove a file, or a directory with all it holds; refuse while something is mounted in it."""
    if points := below(path):
        raise SandboxError(f"not removing {path}: {points} are mounted in it")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shim_sockets(runtime_state: Path) -> list[Path]:
    """The sockets of containerd's shims, which are outside its state directory.

    A shim that ends orderly removes its own; one that was killed leaves it in /run/containerd/s.
    """
    sockets = []
    for address in runtime_state.glob("io.containerd.runtime.v2.task/*/*/address"):
        text = address.read_text().strip()
        if text.startswith("unix:///run/containerd/s/"):
            sockets.append(Path(text.removeprefix("unix://")))
    return sockets
