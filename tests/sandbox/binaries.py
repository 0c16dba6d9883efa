"""The programs of a sandbox, built from source: one Go module pins every version.

The result is kept in the cache under a digest of the module, so a second run builds nothing and
needs no Go. Go itself is taken from PATH when it is new enough. Otherwise a newer one comes
through the module mechanism, which checks it against Go's checksum database: any Go can download
a toolchain as a module, and Debian's can too, although it is too old to use it by itself.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from sandbox.packages import install
from sandbox.shell import CommandError, SandboxError, draft_directory, exclusive, run, say, step

SOURCE = Path(__file__).parent / "hyperkube"
KUBERNETES = "1.34.4"
HELM = "4.0.5"
KUBECONFORM = "0.7.0"
COREDNS = "1.13.1"
GO_MINIMUM = (1, 24)
GO_TOOLCHAIN = "1.24.13"

TARGETS = (
    ".",
    "./coredns",
    "./pause",
    "./probe",
    "helm.sh/helm/v4/cmd/helm",
    "github.com/yannh/kubeconform/cmd/kubeconform",
)
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
BUILD_TIMEOUT_S = 3600.0
KEPT_BUILDS = 2


def linker_flags() -> str:
    """Strip the programs, and tell each its version, which its own release build would do."""
    major, minor, _ = KUBERNETES.split(".")
    values = {
        "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": f"v{KUBERNETES}",
        "helm.sh/helm/v4/internal/version.version": f"v{HELM}",
        "helm.sh/helm/v4/internal/version.kubeClientVersionMajor": major,
        "helm.sh/helm/v4/internal/version.kubeClientVersionMinor": minor,
        "helm.sh/helm/v4/pkg/chart/common.k8sVersionMajor": major,
        "helm.sh/helm/v4/pkg/chart/common.k8sVersionMinor": minor,
        "main.version": f"v{KUBECONFORM}",
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def cache_key(files: Iterable[tuple[str, bytes]]) -> str:
    """12 hexadecimal digits that change with any file of the module or any build flag."""
    digest = hashlib.sha256(f"{linker_flags()}\n{TARGETS}\n{platform.machine()}".encode())
    for name, content in sorted(files):
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def current_key() -> str:
    """The cache key of the Go module as it is on disk."""
    paths = [path for path in SOURCE.rglob("*") if path.name.endswith((".go", ".mod", ".sum"))]
    return cache_key((str(path.relative_to(SOURCE)), path.read_bytes()) for path in paths)


def directory(cache: Path) -> Path:
    """Where the programs of the current module are, or will be."""
    return cache / f"bin-{current_key()}"


def ensure(cache: Path) -> Path:
    """Return the directory with all programs, after building them if need be."""
    finished = directory(cache)
    with exclusive(cache):
        if finished.exists():
            finished.touch()
        else:
            _make(finished, find_go(cache))
            _forget_old_builds(cache)
    return finished


def _make(finished: Path, go: Path) -> None:
    say(f"building Kubernetes {KUBERNETES} from source: about 5 minutes on two cores, once")
    with step("Go programs"), draft_directory(finished) as draft:
        _build(go, draft)
        for component in COMPONENTS:
            (draft / component).symlink_to("hyperkube")


def _build(go: Path, output: Path) -> None:
    flags = ["-p", "2", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    command: list[str | Path] = [go, "build", *flags]
    command += ["-ldflags", linker_flags(), "-o", f"{output}/", *TARGETS]
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    try:
        run(command, cwd=SOURCE, env=env, timeout_s=BUILD_TIMEOUT_S)
    except CommandError as error:
        hint = "if the module proxy is out of reach, set GOPROXY to one that is not"
        raise SandboxError(f"the Go programs do not build: {error}\n{hint}") from error


def _forget_old_builds(cache: Path) -> None:
    """Keep the builds used last; each takes 280 MB."""
    builds = sorted(cache.glob("bin-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in builds[KEPT_BUILDS:]:
        shutil.rmtree(old)


def parse_go_version(text: str) -> tuple[int, int]:
    """Major and minor version from what `go version` prints; (0, 0) when it is not told."""
    match = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_go(cache: Path) -> Path:
    """A Go that is new enough: from PATH, from the cache, or downloaded as a module."""
    downloaded = cache / f"go-{GO_TOOLCHAIN}"
    on_path = shutil.which("go")
    if on_path is not None:
        version = run(["go", "version"], env={"GOTOOLCHAIN": "local"})
        if parse_go_version(version) >= GO_MINIMUM:
            return Path(on_path)
    if not downloaded.exists():
        if on_path is None:
            install(["golang-go"])
        with step(f"Go {GO_TOOLCHAIN}"):
            _download_go(downloaded)
    return downloaded / "bin" / "go"


def _download_go(target: Path) -> None:
    """Fetch a toolchain as the module `golang.org/toolchain` and make it executable.

    What a newer Go does by itself, an older one leaves undone: a module has no executable files
    and may hold no other module, so go.mod files in it are called _go.mod.
    """
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    module = f"golang.org/toolchain@v0.0.1-go{GO_TOOLCHAIN}.linux-{machine}"
    try:
        answer = run(["go", "mod", "download", "-json", module], cwd=Path("/"), timeout_s=900.0)
    except CommandError as error:
        raise SandboxError(
            f"there is no Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} on PATH, and none could be fetched "
            f"through the Go module proxy: {error}\n"
            "put a newer go on PATH, or set GOPROXY and GOSUMDB to hosts within reach"
        ) from error
    with draft_directory(target) as draft:
        run(["cp", "-r", "--no-preserve=mode", f"{json.loads(answer)['Dir']}/.", draft])
        for path in draft.rglob("_go.mod"):
            path.rename(path.with_name("go.mod"))
        for path in [*(draft / "bin").iterdir(), *(draft / "pkg" / "tool").rglob("*")]:
            path.chmod(0o755)
