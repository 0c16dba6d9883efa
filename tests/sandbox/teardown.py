"""`down`: end and remove everything, in whatever state it is, and then look for what is left.

It pulls the plug rather than asking the API server to delete pods: nothing in a sandbox is worth
an orderly end, and the server may be the part that does not work. Names of the namespace and the
control group follow from the state directory, so it works without a record too.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandbox import cgroups, mounts, network, node, record
from sandbox.layout import NODES_MAX, Layout, Node
from sandbox.processes import Processes
from sandbox.shell import say, step, wait_until

CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
DEVICE_PLUGIN_FILES = (
    Path("/var/lib/kubelet/device-plugins/kubelet.sock"),
    Path("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"),
    Path("/var/lib/kubelet/device-plugins/DEPRECATION"),
)


def down(layout: Layout, processes: Processes) -> None:
    """Remove the sandbox and print what was checked; SandboxError when something is left."""
    with step("down"), record.locked(layout):
        clear(layout, processes)
        layout.state.rmdir()
    wait_until(lambda: "; ".join(leftovers(layout)), timeout_s=5.0)
    say("nothing is left: no process, mount, namespace, cgroup or directory")


def clear(layout: Layout, processes: Processes) -> None:
    """End the processes and remove what they made, so that the state directory is empty.

    Every part may be missing. The record goes last: an interrupted `down` can be repeated.
    """
    _end_processes(layout, processes)
    mounts.unmount_below(layout.state)
    cgroups.remove(layout.name)
    for pid in network.strangers(layout):
        say(f"process {pid} is inside the namespace and not the sandbox's: it is left alone there")
    network.remove(layout)
    _tidy_fixed_places(layout)
    found = record.read(layout)
    if found is not None:
        _restore_tunables(found.tunables)
        _remove_empty(found.absent)
    for path in sorted(layout.state.iterdir(), key=lambda path: path == layout.record):
        mounts.remove_tree(path)


def _end_processes(layout: Layout, processes: Processes) -> None:
    """The kubelets first: they would start again what ends."""
    names = sorted(processes.names(), key=lambda name: (not name.endswith("kubelet"), name))
    for name in names:
        processes.stop(name, grace_s=0.0)
    if cgroups.exists(layout.name):
        cgroups.kill(layout.name)


def _tidy_fixed_places(layout: Layout) -> None:
    """Remove this sandbox's files from the places that can not be configured."""
    for number in range(1, NODES_MAX + 1):
        owner = layout.node(number)
        for socket in mounts.shim_sockets(owner.runtime_state):
            socket.unlink(missing_ok=True)
        for result in _cni_results(layout, owner):
            result.unlink()
    for link in _log_links(layout):
        link.unlink()


def _cni_results(layout: Layout, owner: Node) -> list[Path]:
    """CNI's notes about the pods of a node: one under its network's name, one for loopback."""
    prefix = f"{node.cni_name(layout, owner)}-"
    named = list(CNI_RESULTS.glob(f"{prefix}*"))
    pods = {path.name.removeprefix(prefix).split("-")[0] for path in named}
    loopback = [CNI_RESULTS / f"cni-loopback-{pod}-lo" for pod in sorted(pods)]
    return [*named, *(path for path in loopback if path.exists())]


def _log_links(layout: Layout) -> list[Path]:
    """Links that a kubelet made from its fixed log directory to our pods' logs."""
    links = [path for path in CONTAINER_LOGS.glob("*.log") if path.is_symlink()]
    return [path for path in links if path.readlink().is_relative_to(layout.state)]


def _restore_tunables(tunables: dict[str, str]) -> None:
    for name, value in tunables.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)


def _remove_empty(directories: list[str]) -> None:
    """Remove the directories that were not there before, as far as nobody else uses them."""
    if "/var/lib/kubelet" in directories:
        for file in DEVICE_PLUGIN_FILES:
            file.unlink(missing_ok=True)
    for name in directories:
        path = Path(name)
        if path.is_dir() and not any(path.iterdir()):
            mounts.unmount_below(path)  # `ip netns` mounts its directory on itself
            path.rmdir()


def leftovers(layout: Layout) -> list[str]:
    """What is still there of a sandbox, each in words that help to find it."""
    found = [f"process {pid} in cgroup {layout.name}" for pid in sorted(cgroups.pids(layout.name))]
    found += [f"process {pid} names {layout.state}" for pid in _processes_naming(layout)]
    found += [f"process {pid} in namespace {layout.name}" for pid in network.strangers(layout)]
    found += [f"mount {point}" for point in mounts.below(layout.state)]
    found += [f"link {link}" for link in _log_links(layout)]
    if cgroups.exists(layout.name):
        found.append(f"cgroup {layout.name}")
    if layout.namespace_file.exists():
        found.append(f"network namespace {layout.name}")
    if layout.state.exists() and any(layout.state.iterdir()):
        found.append(f"directory {layout.state}")
    return found


def _processes_naming(layout: Layout) -> list[int]:
    """Processes with a path of the state directory among their arguments, but not this one.

    They are only reported, never ended: an editor or a `tail -f` is somebody's own.
    """
    path = f"{layout.state}/".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (directory / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if path in arguments and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found
