from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from dwcp.identity import Ed25519Signer
from dwcp.wire.records import SignedGenesis
from dwcp_replica.durable import (
    DataDirectory,
    DirectoryLocked,
    ForeignDirectory,
    GenesisConflict,
    LostIdentity,
    MissingDirectory,
)
from replica.store.driver import make_genesis

SIGNATURE = b"s" * 64
OTHER = b"t" * 64


def open_directory(path: Path, name: str = "demo-0", cluster: str = "demo") -> DataDirectory:
    return DataDirectory.open(path, name=name, cluster=cluster)


def make(path: Path) -> None:
    open_directory(path).close()


def test_first_start_makes_keys_and_later_starts_find_them(tmp_path: Path) -> None:
    first = open_directory(tmp_path)
    key, fingerprint = first.signer.public_key, first.certificate_fingerprint
    first.close()
    second = open_directory(tmp_path)
    assert (second.signer.public_key, second.certificate_fingerprint) == (key, fingerprint)
    assert second.genesis is None
    second.close()
    for name in ("identity.key", "tls.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_certificate(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    pem = directory.tls_certificate_path.read_text()
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certificate.subject.rfc4514_string() == "CN=demo-0"
    assert certificate.subject == certificate.issuer
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days >= 36500
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert directory.certificate_fingerprint == hashlib.sha256(der).digest()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory.tls_certificate_path, directory.tls_key_path)
    directory.close()


def test_a_second_process_is_refused_and_counted(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from dwcp_replica.durable import DataDirectory, DirectoryLocked\n"
        "try: DataDirectory.open(Path(sys.argv[1]), name='demo-0', cluster='demo')\n"
        "except DirectoryLocked as e: print(e.pid)"
    )
    for count in (1, 2):
        shown = subprocess.check_output(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            text=True,
            timeout=60,
        )
        assert shown.strip() == str(os.getpid())
        assert directory.refusals() == count
    with pytest.raises(DirectoryLocked, match=f"process {os.getpid()}"):
        open_directory(tmp_path)
    directory.close()
    again = open_directory(tmp_path)
    assert again.refusals() == 0
    again.close()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from dwcp_replica.durable import DataDirectory\n"
        "d = DataDirectory.open(Path(sys.argv[1]), name='demo-0', cluster='demo')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=False, timeout=60)
    assert (tmp_path / "member.json").exists()
    make(tmp_path)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(MissingDirectory, match="mount the member's volume"):
        open_directory(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ForeignDirectory, match="photos"):
        open_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_fresh_volume_may_hold_lost_and_found(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    make(tmp_path)


@pytest.mark.parametrize(("name", "cluster"), [("demo-1", "demo"), ("demo-0", "other")])
def test_another_members_directory(tmp_path: Path, name: str, cluster: str) -> None:
    make(tmp_path)
    with pytest.raises(ForeignDirectory, match="belongs to member demo-0 of cluster demo"):
        open_directory(tmp_path, name, cluster)


@pytest.mark.parametrize("lost", ["identity.key", "tls.key", "tls.crt"])
def test_a_lost_key_is_not_made_again(tmp_path: Path, lost: str) -> None:
    make(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(LostIdentity, match="under a new name"):
        open_directory(tmp_path)
    assert not (tmp_path / lost).exists()


@pytest.mark.parametrize("damaged", ["identity.key", "tls.key", "tls.crt", "member.json"])
def test_a_damaged_file(tmp_path: Path, damaged: str) -> None:
    make(tmp_path)
    (tmp_path / damaged).write_text("rubbish")
    with pytest.raises(ForeignDirectory, match="under a new name"):
        open_directory(tmp_path)


def test_an_exchanged_key(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "identity.key").unlink()
    Ed25519Signer.generate().save(tmp_path / "identity.key")
    with pytest.raises(LostIdentity, match="not those"):
        open_directory(tmp_path)


@pytest.mark.parametrize("made", range(5))
def test_an_unfinished_first_start_is_finished_with_the_same_keys(
    tmp_path: Path, made: int
) -> None:
    """The first start died after `made` of its steps, in the middle of the next."""
    make(tmp_path)
    steps = ["identity.key", "tls.key", "tls.crt", "wal", "member.json"]
    kept = {name: (tmp_path / name).read_bytes() for name in steps[: min(made, 3)]}
    for name in steps[made:]:
        if name == "wal":
            (tmp_path / name).rmdir()
        else:
            (tmp_path / name).unlink()
    (tmp_path / f"{steps[made]}.tmp").write_bytes(b"half")
    make(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_a_log_without_genesis_or_a_lost_log(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "wal" / "0000000000000001.seg").touch()
    with pytest.raises(LostIdentity, match="genesis"):
        open_directory(tmp_path)
    (tmp_path / "wal" / "0000000000000001.seg").unlink()
    (tmp_path / "wal").rmdir()
    with pytest.raises(LostIdentity, match="lost its log"):
        open_directory(tmp_path)


def signed(*sigs: bytes) -> SignedGenesis:
    return SignedGenesis(make_genesis(), SIGNATURE, sigs)


def test_genesis_gains_signatures_and_loses_none(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    one = signed(SIGNATURE, b"", b"", b"")
    assert directory.store_genesis(one) == one
    assert directory.store_genesis(signed(b"", SIGNATURE, b"", b"")).member_sigs[:2] == (
        SIGNATURE,
        SIGNATURE,
    )
    both = directory.store_genesis(signed(OTHER, b"", b"", b""))
    assert both == signed(SIGNATURE, SIGNATURE, b"", b"")
    directory.close()
    again = open_directory(tmp_path)
    assert again.genesis == both
    again.close()


def test_another_genesis_is_refused(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    stored = directory.store_genesis(signed(b"", b"", b"", b""))
    record = msgspec.structs.replace(stored.record, cluster_id=b"x" * 16)
    with pytest.raises(GenesisConflict, match="one cluster for ever"):
        directory.store_genesis(msgspec.structs.replace(stored, record=record))
    assert directory.genesis == stored
    directory.close()


def test_a_damaged_genesis(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "genesis.msgpack").write_bytes(b"\xc1")
    with pytest.raises(ForeignDirectory, match=r"genesis\.msgpack is damaged"):
        open_directory(tmp_path)
