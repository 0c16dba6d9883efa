from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.records import (
    Identity,
    SignedGenesis,
    check_genesis,
    genesis_signing_bytes,
    is_complete,
)
from dwcp_operator.local.errors import GenesisConflictError
from dwcp_operator.local.genesis import GenesisKeeper
from dwcp_operator.local.layout import Layout, open_layout, prepare
from dwcp_operator.manifest import load_manifest

MANIFEST = load_manifest(
    "apiVersion: dwcp.dev/v1alpha1\nkind: DWCPCluster\nmetadata: {name: demo}\n"
    "spec: {clients: [app, batch], requestTimeout: 700ms, checkpointInterval: 50, "
    "fastReads: true}\n"
)
SIGNERS = {f"demo-{i}": Ed25519Signer(bytes([i + 1]) * 32) for i in range(4)}


def identity_of(name: str) -> Identity:
    return Identity(
        name=name,
        identity=SIGNERS[name].public_key,
        certificate=name.encode().ljust(32, b"c"),
        proof=bytes(64),
        mac=bytes(32),
    )


IDENTITIES = {name: identity_of(name) for name in SIGNERS}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout, lock = prepare(tmp_path / "d", MANIFEST)
    lock.release()
    return layout


def keeper(layout: Layout) -> GenesisKeeper:
    return GenesisKeeper(*open_layout(layout.root))


def signed_by(genesis: SignedGenesis, *names: str) -> SignedGenesis:
    members = genesis.record.members
    message = genesis_signing_bytes(genesis.record)
    sigs = tuple(SIGNERS[m.name].sign(message) if m.name in names else b"" for m in members)
    return msgspec.structs.replace(genesis, member_sigs=sigs)


def test_keys_are_made_once_and_only_for_their_owner(layout: Layout) -> None:
    first = keeper(layout)
    assert not first.keys_exist()
    first.ensure_keys()
    assert first.keys_exist()
    paths = [layout.admin_key, layout.client_key(0, "app"), layout.client_key(1, "batch")]
    paths += [layout.token(name) for name in SIGNERS]
    before = [p.read_bytes() for p in paths]
    assert len(set(before)) == len(before)
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in paths)
    keeper(layout).ensure_keys()
    assert [p.read_bytes() for p in paths] == before
    assert layout.client_key(0, "app").name == "client.key"


def test_the_record_says_what_the_manifest_says(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    assert kept.signed is not None
    record = kept.signed.record
    assert check_genesis(kept.signed, Ed25519Verifier()) is None
    assert [c.name for c in record.clients] == ["app", "batch"]
    assert record.clients[0].key == Ed25519Signer.load(layout.root / "client.key").public_key
    assert record.parameters.request_timeout_ms == 700
    assert record.parameters.checkpoint_interval == 50
    assert record.parameters.fast_reads
    assert record.members[2].client.startswith("https://127.0.0.1:")


def test_a_second_genesis_is_refused(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    other = keeper(layout)
    kept.create(IDENTITIES)
    before = layout.record.read_bytes()
    with pytest.raises(GenesisConflictError, match="made once"):
        other.create(IDENTITIES)
    assert layout.record.read_bytes() == before


def test_signatures_are_collected_then_published(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    assert kept.signed is not None
    for name in SIGNERS:
        held = kept.held()
        assert held is not None
        assert not held.complete
        kept.collect(signed_by(kept.signed, name))
    held = kept.held()
    assert held is not None
    assert held.complete
    assert not held.published
    assert not layout.genesis.exists(), "clients find only the complete one"
    kept.publish()
    published = msgspec.msgpack.decode(layout.genesis.read_bytes(), type=SignedGenesis)
    assert is_complete(published)
    again = keeper(layout).held()
    assert again is not None
    assert again.published
    assert again.hash == held.hash


def test_a_restart_before_the_signatures_keeps_the_record(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    before, after = kept.held(), keeper(layout).held()
    assert before is not None
    assert after is not None
    assert after.hash == before.hash
    assert after.signed == frozenset()


def test_a_lost_record_is_taken_over_from_a_member(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    assert kept.signed is not None
    shown = signed_by(kept.signed, "demo-1")
    layout.record.unlink()
    fresh = keeper(layout)
    assert fresh.held() is None
    fresh.adopt(shown)
    held = fresh.held()
    assert held is not None
    assert held.signed == {"demo-1"}


def test_a_genesis_of_another_admin_is_not_taken_over(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    assert kept.signed is not None
    shown = kept.signed
    layout.record.unlink()
    layout.admin_key.unlink()
    fresh = keeper(layout)
    fresh.ensure_keys()
    with pytest.raises(GenesisConflictError, match="another admin"):
        fresh.adopt(shown)
    assert not layout.record.exists()


def test_damage_and_foreign_files_are_said(layout: Layout) -> None:
    kept = keeper(layout)
    kept.ensure_keys()
    kept.create(IDENTITIES)
    data = layout.record.read_bytes()
    layout.record.write_bytes(data[:50])
    with pytest.raises(GenesisConflictError, match="is damaged"):
        keeper(layout)
    layout.record.write_bytes(data[:-20] + bytes(20))
    with pytest.raises(GenesisConflictError, match="restore it"):
        keeper(layout)
