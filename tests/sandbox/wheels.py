"""Wheels for an image's Python, downloaded on the host, so that a build needs no network.

The requirements must be complete (every package named, as in a lock file), because dependencies
are not followed. Environment markers are judged by the Python that runs this; a lock whose
markers tell Python 3.13 from it must be downloaded with Python 3.13.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.shell import CommandError, SandboxError, draft_directory, exclusive, run, step

PYTHON = "3.13"
GLIBC_MINOR = 41  # Debian trixie
GLIBC_MINOR_OLDEST = 5  # the oldest that a manylinux tag names
MOUNT_POINT = "/wheels"
DOWNLOAD_TIMEOUT_S = 1200.0


def platform_tags(machine: str) -> list[str]:
    """The platform tags that the image's pip accepts, the newest glibc first."""
    minors = range(GLIBC_MINOR, GLIBC_MINOR_OLDEST - 1, -1)
    tags = [f"manylinux_2_{minor}_{machine}" for minor in minors]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


def cache_key(contents: Sequence[bytes]) -> str:
    """Changes with the requirements, in whatever order they are named, and the target."""
    digest = hashlib.sha256(f"{PYTHON} {platform.machine()}".encode())
    for content in sorted(contents):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def ensure(cache: Path, requirements: Sequence[Path]) -> Path:
    """Return a directory with a wheel for each requirement, after a download if need be."""
    for path in requirements:
        if not path.exists():
            raise SandboxError(f"there is no {path}: name existing files with --requirements")
    finished = cache / cache_key([path.read_bytes() for path in requirements])
    with exclusive(cache):
        if not finished.exists():
            with step(f"wheels for Python {PYTHON}"), draft_directory(finished) as draft:
                for path in requirements:
                    _download(path, draft)
    return finished


def _download(requirements: Path, target: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--requirement", requirements]
    command += ["--dest", target, "--python-version", PYTHON, "--implementation", "cp"]
    for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for tag in platform_tags(platform.machine()):
        command += ["--platform", tag]
    env = {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        run(command, env=env, timeout_s=DOWNLOAD_TIMEOUT_S)
    except CommandError as error:
        raise SandboxError(
            f"{error}\nevery requirement needs a wheel for Python {PYTHON} (or of pure Python): "
            "choose a version that has one"
        ) from error
