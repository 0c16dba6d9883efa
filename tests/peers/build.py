"""Builds them: each a Go module of its own, kept in the cache under a digest of its files."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from sandbox.binaries import find_go
from sandbox.layout import default_cache
from sandbox.shell import CommandError, SandboxError, draft_directory, exclusive, run, step

MODULES = Path(__file__).parent / "modules"
TARGETS = {
    "etcd": (
        "go.etcd.io/etcd/server/v3",
        "go.etcd.io/etcd/etcdctl/v3",
        "go.etcd.io/etcd/etcdutl/v3",
        "go.etcd.io/etcd/v3/tools/benchmark",
    ),
    "cometbft": ("github.com/cometbft/cometbft/cmd/cometbft",),
    "porcupine": (".",),
}
"""Module -> what is built of it. etcd's server is called `server`."""
BUILD_TIMEOUT_S = 1800.0


def cache_key(module: str) -> str:
    """12 hexadecimal digits that change with any file of the module."""
    found = hashlib.sha256(platform.machine().encode())
    for path in sorted((MODULES / module).iterdir()):
        found.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def ensure(module: str, cache: Path | None = None) -> Path:
    """The directory with a module's programs, after building them if need be.

    Raises SandboxError, with what the compiler said.
    """
    cache = cache or default_cache()
    finished = cache / f"{module}-{cache_key(module)}"
    with exclusive(cache):
        if not finished.exists():
            go = find_go(cache)
            with step(f"{module} from source"), draft_directory(finished) as draft:
                _build(go, module, draft)
    return finished


def _build(go: Path, module: str, output: Path) -> None:
    flags = ["-p", "2", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w"]
    command: list[str | Path] = [go, "build", *flags, "-o", f"{output}/", *TARGETS[module]]
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    try:
        run(command, cwd=MODULES / module, env=env, timeout_s=BUILD_TIMEOUT_S)
    except CommandError as error:
        hint = "if the module proxy is out of reach, set GOPROXY to one that is not"
        raise SandboxError(f"{module} does not build: {error}\n{hint}") from error
