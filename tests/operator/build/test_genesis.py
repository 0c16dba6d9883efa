from __future__ import annotations

import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.records import (
    EpochRecord,
    Identity,
    SignedGenesis,
    check_genesis,
    genesis_signing_bytes,
)
from dwcp_operator.build import genesis, secrets
from kube.subjects import adopting, subject

ADMIN = Ed25519Signer(b"a" * 32)


def identities(names: tuple[str, ...]) -> dict[str, Identity]:
    return {
        name: Identity(name, bytes([i + 1]) * 32, bytes([i + 65]) * 32, bytes(64), bytes(32))
        for i, name in enumerate(names)
    }


def record() -> EpochRecord:
    made = subject(clients=["app"], requestTimeout="700ms", checkpointInterval=50, fastReads=True)
    return genesis.record(made, identities(made.members), {"app": b"c" * 32}, ADMIN.public_key)


def test_the_record_says_what_the_resource_says() -> None:
    made = record()
    signed = SignedGenesis(made, ADMIN.sign(genesis_signing_bytes(made)), (b"",) * 4)
    assert check_genesis(signed, Ed25519Verifier()) is None
    assert made.parameters.request_timeout_ms == 700
    assert made.parameters.checkpoint_interval == 50
    assert made.parameters.fast_reads
    assert [c.name for c in made.clients] == ["app"]
    assert made.members[2].peer == "demo-2.demo-members.shop.svc:7421"
    assert made.members[2].client == "http://demo-2.demo-members.shop.svc:7420"
    assert made.cluster_id.hex() == subject().cluster_id


def test_the_map_is_immutable_and_holds_the_bytes() -> None:
    made = genesis.genesis_map(subject(), b"signed")
    assert made["immutable"] is True
    assert secrets.data_of(made) == {genesis.RECORD: b"signed"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cluster_id": b"x" * 16}, "cluster id"),
        ({"namespace": "elsewhere"}, "elsewhere/demo"),
        ({"members": ()}, "members"),
    ],
)
def test_a_record_of_another_cluster_is_known(change: dict[str, object], word: str) -> None:
    assert genesis.not_ours(subject(), record()) is None
    other = msgspec.structs.replace(record(), **change)
    assert word in (genesis.not_ours(subject(), other) or "")


def test_an_adopting_cluster_takes_the_old_record() -> None:
    adopted = adopting(cluster_id=subject().cluster_id)
    assert genesis.not_ours(adopted, record()) is None


def test_members_are_reached_as_the_resource_says_from_their_record_on() -> None:
    made = subject(tls={})
    clients = {"default": b"c" * 32}
    found = genesis.record(made, identities(made.members), clients, ADMIN.public_key)
    assert found.members[2].client == "https://demo-2.demo-members.shop.svc:7420"
    assert made.url("[::1]") == "https://[::1]:7420"
