"""The directory of a local cluster: what lies where, and how it is made and opened."""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec
import yaml
from msgspec import Struct

from dwcp.wire.records import CLUSTER_ID_BYTES
from dwcp_operator import rules
from dwcp_operator.local import ports
from dwcp_operator.local.errors import (
    AlreadyRunningError,
    NoSuchDirectoryError,
    NotADataDirectoryError,
    RefusedChangeError,
)
from dwcp_operator.local.files import replace_file, write_once
from dwcp_operator.local.restore import origin_of
from dwcp_operator.manifest import load_manifest
from dwcp_operator.resources import API_VERSION, KIND, DWCPCluster

FORMAT: Final = 1


class MemberPorts(Struct, frozen=True, rename="camel"):
    """A member's name and its two ports on the loopback.

    `client_tls`: the client port speaks TLS. Clusters made before that do not, for ever, since
    their genesis names the addresses.
    """

    name: str
    client_port: int
    peer_port: int
    client_tls: bool = False

    @property
    def client_url(self) -> str:
        """Base URL of the client API."""
        scheme = "https" if self.client_tls else "http"
        return f"{scheme}://{ports.LOOPBACK}:{self.client_port}"

    @property
    def client_address(self) -> str:
        """host:port of the client API."""
        return f"{ports.LOOPBACK}:{self.client_port}"

    @property
    def peer_address(self) -> str:
        """host:port of the peer listener."""
        return f"{ports.LOOPBACK}:{self.peer_port}"


class ClusterFile(Struct, frozen=True, rename="camel"):
    """cluster.json: what a local cluster keeps besides its manifest; clusterId is hexadecimal.

    `members` are the replicas that are to run: who of them is a member stands in the epoch record.
    `gone` are names that were used and must not be used again.
    """

    format: int
    name: str
    namespace: str
    cluster_id: str
    generation: int
    members: tuple[MemberPorts, ...]
    gone: tuple[str, ...] = ()

    def member(self, name: str) -> MemberPorts:
        """The ports of a member of this cluster."""
        return next(m for m in self.members if m.name == name)


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in the data directory (absolute)."""

    root: Path

    @property
    def cluster_file(self) -> Path:
        """Name, cluster id and ports."""
        return self.root / "cluster.json"

    @property
    def manifest(self) -> Path:
        """The manifest as applied."""
        return self.root / "manifest.yaml"

    @property
    def admin_key(self) -> Path:
        """The private key that signs the genesis."""
        return self.root / "admin.key"

    def client_key(self, number: int, name: str) -> Path:
        """A client's private key: the first client's stands where `dwcp.Client` looks for it."""
        return self.root / "client.key" if number == 0 else self.root / "clients" / f"{name}.key"

    @property
    def record(self) -> Path:
        """The genesis record with the admin's signature, before members have signed."""
        return self.root / "genesis-record.msgpack"

    @property
    def origin(self) -> Path:
        """Where the cluster's first state came from, when it did not begin empty."""
        return self.root / "origin.msgpack"

    @property
    def backup(self) -> Path:
        """Holds the path of the backup that members take their first state from."""
        return self.root / "backup-path"

    @property
    def genesis(self) -> Path:
        """The genesis that every member has signed."""
        return self.root / "genesis.msgpack"

    @property
    def epochs(self) -> Path:
        """The epoch records after genesis, as far as they were seen and verified."""
        return self.root / "epochs.msgpack"

    def volume(self, member: str) -> Path:
        """The member's own directory: its volume."""
        return self.root / "members" / member

    def token(self, member: str) -> Path:
        """The member's one-time token."""
        return self.root / "tokens" / member

    def log(self, member: str) -> Path:
        """What the member says."""
        return self.root / "logs" / f"{member}.log"

    @property
    def supervisor_log(self) -> Path:
        """What a supervisor in the background says."""
        return self.root / "supervisor.log"

    @property
    def supervisor_file(self) -> Path:
        """Process id and start time of the supervisor."""
        return self.root / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it runs."""
        return self.root / "supervisor.lock"

    @property
    def status(self) -> Path:
        """The status that the supervisor wrote last."""
        return self.root / "status.json"

    @property
    def restart(self) -> Path:
        """Written when members are to be restarted: those that are older than it are."""
        return self.root / "restart"

    @property
    def testing(self) -> Path:
        """Strategies of lying members, by name; for tests and the demo only."""
        return self.root / "testing.json"


def open_layout(path: Path) -> tuple[Layout, ClusterFile, DWCPCluster]:
    """An existing data directory. Raises NoSuchDirectoryError, NotADataDirectoryError."""
    layout = Layout(path.absolute())
    if not path.exists():
        raise NoSuchDirectoryError(
            f"no such data directory: {path}: make a cluster there with "
            f"`dwcp up -f FILE --data {path}`, or name the right directory"
        )
    try:
        data = layout.cluster_file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotADataDirectoryError(
            f"{path} is not a data directory of dwcp (it has no cluster.json): "
            "name the directory that `dwcp up --data` was given"
        ) from None
    try:
        cluster = msgspec.json.decode(data, type=ClusterFile)
    except msgspec.DecodeError as error:
        raise NotADataDirectoryError(
            f"{layout.cluster_file} is damaged ({error}): restore it"
        ) from None
    if cluster.format != FORMAT:
        raise NotADataDirectoryError(
            f"{path} has format {cluster.format}, and this version of dwcp knows format {FORMAT}: "
            "use the version that made it"
        )
    return layout, cluster, load_manifest(layout.manifest)


class Lock:
    """The supervisor's lock on a data directory, held until it is closed or the process ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    def take(cls, layout: Layout) -> Lock:
        """Take the lock. Raises AlreadyRunningError when another process holds it."""
        file = layout.lock.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise AlreadyRunningError(
                f"the cluster in {layout.root} is already running: see it with `dwcp status --data "
                f"{layout.root}`, or stop it with `dwcp down --data {layout.root}`"
            ) from None
        return cls(file)

    @classmethod
    def inherit(cls, fd: int) -> Lock:
        """The lock that a parent process took and handed down."""
        return cls(os.fdopen(fd, "ab"))

    def fileno(self) -> int:
        """The open file that holds the lock."""
        return self._file.fileno()

    def release(self) -> None:
        """Give the lock back."""
        self._file.close()


def prepare(path: Path, wanted: DWCPCluster) -> tuple[Layout, Lock]:
    """Make the data directory, or open it for the same cluster; returns it locked.

    Raises AlreadyRunningError, RefusedChangeError, NotADataDirectoryError.
    """
    layout = Layout(path.absolute())
    if wanted.spec.adopt is not None:
        raise RefusedChangeError(
            "spec.bootstrap.adopt takes over volumes on Kubernetes; a local cluster begins again "
            "where it was with `dwcp up --data` on its own directory"
        )
    if wanted.spec.hibernate:
        raise RefusedChangeError(
            "spec.hibernate stops the Pods of a cluster on Kubernetes; a local cluster is stopped "
            f"with `dwcp down --data {path}` and started again with `dwcp up`"
        )
    if path.exists() and not layout.cluster_file.exists():
        _check_unused(path)
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = Lock.take(layout)
    try:
        if layout.cluster_file.exists():
            _apply(layout, wanted)
        else:
            _make(layout, wanted)
    except BaseException:
        lock.release()
        raise
    return layout, lock


def _check_unused(path: Path) -> None:
    known = {
        "supervisor.lock", "manifest.yaml", "backup-path", "origin.msgpack",
        "admin.key", "client.key", "clients",
    }  # fmt: skip
    if not path.is_dir() or any(p.name not in known for p in path.iterdir()):
        raise NotADataDirectoryError(
            f"{path} holds something else: name an empty or new directory with --data"
        )


def _make(layout: Layout, wanted: DWCPCluster) -> None:
    names = wanted.member_names
    source = wanted.spec.restore
    if source is not None:
        path, origin = origin_of(source)
        replace_file(layout.backup, str(path).encode())
        replace_file(layout.origin, msgspec.msgpack.encode(origin))
    chosen = ports.choose(2 * len(names))
    pairs = zip(names, chosen[: len(names)], chosen[len(names) :], strict=True)
    cluster = ClusterFile(
        format=FORMAT,
        name=wanted.metadata.name,
        namespace=wanted.metadata.namespace,
        cluster_id=secrets.token_hex(CLUSTER_ID_BYTES),
        generation=1,
        members=tuple(MemberPorts(*pair, client_tls=True) for pair in pairs),
    )
    # The cluster file comes last: with it, everything that `open_layout` reads is there.
    replace_file(layout.manifest, _manifest_bytes(wanted))
    made = write_once(layout.cluster_file, _indented(cluster))
    assert made, "the lock is held and the file was missing"


def _apply(layout: Layout, wanted: DWCPCluster) -> None:
    _, cluster, applied = open_layout(layout.root)
    for field, old, new in (
        ("metadata.name", cluster.name, wanted.metadata.name),
        ("metadata.namespace", cluster.namespace, wanted.metadata.namespace),
    ):
        if old != new:
            raise RefusedChangeError(
                f"{layout.root} holds the cluster with {field}={old}, and the manifest says {new}: "
                "name another directory with --data"
            )
    before, after = applied.spec.manifest(), wanted.spec.manifest()
    refused = rules.forbidden_changes(before, after)
    if before.get("replicas") != after.get("replicas"):
        refused = tuple(one for one in refused if "replicas" not in one)
        said = (
            f"spec.replicas can not be changed from {before.get('replicas')} to "
            f"{after.get('replicas')} by `dwcp up`: start it as it was, then use `dwcp scale "
            f"--data {layout.root} --replicas {after.get('replicas')}`"
        )
        refused = (*refused, said)
    if refused:
        raise RefusedChangeError("\n".join(refused))
    if before != after:
        replace_file(layout.manifest, _manifest_bytes(wanted))
        later = msgspec.structs.replace(cluster, generation=cluster.generation + 1)
        replace_file(layout.cluster_file, _indented(later))


def store_cluster(layout: Layout, cluster: ClusterFile, replicas: int | None = None) -> None:
    """Write which replicas are to run; the supervisor follows. `replicas` goes to the manifest."""
    if replicas is not None:
        manifest = load_manifest(layout.manifest)
        if manifest.spec.replicas != replicas:
            spec = manifest.spec.model_copy(update={"replicas": replicas})
            changed = manifest.model_copy(update={"spec": spec})
            replace_file(layout.manifest, _manifest_bytes(changed))
    replace_file(layout.cluster_file, _indented(cluster))


def _indented(cluster: ClusterFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(cluster), indent=2) + b"\n"


def _manifest_bytes(wanted: DWCPCluster) -> bytes:
    tree = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": wanted.metadata.name, "namespace": wanted.metadata.namespace},
        "spec": wanted.spec.manifest(),
    }
    return yaml.safe_dump(tree, sort_keys=False).encode()


class SupervisorFile(Struct, frozen=True):
    """supervisor.json: which process supervises; `started` is its start time in Unix seconds."""

    pid: int
    started: float


def read_supervisor(layout: Layout) -> SupervisorFile | None:
    """The supervisor that wrote its file last; it need not run any more."""
    try:
        return msgspec.json.decode(layout.supervisor_file.read_bytes(), type=SupervisorFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
