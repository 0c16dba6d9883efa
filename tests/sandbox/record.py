"""What a sandbox's state directory says of itself, and the lock on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sandbox.layout import Layout
from sandbox.processes import boot_id
from sandbox.shell import SandboxError, exclusive, write_file

# Set for the whole machine by the kubelet when it starts; put back on the way down.
TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

# Fixed places outside the state directory in which a kubelet, containerd or CNI makes files,
# each after what it holds.
HOST_DIRECTORIES = (
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/log/containers",
    "/run/containerd/s",
    "/run/containerd",
    "/run/netns",
)


@dataclass(frozen=True, slots=True)
class Record:
    """What was asked for, under which boot, and how the machine was before."""

    nodes: int
    volumes: int
    programs: str
    boot: str = field(default_factory=boot_id)
    tunables: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def read(layout: Layout) -> Record | None:
    """The record of the sandbox in the state directory, or None."""
    if not layout.record.exists():
        return None
    return Record(**json.loads(layout.record.read_text()))


def write(layout: Layout, record: Record) -> None:
    """Save the record; whatever is done to the machine afterwards can be undone with it."""
    write_file(layout.record, json.dumps(asdict(record), indent=1))


def machine_before() -> tuple[dict[str, str], list[str]]:
    """The kernel tunables as they are, and which of the fixed directories do not exist."""
    paths = {name: Path("/proc/sys") / name for name in TUNABLES}
    tunables = {name: path.read_text().strip() for name, path in paths.items() if path.exists()}
    return tunables, [path for path in HOST_DIRECTORIES if not Path(path).exists()]


def require_nodes(layout: Layout) -> int:
    """The number of nodes of the sandbox; SandboxError when there is no sandbox."""
    record = read(layout)
    if record is None:
        raise SandboxError(f"there is no sandbox in {layout.state}: run `python -m sandbox up`")
    return record.nodes


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the state directory: two commands that change a sandbox run one after the other.

    Raises: SandboxError when the directory holds something else, since `down` removes it.
    """
    while True:
        with exclusive(layout.state) as descriptor:
            if _is_at(descriptor, layout.state):
                _require_own(layout)
                yield
                return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open directory is still the one at `path`: `down` may have removed it."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _require_own(layout: Layout) -> None:
    """The record or the namespace, which has a name of its own, shows that it is a sandbox's."""
    ours = layout.record.exists() or layout.namespace_file.exists()
    if any(layout.state.iterdir()) and not ours:
        raise SandboxError(f"--state {layout.state} holds other things: name a new directory")
