from __future__ import annotations

from pathlib import Path

import pytest

from dwcp_operator import access
from dwcp_operator.manifest import MANIFEST_BYTES_MAX, ManifestError, load_manifest

HEAD = "apiVersion: dwcp.dev/v1alpha1\nkind: DWCPCluster\nmetadata:\n  name: demo\n"


def spec(*lines: str) -> str:
    return HEAD + "spec:\n" + "".join(f"  {line}\n" for line in lines)


SPEC_PROBLEMS = {
    "replicas: 5": "spec.replicas=5 is not 3f+1: use 4 or 7",
    "replicas: 1": "spec.replicas=1 is not 3f+1: use 4 or 7",
    "replicas: 0": "spec.replicas=0 is not 3f+1: use 4 or 7",
    "replicas: -3": "spec.replicas=-3 is not 3f+1: use 4 or 7",
    "replicas: 8": "spec.replicas=8 is not 3f+1: use 7 or 10",
    "replicas: 30": "spec.replicas=30 is not 3f+1: use 28 or 31",
    "replicas: 34": "spec.replicas=34 is more than the 31 members a cluster may have: "
    "use 4, 7, 10 or 13",
    'replicas: "4"': 'spec.replicas="4" is not a whole number: '
    "write digits without quotes, such as 4",
    "replicas: true": "spec.replicas=true is not a whole number: "
    "write digits without quotes, such as 4",
    "replicas: 4.0": "spec.replicas=4.0 is not a whole number: "
    "write digits without quotes, such as 4",
    "replicas:": "spec.replicas=null is not a whole number: write digits without quotes, such as 4",
    "mode: internet": "spec.mode=internet is not known: use Auto, Datacenter, Hybrid or Internet",
    "trust: Crash": "spec.trust=Crash is not yet supported: use Byzantine",
    "trust: none": "spec.trust=none is not known: use Byzantine or Crash",
    "storage: 1Gi": "spec.storage=1Gi is not a mapping: write its fields below it, indented",
    "storage: {siz: 1Gi}": "spec.storage.siz is not a field: did you mean size?",
    "storage: {size: 1}": "spec.storage.size=1 is not text: write it in quotes",
    'storage: {size: "0Gi"}': "spec.storage.size=0Gi is not a volume size: "
    "write a whole number and its unit, such as 1Gi or 500Mi",
    "storage: {reclaim: Keep}": "spec.storage.reclaim=Keep is not known: use Retain or Delete",
    'storage: {storageClassName: ""}': 'spec.storage.storageClassName="" is too short: '
    "give at least 1 characters",
    "resources: {requests: {cpu: 1.5}}": "spec.resources.requests.cpu=1.5 is not text: "
    "write it in quotes",
    "resources: {request: {}}": "spec.resources.request is not a field: did you mean requests?",
    "checkpointInterval: 9": "spec.checkpointInterval=9 is too small: use 10 or more",
    "checkpointInterval: 1001": "spec.checkpointInterval=1001 is too large: use 1000 or less",
    "requestTimeout: 2h": "spec.requestTimeout=2h is not a duration: "
    "write seconds or milliseconds, such as 2s or 500ms",
    "requestTimeout: 99ms": "spec.requestTimeout=99ms is out of range: use 100ms to 60s",
    "requestTimeout: 61s": "spec.requestTimeout=61s is out of range: use 100ms to 60s",
    "requestTimeout: 2": "spec.requestTimeout=2 is not text: write it in quotes",
    "clients: default": "spec.clients=default is not a list: "
    "write one item per line, each with a hyphen",
    "clients: []": "spec.clients is too short: give at least 1",
    "clients: [a, a]": "spec.clients names something twice: name each once",
    "clients: [App]": "spec.clients[0]=App is not a DNS label: "
    "use lower-case letters, digits and hyphens, such as default",
    "replica: 4": "spec.replica is not a field: did you mean replicas?",
    "zzz: 4": "spec.zzz is not a field: the fields here are replicas, mode, modes, features, "
    "trust, storage, image, resources, placement, upgrade, monitoring, replaceAfter, hibernate, "
    "checkpointInterval, requestTimeout, fastReads, clients, documents, access, tls, gateway, "
    "bootstrap",
    "access: [{client: nobody}]": f"spec.access {access.NO_CLIENT}",
    "access: [{client: default, read: [a]}]": f"spec.access {access.NO_ADMIN}",
    "access: [{client: default}, {client: default}]": f"spec.access {access.TWICE}",
    "gateway: {anonymous: true}": f"spec.gateway {access.NO_READER}",
    "gateway: {replicas: 0}": "spec.gateway.replicas=0 is too small: use 1 or more",
    "bootstrap: {}": "spec.bootstrap must name one way to begin: adopt, for volumes, or backup, "
    "for a backup",
    "bootstrap: {adopt: {clusterId: 7a, volumes: []}}": "spec.bootstrap.adopt.clusterId=7a does "
    "not match ^[0-9a-f]{32}$: copy it from the old cluster's status",
    "resources: {limits: {memory: 1Gb}}": "spec.resources.limits.memory=1Gb is not a quantity: "
    "write a number and its unit, such as 500m or 512Mi",
    "upgrade: {window: {start: 2am}}": "spec.upgrade.window.start=2am is not a time of day: "
    "write hours and minutes in UTC, such as 02:00",
    "upgrade: {window: {start: '02:00', days: [Sunday]}}": "spec.upgrade.window.days[0]=Sunday is "
    "not known: use Mon, Tue, Wed, Thu, Fri, Sat or Sun",
    "upgrade: {window: {start: '02:00', days: [Sun, Sun]}}": "spec.upgrade.window.days names "
    "something twice: name each once",
    "upgrade: {stepDeadline: 9s}": "spec.upgrade.stepDeadline=9s is out of range: use 10s to 3600s",
    "upgrade: {settleTime: 601s}": "spec.upgrade.settleTime=601s is out of range: use 0s to 600s",
    "upgrade: {rollback: yes please}": 'spec.upgrade.rollback="yes please" is not true or false: '
    "write one of them without quotes",
    "placement: {sites: [{name: a, nodeSelector: {}}, {name: a, nodeSelector: {}}]}": "spec."
    "placement names a site twice: name each once",
    "placement: {tolerations: [{operator: In}]}": "spec.placement.tolerations[0].operator=In is "
    "not known: use Exists or Equal",
    "mode: &m Auto\n  trust: *m": "spec.trust is a YAML alias: write the value out",
}


@pytest.mark.parametrize("line", SPEC_PROBLEMS)
def test_the_sentence_says_what_to_write_instead(line: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(spec(line))
    assert caught.value.problems[0].sentence == SPEC_PROBLEMS[line]


DOCUMENT_PROBLEMS = {
    "": "manifest: is empty: write a DWCPCluster",
    "---\n---\n": "manifest: is empty: write a DWCPCluster",
    "a: [": "manifest:1: is not YAML: expected the node content, but found '<stream end>'",
    "a: 1\n\tb: 2": "manifest:2: is not YAML: found character '\\t' that cannot start any token",
    "- a": "manifest:1: is not a mapping: begin with apiVersion: dwcp.dev/v1alpha1",
    "? [a]\n: b": "manifest:1: has a key that is not text: write a field's name",
    "1: b": "manifest:1: has a key that is not text: write a field's name",
    "a: &x [*x]": "manifest:1: a[0] is a YAML alias: write the value out",
    f"{HEAD}---\n{HEAD}": "manifest:6: holds 2 documents: keep one DWCPCluster in a file",
    "kind: DWCPCluster": "manifest:1: apiVersion is missing: write apiVersion: dwcp.dev/v1alpha1",
    "apiVersion: v1\nkind: Pod": "manifest:1: apiVersion=v1 is not known here: "
    "write apiVersion: dwcp.dev/v1alpha1\n"
    "manifest:2: kind=Pod is not known here: write kind: DWCPCluster",
    HEAD: "manifest:1: spec is missing: write it",
    f"{HEAD}spec:": "manifest:5: spec=null is not a mapping: write its fields below it, indented",
    spec("replicas: 4", "replicas: 7"): "manifest:7: spec.replicas is given twice: keep one",
    spec("mode: Auto", "replicas: 5"): "manifest:7: spec.replicas=5 is not 3f+1: use 4 or 7",
    spec("replicas: 5", "mode: X"): "manifest:6: spec.replicas=5 is not 3f+1: use 4 or 7\n"
    "manifest:7: spec.mode=X is not known: use Auto, Datacenter, Hybrid or Internet",
    HEAD.replace("demo", "Demo_1") + "spec: {}": "manifest:4: metadata.name=Demo_1 is not a DNS "
    "label: use lower-case letters, digits and hyphens, beginning with a letter, such as demo",
    HEAD.replace("demo", "1st") + "spec: {}": "manifest:4: metadata.name=1st is not a DNS "
    "label: use lower-case letters, digits and hyphens, beginning with a letter, such as demo",
    HEAD.replace("demo", "a" * 53) + "spec: {}": f"manifest:4: metadata.name={'a' * 53} has 53 "
    "characters: use at most 52, members' names are made from it",
    HEAD.replace("  name: demo", "  namespace: x") + "spec: {}": "manifest:3: metadata.name is "
    "missing: write it",
    "a: " + "[" * 5000: "manifest: is nested too deeply for a manifest",
}


@pytest.mark.parametrize("text", DOCUMENT_PROBLEMS, ids=range(len(DOCUMENT_PROBLEMS)))
def test_documents_that_do_not_do(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(text)
    assert str(caught.value) == DOCUMENT_PROBLEMS[text]


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    missing, binary, huge = tmp_path / "missing.yaml", tmp_path / "binary", tmp_path / "huge"
    binary.write_bytes(b"\xff\xfe\x00")
    huge.write_bytes(b"#" * (MANIFEST_BYTES_MAX + 1))
    for path, sentence in [
        (missing, "no such file: name a manifest with -f"),
        (tmp_path, "is a directory: name a manifest file"),
        (binary, "is not UTF-8 text: name a YAML manifest"),
        (huge, "has 1000001 bytes, too many for a manifest"),
    ]:
        with pytest.raises(ManifestError) as caught:
            load_manifest(path)
        assert str(caught.value) == f"{path}: {sentence}"


def test_defaults_and_names(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(HEAD + "spec: {}\n")
    cluster = load_manifest(path)
    assert cluster.member_names == ("demo-0", "demo-1", "demo-2", "demo-3")
    assert cluster.spec.request_timeout_ms == 2000
    assert cluster.metadata.namespace == "default"
    assert cluster.spec.manifest() == {
        "replicas": 4,
        "mode": "Auto",
        "modes": {
            "detection": False,
            "pinned": False,
            "roundTripLowMs": 10,
            "roundTripHighMs": 50,
            "bandwidthMbps": 1000,
            "hysteresisPercent": 10,
            "dwellSeconds": 20,
            "cooldownSeconds": 30,
            "measureSeconds": 10,
            "probeKib": 1024,
        },
        "features": {
            "measuring": 100,
            "reporting": 100,
            "switching": 100,
            "placing": 100,
            "firstProtocol": False,
        },
        "trust": "Byzantine",
        "storage": {"size": "1Gi", "reclaim": "Retain"},
        "resources": {},
        "placement": {"tolerations": [], "sites": []},
        "upgrade": {"rollback": False, "stepDeadline": "300s", "settleTime": "10s"},
        "monitoring": {"podMonitor": False, "rules": False, "dashboard": False},
        "replaceAfter": "1800s",
        "hibernate": False,
        "checkpointInterval": 100,
        "requestTimeout": "2s",
        "fastReads": False,
        "clients": ["default"],
    }


def test_what_kubernetes_adds_to_metadata_is_kept_out_of_the_way() -> None:
    cluster = load_manifest(
        HEAD + "  labels: {app: x}\n  uid: abc\n  generation: 3\nspec: {requestTimeout: 500ms}\n"
    )
    assert cluster.metadata.generation == 3
    assert cluster.spec.request_timeout_ms == 500


def test_the_quickstart_is_valid() -> None:
    path = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    assert load_manifest(path).spec.replicas == 4


def test_the_example_with_gateways_is_valid() -> None:
    spec = load_manifest(Path(__file__).parents[2] / "examples" / "gateway.yaml").spec
    assert spec.gateway is not None
    assert spec.tls is not None
