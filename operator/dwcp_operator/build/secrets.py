"""Secrets: keys that are made once, one-time tokens, and what clients mount."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from dwcp_operator.build.names import Object, Subject

ADMIN_KEY = "admin.key"
TOKEN = "token"  # noqa: S105 - the name of a key
CLIENT_KEY = "client.key"
GENESIS = "genesis.msgpack"
EPOCHS = "epochs.msgpack"
AUTHORITY = "ca.crt"
CERTIFICATE = "tls.crt"
PRIVATE_KEY = "tls.key"


def _secret(
    metadata: Object, data: Mapping[str, bytes], *, immutable: bool, kind: str = "Opaque"
) -> Object:
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": kind,
        "immutable": immutable,
        "data": encoded,
    }


def data_of(found: Mapping[str, Any]) -> dict[str, bytes]:
    """The decoded data of a Secret, or the binary data of a ConfigMap."""
    encoded = found.get("data" if found["kind"] == "Secret" else "binaryData") or {}
    return {name: base64.b64decode(value) for name, value in encoded.items()}


def key_text(seed: bytes) -> bytes:
    """A private key as key files hold it: hex digits and a line end."""
    return seed.hex().encode() + b"\n"


def admin(subject: Subject, seed: bytes) -> Object:
    """The admin's key: kept as long as the volumes are, since it names their cluster."""
    metadata = subject.reclaimed_metadata(subject.admin_secret)
    return _secret(metadata, {ADMIN_KEY: key_text(seed)}, immutable=True)


def client_keys(subject: Subject, seeds: Mapping[str, bytes]) -> Object:
    """The clients' keys by name: kept as long as the volumes, which nobody else can write to."""
    metadata = subject.reclaimed_metadata(subject.client_keys_secret)
    data = {f"{name}.key": key_text(seed) for name, seed in seeds.items()}
    return _secret(metadata, data, immutable=True)


def token(subject: Subject, member: str, value: str) -> Object:
    """A member's one-time token: ties the key it shows to the Pod that was given this Secret."""
    metadata = subject.metadata(subject.token_secret(member), member)
    return _secret(metadata, {TOKEN: value.encode()}, immutable=True)


def client(subject: Subject, name: str, files: Mapping[str, bytes]) -> Object:
    """What a client's pod mounts and names with `--data`: its key, the genesis, and what helps.

    Later epochs and an authority may be added to it.
    """
    metadata = subject.metadata(subject.client_secret(name))
    return _secret(metadata, files, immutable=False)


def authority(subject: Subject, name: str, data: Mapping[str, bytes]) -> Object:
    """The key and certificates of the operator's own authority."""
    return _secret(subject.metadata(name), data, immutable=False)


def certificate(subject: Subject, name: str, data: Mapping[str, bytes]) -> Object:
    """A certificate with its key and authority, in the shape of cert-manager."""
    return _secret(subject.metadata(name), data, immutable=False, kind="kubernetes.io/tls")
