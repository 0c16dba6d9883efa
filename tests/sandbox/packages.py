"""What the sandbox needs from the distribution, installed only when it is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sandbox.shell import SandboxError, run, step

# Program -> Debian package.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "debootstrap": "debootstrap",
    "buildah": "buildah",
    "openssl": "openssl",
    "nsenter": "util-linux",
}
CNI_PACKAGE = "containernetworking-plugins"
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Kernel feature -> the module that may provide it.
KERNEL_FILES = {
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables"): "br_netfilter",
    Path("/sys/module/overlay"): "overlay",
}


def require_root() -> None:
    """SandboxError unless this is root: namespaces, mounts and cgroups need it."""
    if os.geteuid() != 0:
        raise SandboxError("the sandbox needs root: run it with sudo, as in `sudo make kube-demo`")


def extend_path() -> None:
    """Make the programs in the system directories findable under sudo, cron and the like."""
    words = os.environ.get("PATH", "").split(":")
    words += [word for word in SYSTEM_PATH.split(":") if word not in words]
    os.environ["PATH"] = ":".join(word for word in words if word)


def cni_directory() -> Path | None:
    """The directory that holds the CNI plugins, or None."""
    for directory in CNI_DIRECTORIES:
        if all((directory / plugin).exists() for plugin in CNI_PLUGINS):
            return directory
    return None


def missing() -> list[str]:
    """Debian packages of programs that are not there, in alphabetical order."""
    names = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if cni_directory() is None:
        names.add(CNI_PACKAGE)
    return sorted(names)


def ensure() -> None:
    """Install the packages that are missing, and check that it helped."""
    if wanted := missing():
        install(wanted)
    if still := missing():
        raise SandboxError(f"install the programs of these Debian packages: {' '.join(still)}")


def install(names: Iterable[str]) -> None:
    """Install Debian packages with apt-get."""
    wanted = sorted(names)
    if shutil.which("apt-get") is None:
        raise SandboxError(f"there is no apt-get: install what Debian calls {' '.join(wanted)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"apt-get install {' '.join(wanted)}"):
        run(["apt-get", "update", "-qq"], env=env, timeout_s=300.0)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        run(command, env=env, timeout_s=900.0)


def ensure_kernel() -> None:
    """Load the kernel modules that are needed; they are built in on some machines."""
    for path, module in KERNEL_FILES.items():
        if not path.exists() and not _registered(module):
            if shutil.which("modprobe") is None:
                install(["kmod"])
            try:
                run(["modprobe", module])
            except SandboxError as error:
                raise SandboxError(f"the kernel lacks {module}: {error}") from error


def _registered(module: str) -> bool:
    return f"\t{module}\n" in Path("/proc/filesystems").read_text()
