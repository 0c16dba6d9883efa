"""How members are reached: Services, NetworkPolicy, and their powerless account."""

from __future__ import annotations

from dwcp_operator.build.names import CLIENT_PORT, PEER_PORT, Object, Subject

_PORTS = ({"name": "client", "port": CLIENT_PORT, "targetPort": "client"},)


def members_service(subject: Subject) -> Object:
    """The headless Service: a name for each member, published before it is ready.

    Members that wait for the genesis are not ready, and must be found to become so.
    """
    ports = [*_PORTS, {"name": "peer", "port": PEER_PORT, "targetPort": "peer"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(subject.members_service),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": subject.selector,
            "ports": ports,
        },
    }


def client_service(subject: Subject) -> Object:
    """The Service in front of the members that vote."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(subject.client_service),
        "spec": {"type": "ClusterIP", "selector": subject.selector, "ports": list(_PORTS)},
    }


def network_policy(subject: Subject) -> Object:
    """Clients, probes and scrapers reach the client port; only members reach the peer port."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "podSelector": {"matchLabels": subject.selector},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"protocol": "TCP", "port": CLIENT_PORT}]},
                {
                    "from": [{"podSelector": {"matchLabels": subject.selector}}],
                    "ports": [{"protocol": "TCP", "port": PEER_PORT}],
                },
            ],
        },
    }


def account(subject: Subject) -> Object:
    """The members' ServiceAccount: without rights, and without a token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": subject.metadata(subject.account),
        "automountServiceAccountToken": False,
    }
