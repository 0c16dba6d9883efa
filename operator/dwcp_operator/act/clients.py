"""Keeps what clients mount up to date: the authority of the members' certificates, and epochs.

Genesis and key stand in a client's Secret for ever. Who vouches for the members' certificates may
change with the user's Secret, and who the members are with every epoch: a client that starts when
all first members are gone could not find the present ones.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dwcp.client import Client
from dwcp.errors import BadCluster
from dwcp.wire.epochs import Records
from dwcp_operator.act.api import SECRET
from dwcp_operator.act.gateway import check_given
from dwcp_operator.act.keeper import GenesisKeeper, KeeperError, client_keys
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.act.writer import Writer
from dwcp_operator.build.names import Object
from dwcp_operator.build.secrets import AUTHORITY, EPOCHS

EPOCHS_BYTES_MAX: Final = 700_000
"""A Secret holds a megabyte in all."""


async def refresh_clients(snapshot: Snapshot, keeper: GenesisKeeper, writer: Writer) -> None:
    """Bring every published client Secret up to date.

    Raises ApiError, and KeeperError when the user's Secret does not do.
    """
    if not keeper.published:
        return
    subject, wanted = snapshot.subject, client_extras(snapshot, keeper)
    for name in subject.cluster.spec.clients:
        found = snapshot.find(SECRET, subject.client_secret(name))
        patch = None if found is None else client_patch(found, wanted)
        if found is not None and patch is not None:
            await writer.merge(found, patch)


def client_extras(snapshot: Snapshot, keeper: GenesisKeeper) -> dict[str, bytes]:
    """What a client mounts besides its key and the genesis.

    Raises KeeperError when the user's Secret does not do.
    """
    subject = snapshot.subject
    wanted: dict[str, bytes] = {}
    if subject.tls_secret is not None:
        data = check_given(snapshot, subject.tls_secret, "spec.tls", (AUTHORITY,))
        wanted[AUTHORITY] = data[AUTHORITY]
    if keeper.chain is not None and keeper.chain.current.epoch > 0:
        epochs = msgspec.msgpack.encode(Records(tuple(keeper.chain.certified)))
        if len(epochs) <= EPOCHS_BYTES_MAX:
            wanted[EPOCHS] = epochs
    return wanted


def client_of(snapshot: Snapshot, keeper: GenesisKeeper, name: str) -> Client:
    """The cluster as one of its clients sees it; the caller starts and closes it.

    Raises BadCluster.
    """
    assert keeper.signed is not None, "the genesis is published"
    assert keeper.chain is not None, "kept beside the genesis"
    try:
        key = client_keys(snapshot)[name]
        found = client_extras(snapshot, keeper).get(AUTHORITY)
    except KeeperError as error:
        raise BadCluster(str(error)) from None
    try:
        text = None if found is None else found.decode("ascii")
        authority = None if text is None else ssl.create_default_context(cadata=text)
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise BadCluster(f"ca.crt for the members' certificates is damaged: {error}") from None
    records = tuple(keeper.chain.certified)
    return Client.connect(keeper.signed, key, authority=authority, records=records)


def client_patch(found: Mapping[str, Any], wanted: Mapping[str, bytes]) -> Object | None:
    """A merge patch that adds what is wanted and differs; None when there is nothing to do.

    Secrets that an earlier operator made can not be changed, and stay as they are.
    """
    held = found.get("data") or {}
    encoded = {name: base64.b64encode(value).decode() for name, value in wanted.items()}
    changed = {name: value for name, value in encoded.items() if held.get(name) != value}
    if not changed or found.get("immutable"):
        return None
    return {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "data": changed,
    }
