"""The command lines of etcd, the API server, controller manager, scheduler and kube-proxy.

Stock settings, but for what a test wants sooner or does not need: no leader election, no fsync in
etcd (nothing here survives `down` anyway), and a lost node is noticed after 16 s, not 50.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sandbox.layout import API_PORT, CONTROL_ADDRESS, POD_NETWORK, SERVICE_NETWORK, Layout
from sandbox.pki import FRONT_PROXY
from sandbox.shell import write_file

NODE_LOST_AFTER = "16s"
ISSUER = "https://kubernetes.default.svc"
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


def etcd(layout: Layout) -> list[str]:
    """etcd with one member, reached only from inside the namespace."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "etcd",
        f"--data-dir={layout.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(layout: Layout) -> list[str]:
    """The API server with RBAC, the Node authorizer and the default admission plugins."""
    pki = layout.pki
    return [
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--advertise-address={CONTROL_ADDRESS}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
        *_aggregation_flags(pki),
        "--profiling=false",
    ]


def _aggregation_flags(pki: Path) -> list[str]:
    """Let extension API servers (a metrics server, say) trust what this one passes on."""
    return [
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]


def controller_manager(layout: Layout) -> list[str]:
    """The controllers, each with the rights of its own service account."""
    pki = layout.pki
    return [
        "kube-controller-manager",
        *_client_flags(pki / "controller-manager.kubeconfig"),
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        f"--node-monitor-grace-period={NODE_LOST_AFTER}",
        "--node-monitor-period=2s",
        f"--cert-dir={layout.state / 'serving' / 'controller-manager'}",
    ]


def scheduler(layout: Layout) -> list[str]:
    """The scheduler."""
    serving = layout.state / "serving" / "scheduler"
    return [
        "kube-scheduler",
        *_client_flags(layout.pki / "scheduler.kubeconfig"),
        f"--cert-dir={serving}",
    ]


def _client_flags(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        # Stock limits (20 a second) would make the controllers take seconds to start.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]


def proxy_config(layout: Layout) -> dict[str, Any]:
    """One kube-proxy serves all nodes, since they share the namespace and so its rules.

    The zeros leave the kernel's connection tracking limits as they are.
    """
    limits = {"maxPerCore": 0, "min": 0}
    timeouts = {"tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": str(POD_NETWORK),
        "hostnameOverride": layout.node(1).name,
        "clientConnection": {"kubeconfig": str(layout.pki / "proxy.kubeconfig")},
        "bindAddress": CONTROL_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {**limits, **timeouts},
        "iptables": {"minSyncPeriod": "100ms"},
    }


def proxy(layout: Layout) -> list[str]:
    """kube-proxy; writes its configuration file."""
    path = layout.state / "kube-proxy.json"
    write_file(path, json.dumps(proxy_config(layout), indent=1))
    return ["kube-proxy", f"--config={path}"]


COMMANDS = {
    "etcd": etcd,
    "kube-apiserver": api_server,
    "kube-controller-manager": controller_manager,
    "kube-scheduler": scheduler,
    "kube-proxy": proxy,
}
