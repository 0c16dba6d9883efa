"""A proof is checked from its own bytes and the genesis record; no replica's word counts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from dwcp.cli.evidence import evidence
from dwcp.epochs import records_file, sign_anchor
from dwcp.identity import Ed25519Signer
from dwcp.wire.epochs import CertifiedRecord, slot_signing_bytes
from dwcp.wire.peer import Equivocation, Header, VoteSig
from dwcp.wire.records import (
    EpochRecord,
    Member,
    Parameters,
    SignedGenesis,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import digest

ADMIN = Ed25519Signer(bytes([9]) * 32)
SIGNERS = [Ed25519Signer(bytes([i]) * 32) for i in range(4)]
GENESIS = EpochRecord(
    cluster_id=bytes(16),
    cluster="court",
    namespace="default",
    epoch=0,
    protocol="pbft",
    trust="Byzantine",
    members=tuple(
        Member(f"court-{i}", s.public_key, s.public_key, "127.0.0.1:1", "http://127.0.0.1:9")
        for i, s in enumerate(SIGNERS)
    ),
    clients=(),
    admin=ADMIN.public_key,
    parameters=Parameters(),
    start_index=0,
    start_hash=start_hash(bytes(16)),
    leader=0,
)


def header(batch: str, signer: Ed25519Signer) -> Header:
    unsigned = Header(0, 1, 1, digest(batch), GENESIS.start_hash, bytes(64))
    sig = signer.sign(unsigned.signing_bytes(scope_of(GENESIS, GENESIS)))
    return msgspec.structs.replace(unsigned, sig=sig)


def run(folder: Path, proofs: object, *arguments: str) -> Result:
    signed = SignedGenesis(GENESIS, bytes(64), (b"",) * 4)
    (folder / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(signed))
    (folder / "proofs.json").write_text(json.dumps({"proofs": proofs}))
    file = str(folder / "proofs.json")
    return CliRunner().invoke(evidence, ["--data", str(folder), "verify", file, *arguments])


def shown(proof: Equivocation, member: str) -> dict[str, str]:
    return {"member": member, "proof": base64.b64encode(msgspec.msgpack.encode(proof)).decode()}


def test_a_proof_holds_without_any_cluster(tmp_path: Path) -> None:
    proof = Equivocation(header("a", SIGNERS[0]), header("b", SIGNERS[0]))
    result = run(tmp_path, [shown(proof, "court-0")])
    assert result.exit_code == 0, result.output
    assert result.output == "court-0: equivocation in epoch 0, view 1 at index 1; verified\n"
    as_json = json.loads(run(tmp_path, [shown(proof, "court-0")], "-o", "json").output)
    assert as_json[0]["member"] == "court-0"


@pytest.mark.parametrize(
    "proofs",
    [
        [shown(Equivocation(header("a", SIGNERS[0]), header("b", SIGNERS[1])), "court-0")],
        [shown(Equivocation(header("a", SIGNERS[0]), header("a", SIGNERS[0])), "court-0")],
        [shown(Equivocation(header("a", SIGNERS[0]), header("b", SIGNERS[0])), "court-1")],
        [{"member": "court-0", "proof": "AAAA"}],
        [{"member": "court-0", "proof": "not base64"}],
        [],
        "nonsense",
    ],
    ids=["forged", "no-contradiction", "another-member", "garbage", "text", "none", "no-list"],
)
def test_what_proves_nothing_is_refused(tmp_path: Path, proofs: object) -> None:
    result = run(tmp_path, proofs)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def successor(previous: EpochRecord, leader: int) -> CertifiedRecord:
    """The next record, decided by three of the four members."""
    record = msgspec.structs.replace(
        previous, epoch=previous.epoch + 1, previous=previous.hash(), leader=leader
    )
    scope = scope_of(GENESIS, previous)
    signed = slot_signing_bytes(scope, "slot-commit", previous.epoch, 0, record.hash())
    votes = tuple(VoteSig(i, SIGNERS[i].sign(signed)) for i in range(3))
    return CertifiedRecord(record, 0, votes)


def later_lie(record: EpochRecord, by: int) -> Equivocation:
    """Two entries for one place, signed under a later record."""
    unsigned = [
        Header(record.epoch, 1, 1, digest(batch), record.start_hash, bytes(64)) for batch in "ab"
    ]
    one, other = (
        msgspec.structs.replace(h, sig=SIGNERS[by].sign(h.signing_bytes(scope_of(GENESIS, record))))
        for h in unsigned
    )
    return Equivocation(one, other)


def later(
    folder: Path, certified: CertifiedRecord, *arguments: str, stored: bool = False
) -> Result:
    """Verify a lie of court-2 in that record's epoch; the record stands in one of two files."""
    told: dict[str, object] = {"proofs": [shown(later_lie(certified.record, 2), "court-2")]}
    encoded = records_file([certified])
    if stored:
        (folder / "epochs.msgpack").write_bytes(encoded)
    else:
        told["records"] = base64.b64encode(encoded).decode()
    signed = SignedGenesis(GENESIS, bytes(64), (b"",) * 4)
    (folder / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(signed))
    (folder / "proofs.json").write_text(json.dumps(told))
    file = str(folder / "proofs.json")
    return CliRunner().invoke(evidence, ["--data", str(folder), "verify", file, *arguments])


@pytest.mark.parametrize("stored", [False, True], ids=["in-the-file", "in-the-directory"])
def test_a_proof_of_a_later_epoch_holds_under_that_epochs_record(
    tmp_path: Path, stored: bool
) -> None:
    certified = successor(GENESIS, 2)
    result = later(tmp_path, certified, stored=stored)
    assert result.exit_code == 0, result.output
    assert result.stdout == "court-2: equivocation in epoch 1, view 1 at index 1; verified\n"
    assert "pass an anchor" in result.stderr
    anchor = sign_anchor(GENESIS, certified.record, ADMIN)
    (tmp_path / "anchor.json").write_bytes(msgspec.json.encode(anchor))
    result = later(tmp_path, certified, "--anchor", str(tmp_path / "anchor.json"), stored=stored)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_proof_that_rests_on_false_records_is_refused(tmp_path: Path) -> None:
    """Nobody is convicted by records that a quorum did not decide, or the admin did not see."""
    certified = successor(GENESIS, 2)
    forged = msgspec.structs.replace(certified, votes=certified.votes[:2])
    result = later(tmp_path, forged)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "fewer than a quorum" in result.stderr
    anchor = sign_anchor(GENESIS, successor(GENESIS, 1).record, ADMIN)
    (tmp_path / "anchor.json").write_bytes(msgspec.json.encode(anchor))
    result = later(tmp_path, certified, "--anchor", str(tmp_path / "anchor.json"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not the one that the admin signed" in result.stderr


def test_a_proof_of_an_unknown_epoch_convicts_nobody(tmp_path: Path) -> None:
    proof = later_lie(successor(GENESIS, 2).record, 2)
    result = run(tmp_path, [shown(proof, "court-2")])
    assert result.exit_code == 1
    assert "does not convict court-2" in result.stderr


def test_a_missing_genesis_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(evidence, ["--data", str(tmp_path)])
    assert result.exit_code == 3
    assert "--data" in result.output
