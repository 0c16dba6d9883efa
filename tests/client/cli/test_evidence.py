"""A proof is checked from its own bytes and the genesis record; no replica's word counts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from dwcp.cli.evidence import evidence
from dwcp.identity import Ed25519Signer
from dwcp.wire.peer import Equivocation, Header
from dwcp.wire.records import (
    EpochRecord,
    Member,
    Parameters,
    SignedGenesis,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import digest

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
    admin=bytes(32),
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
    assert result.output == "court-0: equivocation in view 1 at index 1; verified\n"
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


def test_a_missing_genesis_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(evidence, ["--data", str(tmp_path)])
    assert result.exit_code == 3
    assert "--data" in result.output
