"""Access from the resource on real Kubernetes: TLS, gateways, and what clients may do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kube.conftest import Make
from kube.product import Cluster, client_pod
from sandbox.cluster import Sandbox
from sandbox.shell import CommandError

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

CALL = """
import sys, grpc
from dwcp.gateway.proto import rpc_pb2 as pb
pems = [open(f"/etc/user/{name}", "rb").read() for name in ("ca.crt", "tls.key", "tls.crt")]
trust = grpc.ssl_channel_credentials(*pems) if sys.argv[2] == "known" else (
    grpc.ssl_channel_credentials(pems[0]))
with grpc.secure_channel(sys.argv[1], trust) as channel:
    def call(method, request, answer):
        found = channel.unary_unary("/etcdserverpb.KV/" + method)(
            request.SerializeToString(), timeout=10, wait_for_ready=sys.argv[2] == "known")
        return answer.FromString(found)
    try:
        if len(sys.argv) > 4:
            call("Put", pb.PutRequest(key=sys.argv[3].encode(), value=sys.argv[4].encode()),
                 pb.PutResponse)
        found = call("Range", pb.RangeRequest(key=sys.argv[3].encode()), pb.RangeResponse)
        print(*(kv.value.decode() for kv in found.kvs))
    except grpc.RpcError as error:
        print(error.code().name)
"""


@pytest.fixture(scope="module")
def cluster(make: Make, image: str) -> Cluster:
    made = make(
        "guarded",
        tls={},
        clients=["default", "web"],
        access=[{"client": "web", "read": ["web/"], "write": ["web/"]}],
        gateway={"client": "web"},
    )
    made.wait_available(60)
    pod = client_pod(made.namespace, made.name, image)
    pod["spec"]["volumes"] += [
        {"name": "user", "secret": {"secretName": f"{made.name}-gateway-client"}},
    ]
    pod["spec"]["containers"][0]["volumeMounts"] += [
        {"name": "user", "mountPath": "/etc/user", "readOnly": True}
    ]
    made.sandbox.apply(pod)
    made.sandbox.wait(f"pod/{made.name}-app", "--for=condition=Ready", made.where, timeout_s=60)
    return made


def user(cluster: Cluster, key: str, *value: str, kind: str = "known") -> str:
    """Write if there is a value, and read, as etcdctl does: through the gateways' Service."""
    where = f"guarded-gateway.{cluster.namespace}.svc:2389"
    return cluster.sandbox.kubectl(
        "exec", f"{cluster.name}-app", cluster.where, "--", "python", "-c", CALL, where, kind, key,
        *value, timeout_s=40,
    ).strip()  # fmt: skip


def test_members_speak_tls_and_a_client_pins_their_certificates(cluster: Cluster) -> None:
    cluster.put("colour", "blue")
    assert cluster.get("colour") == "blue"
    status = cluster.status()
    assert all(m["endpoint"].startswith("https://") for m in status["members"])


def test_users_of_the_gateway_may_what_its_client_may(cluster: Cluster) -> None:
    def missing() -> str:
        status = cluster.status()
        rights = {one["client"]: one["rights"] for one in status.get("access", [])}
        if rights != {"default": "everything", "web": "read and write web/*"}:
            return f"rights applied: {rights}"
        gateway = status.get("gateway", {})
        return "" if gateway.get("ready") == 2 else f"two gateways: {gateway}"

    cluster.sandbox.wait_until(missing, 40)
    assert user(cluster, "web/a", "1") == "1"
    assert user(cluster, "colour") == "PERMISSION_DENIED"
    assert user(cluster, "web/a", kind="stranger") == "UNAVAILABLE"


def test_strategies_of_documents_are_brought_into_the_log(cluster: Cluster) -> None:
    wanted = {"documents": {"strategies": [{"prefix": "plans/", "strategy": "Manual"}]}}
    words = ("patch", f"dwcpcluster/{cluster.name}", cluster.where, "--type=merge")
    cluster.sandbox.kubectl(*words, f"--patch={json.dumps({'spec': wanted})}")

    def missing() -> str:
        found = cluster.dwcp("doc", "strategies")
        return "" if '"Manual"' in found else f"the strategy in the log: {found!r}"

    cluster.sandbox.wait_until(missing, 30)


def test_a_right_that_is_taken_away_and_gateways_that_are_no_longer_asked_for(
    cluster: Cluster, sandbox: Sandbox
) -> None:
    def patch(**spec: Any) -> None:
        words = ("patch", f"dwcpcluster/{cluster.name}", cluster.where, "--type=merge")
        sandbox.kubectl(*words, f"--patch={json.dumps({'spec': spec})}")

    patch(access=[{"client": "web", "read": ["web/"]}])

    def still() -> str:
        found = user(cluster, "web/a", "2")
        return "" if found == "PERMISSION_DENIED" else f"the right to be gone: {found}"

    sandbox.wait_until(still, 30)
    assert user(cluster, "web/a") == "1"
    secret = sandbox.get("secret", "guarded-gateway-tls", cluster.where)
    assert b"BEGIN CERTIFICATE" in base64.b64decode(secret["data"]["tls.crt"])
    patch(gateway=None)

    def left() -> str:
        kinds = "deployment,service,secret,poddisruptionbudget"
        items = sandbox.get(kinds, cluster.where)["items"]
        names = [one["metadata"]["name"] for one in items]
        remaining = [name for name in names if name.startswith("guarded-gateway")]
        return f"the end of {remaining}" if remaining else ""

    sandbox.wait_until(left, 30)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"gateway": {"anonymous": True}}, "lets in anybody as a client that may write"),
        ({"access": [{"client": "nobody"}]}, "names a client that spec.clients does not"),
        ({"access": [{"client": "default"}]}, "leaves no client that may administer"),
        ({"gateway": {"client": "nobody"}}, "names a client that spec.clients does not"),
    ],
    ids=str,
)
def test_what_does_not_do_is_refused_by_the_api_server(
    make: Make, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        make("refused", **spec)
