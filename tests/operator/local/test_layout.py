from __future__ import annotations

import json
from pathlib import Path

import pytest

from dwcp_operator.local.errors import (
    AlreadyRunningError,
    NoSuchDirectoryError,
    NotADataDirectoryError,
    RefusedChangeError,
)
from dwcp_operator.local.layout import Lock, open_layout, prepare
from dwcp_operator.local.processes import member_command
from dwcp_operator.manifest import load_manifest
from dwcp_operator.resources import DWCPCluster


def manifest(spec: str = "{}", name: str = "demo", namespace: str = "default") -> DWCPCluster:
    return load_manifest(
        "apiVersion: dwcp.dev/v1alpha1\nkind: DWCPCluster\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )


def make(path: Path, wanted: DWCPCluster) -> None:
    prepare(path, wanted)[1].release()


def test_a_new_directory(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "dir"
    make(root, manifest("{requestTimeout: 500ms}"))
    layout, cluster, applied = open_layout(root)
    assert cluster.name == "demo"
    assert [m.name for m in cluster.members] == ["demo-0", "demo-1", "demo-2", "demo-3"]
    assert len({p for m in cluster.members for p in (m.client_port, m.peer_port)}) == 8
    assert len(bytes.fromhex(cluster.cluster_id)) == 16
    assert applied.spec.request_timeout_ms == 500
    assert layout.root.stat().st_mode & 0o077 == 0, "keys will lie there"


def test_new_clusters_speak_tls_and_older_ones_stay_as_their_genesis_says(tmp_path: Path) -> None:
    make(tmp_path / "d", manifest())
    layout, cluster, _ = open_layout(tmp_path / "d")
    member = cluster.members[0]
    assert member.client_url == f"https://127.0.0.1:{member.client_port}"
    assert "--client-tls" in member_command(layout, cluster, member)
    written = layout.cluster_file.read_text()
    assert '"clientTls"' in written
    older = json.loads(written)
    for one in older["members"]:
        del one["clientTls"]
    layout.cluster_file.write_text(json.dumps(older))
    layout, cluster, _ = open_layout(tmp_path / "d")
    member = cluster.members[0]
    assert member.client_url == f"http://127.0.0.1:{member.client_port}"
    assert "--client-tls" not in member_command(layout, cluster, member)


def test_the_same_manifest_resumes_with_the_same_id_and_ports(tmp_path: Path) -> None:
    make(tmp_path / "d", manifest())
    before = open_layout(tmp_path / "d")[1]
    make(tmp_path / "d", manifest())
    assert open_layout(tmp_path / "d")[1] == before


def test_a_change_that_is_allowed_counts_a_generation(tmp_path: Path) -> None:
    make(tmp_path / "d", manifest())
    make(tmp_path / "d", manifest("{mode: Internet}"))
    _, cluster, applied = open_layout(tmp_path / "d")
    assert cluster.generation == 2
    assert applied.spec.mode == "Internet"


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (manifest("{replicas: 7}"), "start it as it was, then use `dwcp scale"),
        (manifest("{checkpointInterval: 50}"), "part of the cluster's genesis"),
        (manifest("{clients: [a]}"), "adding and removing clients is not yet supported"),
        (manifest(name="other"), "metadata.name=demo, and the manifest says other"),
        (manifest(namespace="other"), "metadata.namespace=default, and the manifest says other"),
    ],
)
def test_a_refused_change_changes_nothing(
    tmp_path: Path, wanted: DWCPCluster, sentence: str
) -> None:
    make(tmp_path / "d", manifest())
    before = open_layout(tmp_path / "d")
    with pytest.raises(RefusedChangeError, match=sentence):
        prepare(tmp_path / "d", wanted)
    assert open_layout(tmp_path / "d") == before
    Lock.take(before[0]).release()


def test_adoption_is_for_kubernetes(tmp_path: Path) -> None:
    volumes = ", ".join(f"{{member: demo-{i}, claim: c{i}}}" for i in range(4))
    adopt = f"{{bootstrap: {{adopt: {{clusterId: {'ab' * 16}, volumes: [{volumes}]}}}}}}"
    with pytest.raises(RefusedChangeError, match="dwcp up --data"):
        prepare(tmp_path / "d", manifest(adopt))
    assert not (tmp_path / "d").exists()


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    layout, lock = prepare(tmp_path / "d", manifest())
    with pytest.raises(AlreadyRunningError, match="already running"):
        prepare(tmp_path / "d", manifest())
    lock.release()
    Lock.take(layout).release()


def test_directories_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(NoSuchDirectoryError, match="no such data directory"):
        open_layout(tmp_path / "missing")
    with pytest.raises(NotADataDirectoryError, match="is not a data directory of dwcp"):
        open_layout(tmp_path)
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(NotADataDirectoryError, match="holds something else"):
        prepare(tmp_path, manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(NotADataDirectoryError, match="holds something else"):
        prepare(tmp_path / "holiday.jpg", manifest())


def test_a_damaged_or_newer_cluster_file(tmp_path: Path) -> None:
    make(tmp_path / "d", manifest())
    path = tmp_path / "d" / "cluster.json"
    newer = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    with pytest.raises(NotADataDirectoryError, match="has format 2"):
        open_layout(tmp_path / "d")
    path.write_text(newer[:40])
    with pytest.raises(NotADataDirectoryError, match="is damaged"):
        open_layout(tmp_path / "d")


def test_an_interrupted_beginning_can_be_repeated(tmp_path: Path) -> None:
    """Only what `prepare` itself writes before cluster.json may lie there."""
    make(tmp_path / "d", manifest())
    (tmp_path / "d" / "cluster.json").unlink()
    make(tmp_path / "d", manifest())
    assert open_layout(tmp_path / "d")[1].name == "demo"
