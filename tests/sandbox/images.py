"""Container images without a registry or an engine: buildah builds, containerd imports archives.

Builds run without a network, in a namespace that has none, so that an image is made of the
context, the base image and the given wheels and of nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox import dns, node, wheels
from sandbox.packages import extend_path, require_root
from sandbox.shell import CommandError, SandboxError, exclusive, run, step

BASE_IMAGE = "localhost/dwcp-base:trixie"
BASE_SUITE = "trixie"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
BASE_LABEL = "dev.dwcp.sandbox.base"
BUILD_TIMEOUT_S = 1800.0
COMPRESSION = ("--compression-format", "zstd", "--compression-level", "1")  # half of gzip's time
PROBE_IMAGE = "localhost/sandbox/probe:1"

# Image -> the program that is all it holds.
COMPONENT_IMAGES = {node.PAUSE_IMAGE: "pause", dns.IMAGE: "coredns", PROBE_IMAGE: "probe"}

# Not needed to run a program; 145 MB of 269.
BASE_TRIMMED = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
)


class Images:
    """Image builds that keep their state in one cache directory."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._store = cache / "buildah"

    def _buildah(self, *words: str | Path) -> str:
        runtime = Path("/run") / f"dwcp-sandbox-buildah-{_digest(str(self._store))}"
        store: list[str | Path] = ["--root", self._store, "--runroot", runtime]
        command: list[str | Path] = ["unshare", "--net", "--", "buildah", *store, *words]
        return run(command, timeout_s=BUILD_TIMEOUT_S)

    def components(self, programs: Path) -> list[Path]:
        """Archives of the images that the sandbox itself runs, beside their programs."""
        archives = []
        for image, program in COMPONENT_IMAGES.items():
            archive = programs / f"{program}.tar"
            if not archive.exists():
                with step(f"image {image}"):
                    self._single_program(image, programs / program, archive)
            archives.append(archive)
        return archives

    def _single_program(self, image: str, program: Path, archive: Path) -> None:
        name = program.name
        text = f'FROM scratch\nCOPY {name} /{name}\nENTRYPOINT ["/{name}"]\n'
        with tempfile.TemporaryDirectory(prefix="sandbox-image-") as context:
            shutil.copy(program, context)
            dockerfile = Path(context) / "Dockerfile"
            dockerfile.write_text(text)
            self._bud(image, dockerfile, Path(context))
        self._archive(image, archive)

    def _bud(self, image: str, dockerfile: Path, context: Path, *options: str | Path) -> None:
        command = ["bud", "--isolation", "chroot", "--layers", "--tag", image]
        self._buildah(*command, "--file", dockerfile, *options, context)

    def _archive(self, image: str, archive: Path) -> None:
        archive.parent.mkdir(parents=True, exist_ok=True)
        draft = archive.with_name(f"{archive.name}.draft.{os.getpid()}")
        self._buildah("push", "--quiet", *COMPRESSION, image, f"oci-archive:{draft}:{image}")
        draft.replace(archive)

    def base(self) -> str:
        """Make sure that the base image is in buildah's store, and return its name."""
        key = base_key()
        if self._base_key_in_store() == key:
            return BASE_IMAGE
        archive = self._cache / f"base-{BASE_SUITE}-{key}.tar"
        with exclusive(self._cache):
            if not archive.exists():
                with step(f"Debian {BASE_SUITE} with Python {wheels.PYTHON}"):
                    _debootstrap(archive)
        with step(f"image {BASE_IMAGE}"), tempfile.TemporaryDirectory(dir=self._cache) as context:
            os.link(archive, Path(context) / "base.tar")
            dockerfile = Path(context) / "Dockerfile"
            label = f"LABEL {BASE_LABEL}={key}"
            dockerfile.write_text(f"FROM scratch\nADD base.tar /\nENV LANG=C.UTF-8\n{label}\n")
            self._bud(BASE_IMAGE, dockerfile, Path(context))
        return BASE_IMAGE

    def _base_key_in_store(self) -> str:
        label = '{{index .OCIv1.Config.Labels "' + BASE_LABEL + '"}}'
        try:
            return self._buildah("inspect", "--type=image", "--format", label, BASE_IMAGE).strip()
        except CommandError:
            return ""

    def build(
        self,
        tag: str,
        dockerfile: Path,
        context: Path,
        requirements: Sequence[Path],
        arguments: Mapping[str, str],
    ) -> Path:
        """Build an image from a Dockerfile and return its OCI archive.

        The wheels for `requirements` are the build context `wheels`; the Dockerfile mounts it.
        `arguments` are build arguments beside BASE_IMAGE, PIP_NO_INDEX and PIP_FIND_LINKS.
        """
        values = {
            "BASE_IMAGE": self.base(),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": wheels.MOUNT_POINT,
            **arguments,
        }
        options: list[str | Path] = []
        for name, value in values.items():
            options += ["--build-arg", f"{name}={value}"]
        if requirements:
            directory = wheels.ensure(self._cache / "wheels", requirements)
            options += ["--build-context", f"wheels={directory}"]
        archive = self._cache / "images" / f"{file_name(tag)}.tar"
        with step(f"image {tag}"):
            self._bud(tag, dockerfile, context, *options)
            self._archive(tag, archive)
        return archive


def file_name(tag: str) -> str:
    """A file name for an image's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", tag)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def base_key() -> str:
    """Changes with whatever decides the content of the base image."""
    return _digest(f"{BASE_SUITE} {BASE_PACKAGES} {BASE_TRIMMED} 1")


def _debootstrap(archive: Path) -> None:
    """Make a root file system with debootstrap and keep it as a tar file.

    The mirror is debootstrap's default; $DWCP_SANDBOX_DEBIAN_MIRROR names another.
    """
    require_root()
    extend_path()
    archive.parent.mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("DWCP_SANDBOX_DEBIAN_MIRROR")
    draft = archive.with_name(f"{archive.name}.draft.{os.getpid()}")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="debootstrap-") as directory:
        root = Path(directory) / "root"
        options = ["--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
        where = [] if mirror is None else [mirror]
        run(["debootstrap", *options, BASE_SUITE, root, *where], timeout_s=BUILD_TIMEOUT_S)
        _trim(root)
        run(["tar", "--numeric-owner", "-C", root, "-cf", draft, "."], timeout_s=BUILD_TIMEOUT_S)
    draft.replace(archive)


def _trim(root: Path) -> None:
    """Empty what a program does not need, and offer `python`, as the python images do."""
    for name in BASE_TRIMMED:
        for path in (root / name).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    found = next((root / "usr/bin").glob(f"python{wheels.PYTHON}"), None)
    if found is None:
        raise SandboxError(f"Debian {BASE_SUITE} has no Python {wheels.PYTHON}: see wheels.PYTHON")
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(Path("../../bin") / found.name)
