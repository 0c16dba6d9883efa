"""Who reaches a cluster and what they may do there, as fields of the resource."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from dwcp_operator.fields import EMPTY, Label, Model
from dwcp_operator.pods import Resources

PREFIXES_MAX: Final = 64
PREFIX_LENGTH_MAX: Final = 512
GATEWAY_REPLICAS_MAX: Final = 32

NO_ADMIN: Final = (
    "leaves no client that may administer: let one without an entry, or give one admin: true"
)
NO_CLIENT: Final = "names a client that spec.clients does not: name one of those"
TWICE: Final = "names a client twice: write one entry for each"
NO_READER: Final = (
    "lets in anybody as a client that may write: name a client in spec.gateway.client whose entry "
    "in spec.access has neither write nor admin"
)

SecretName = Annotated[str, Field(min_length=1, max_length=253)]
Prefix = Annotated[str, Field(max_length=PREFIX_LENGTH_MAX)]
Prefixes = Annotated[tuple[Prefix, ...], Field(strict=False, max_length=PREFIXES_MAX)]


class Tls(Model):
    """TLS on a port."""

    secret_name: SecretName | None = None
    """A Secret with tls.crt, tls.key and ca.crt, as cert-manager makes them; it may be renewed at
    any time. Absent, certificates are made here."""


class ClientAccess(Model):
    """What one client may do. A client without an entry may do everything."""

    client: Label
    """Its name in spec.clients."""
    admin: bool = False
    """Compaction, alarms, backups, and what clients may do."""
    read: Prefixes = ()
    """Prefixes of the keys that it may read; an empty one stands for all keys."""
    write: Prefixes = ()
    """Prefixes of the keys that it may write; writing does not let it read."""


class Gateway(Model):
    """Gateways that speak etcd's API, as a Deployment with a Service. Unused locally."""

    replicas: Annotated[
        int, Field(ge=1, le=GATEWAY_REPLICAS_MAX, json_schema_extra={"format": "int32"})
    ] = 2
    """How many run. When one is lost, its users' watches go on at another."""
    client: Label | None = None
    """The client in whose name they ask: its rights are those of their users. The first of
    spec.clients when absent."""
    anonymous: bool = False
    """Let in anybody. Only for a client that may neither write nor administer; otherwise users show
    a certificate that ca.crt vouches for, such as that in the Secret NAME-gateway-client."""
    tls: Tls = Field(default_factory=Tls, json_schema_extra=EMPTY)
    """What the gateways show their users. Without secretName the operator is the authority, makes
    the certificates, and renews them 30 days before their end."""
    resources: Resources = Field(default_factory=Resources, json_schema_extra=EMPTY)
    """Compute resources of each gateway."""


def access_problem(clients: Sequence[str], access: Sequence[ClientAccess] | None) -> str | None:
    """Why spec.access does not do, or None."""
    entries = {entry.client: entry for entry in access or ()}
    if len(entries) < len(access or ()):
        return TWICE
    if not entries.keys() <= set(clients):
        return NO_CLIENT
    if all(name in entries and not entries[name].admin for name in clients):
        return NO_ADMIN
    return None


def gateway_problem(
    clients: Sequence[str], access: Sequence[ClientAccess] | None, gateway: Gateway | None
) -> str | None:
    """Why spec.gateway does not do, or None."""
    if gateway is None:
        return None
    if gateway.client is not None and gateway.client not in clients:
        return NO_CLIENT
    entry = next((e for e in access or () if e.client == gateway.client), None)
    if gateway.anonymous and (entry is None or entry.admin or entry.write):
        return NO_READER
    return None


class AccessStatus(Model):
    """What one client may do, as the members hold it."""

    client: str
    """Its name."""
    rights: str
    """Names what it may do: "everything", or a digest of its entry in spec.access."""
    index: int
    """The log entry with which this was set, or first seen to be so: from there on it holds."""


class GatewayStatus(Model):
    """The gateways that run."""

    endpoint: str
    """Where users reach them over gRPC."""
    replicas: int = 0
    """How many there are."""
    ready: int = 0
    """How many answer."""
