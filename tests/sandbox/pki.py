"""Certificates and kubeconfigs: one authority, a client certificate for every component.

Each component gets the identity it has in a stock cluster (`system:kube-scheduler`,
`system:node:NAME`, ...), so that the Node authorizer and RBAC are as real as there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.layout import (
    API_SERVER,
    API_SERVICE_ADDRESS,
    CONTROL_ADDRESS,
    DNS_DOMAIN,
    Layout,
    Node,
)
from sandbox.shell import run, write_file

DAYS = "3650"
FRONT_PROXY = "front-proxy-client"  # the name that extension API servers trust
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
SIGN = ("openssl", "req", "-x509", "-config", "/dev/stdin", *NEW_KEY, "-days", DAYS)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate to be issued: file name, subject, and the names it may serve as."""

    file: str
    common_name: str
    organization: str = ""
    serves: tuple[str, ...] = ()

    def openssl_config(self) -> str:
        """The configuration text for `openssl req -x509`."""
        subject = [f"O={self.organization}"] if self.organization else []
        usages = "serverAuth,clientAuth" if self.serves else "clientAuth"
        lines = ["[req]", "prompt=no", "distinguished_name=dn", "x509_extensions=ext", "[dn]"]
        lines += [*subject, f"CN={self.common_name}", "[ext]", "basicConstraints=critical,CA:FALSE"]
        lines += ["keyUsage=critical,digitalSignature", f"extendedKeyUsage={usages}"]
        if self.serves:
            lines.append(f"subjectAltName={','.join(self.serves)}")
        return "\n".join(lines) + "\n"


def control_plane_certificates() -> list[Certificate]:
    """What the API server shows, and what the components show to it."""
    service = "kubernetes.default.svc"
    names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.{DNS_DOMAIN}")
    addresses = ("127.0.0.1", CONTROL_ADDRESS, API_SERVICE_ADDRESS)
    serves = (*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses))
    return [
        Certificate("apiserver", "kube-apiserver", serves=serves),
        Certificate("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Certificate("front-proxy", FRONT_PROXY),
        Certificate("admin", "sandbox-admin", "system:masters"),
        Certificate("controller-manager", "system:kube-controller-manager"),
        Certificate("scheduler", "system:kube-scheduler"),
        Certificate("proxy", "system:kube-proxy"),
    ]


def node_certificate(node: Node) -> Certificate:
    """A kubelet's certificate: it serves at the node's address and is a client as well."""
    serves = (f"DNS:{node.name}", f"IP:{node.address}")
    return Certificate(node.name, f"system:node:{node.name}", "system:nodes", serves)


def kubeconfig(authority: bytes, user: dict[str, str]) -> str:
    """A kubeconfig (JSON is YAML) for the sandbox's API server; `user` holds the credentials."""
    cluster = {"server": API_SERVER, "certificate-authority-data": _base64(authority)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "user"}}],
        "current-context": "sandbox",
    }
    return json.dumps(document, indent=1) + "\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def create(layout: Layout, nodes: Sequence[Node]) -> None:
    """Issue what is missing: the authority, all certificates, kubeconfigs, the token key."""
    pki = layout.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    if not (pki / "ca.crt").exists():
        _create_authority(pki)
    if not (pki / "service-accounts.key").exists():
        key = pki / "service-accounts.key"
        run(["openssl", "genpkey", "-algorithm", "RSA", "-out", key])
    for certificate in [*control_plane_certificates(), *map(node_certificate, nodes)]:
        if not (pki / f"{certificate.file}.kubeconfig").exists():
            _issue(pki, certificate)


def _create_authority(pki: Path) -> None:
    config = "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\nCN=sandbox\n"
    config += "[ext]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
    config += "subjectKeyIdentifier=hash\n"
    run([*SIGN, "-keyout", pki / "ca.key", "-out", pki / "ca.crt"], stdin=config)


def _issue(pki: Path, certificate: Certificate) -> None:
    key, crt = pki / f"{certificate.file}.key", pki / f"{certificate.file}.crt"
    signer: list[str | Path] = ["-CA", pki / "ca.crt", "-CAkey", pki / "ca.key"]
    run([*SIGN, *signer, "-keyout", key, "-out", crt], stdin=certificate.openssl_config())
    user = {
        "client-certificate-data": _base64(crt.read_bytes()),
        "client-key-data": _base64(key.read_bytes()),
    }
    text = kubeconfig((pki / "ca.crt").read_bytes(), user)
    write_file(pki / f"{certificate.file}.kubeconfig", text, mode=0o600)


def token_kubeconfig(layout: Layout, token: str) -> str:
    """A kubeconfig whose user is the holder of `token`."""
    return kubeconfig((layout.pki / "ca.crt").read_bytes(), {"token": token})
