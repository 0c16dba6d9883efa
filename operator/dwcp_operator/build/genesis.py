"""The genesis record of a cluster on Kubernetes, and the ConfigMap that keeps it."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Identity,
    Member,
    Origin,
    Parameters,
    start_hash,
)
from dwcp.wire.signing import ZERO_HASH
from dwcp_operator import rules
from dwcp_operator.build.names import PEER_PORT, Object, Subject

RECORD = "record.msgpack"


def record(
    subject: Subject,
    identities: Mapping[str, Identity],
    clients: Mapping[str, bytes],
    admin: bytes,
    origin: Origin | None = None,
) -> EpochRecord:
    """The record that begins the cluster, from the members' verified identities by name.

    `clients` are public keys by client name, `admin` is the admin's public key. `origin`:
    where the cluster's first state comes from.
    """
    spec, cluster_id = subject.cluster.spec, bytes.fromhex(subject.cluster_id)
    members = tuple(
        Member(
            name=name,
            identity=identities[name].identity,
            certificate=identities[name].certificate,
            peer=f"{subject.host(name)}:{PEER_PORT}",
            client=subject.client_url(name),
        )
        for name in subject.members
    )
    return EpochRecord(
        cluster_id=cluster_id,
        cluster=subject.name,
        namespace=subject.namespace,
        epoch=0,
        protocol=rules.PROTOCOL_OF[spec.mode],
        trust=spec.trust,
        members=members,
        clients=tuple(ClientIdentity(name, clients[name]) for name in spec.clients),
        admin=admin,
        parameters=Parameters(
            checkpoint_interval=spec.checkpoint_interval,
            request_timeout_ms=spec.request_timeout_ms,
            fast_reads=spec.fast_reads,
            modes=spec.modes.policy(spec.mode),
        ),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
        previous=ZERO_HASH if origin is None else origin.hash(),
    )


def not_ours(subject: Subject, found: EpochRecord) -> str | None:
    """Why a genesis record is not this cluster's, as a clause; None when it is."""
    if found.cluster_id.hex() != subject.cluster_id:
        return f"it is of cluster id {found.cluster_id.hex()}, not {subject.cluster_id}"
    if (found.cluster, found.namespace) != (subject.name, subject.namespace):
        return f"it is of {found.namespace}/{found.cluster}"
    if not found.members or any(not m.name.startswith(f"{subject.name}-") for m in found.members):
        return "its members are others"
    return None


def genesis_map(subject: Subject, signed: bytes) -> Object:
    """The immutable ConfigMap with the record and the admin's signature.

    It is created, never updated: the API server lets exactly one creation succeed.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": subject.metadata(subject.genesis_map),
        "immutable": True,
        "binaryData": {RECORD: base64.b64encode(signed).decode()},
    }
