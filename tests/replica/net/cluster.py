"""Members with real keys and certificates, for tests of the peer port."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.links import Frame
from dwcp.wire.records import EpochRecord, Member, Parameters, start_hash
from dwcp_replica.net.dialer import PeerDialer
from dwcp_replica.net.roster import Roster
from dwcp_replica.net.server import PeerServer
from dwcp_replica.net.tls import server_context


@dataclass
class Seen:
    """Counts what the transport reports."""

    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    dropped: int = 0

    def frame_refused(self, reason: str) -> None:
        self.refused[reason] += 1

    def dial_failed(self, reason: str) -> None:
        self.failed[reason] += 1

    def frames_dropped(self, count: int) -> None:
        self.dropped += count


@dataclass
class Keys:
    signer: Ed25519Signer
    certificate: Path
    key: Path
    fingerprint: bytes


def make_keys(directory: Path, name: str) -> Keys:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Keys(Ed25519Signer.generate(), *paths, hashlib.sha256(der).digest())


def make_record(keys: list[Keys], ports: list[int]) -> EpochRecord:
    cluster_id = bytes(range(16))
    return EpochRecord(
        cluster_id=cluster_id,
        cluster="test",
        namespace="default",
        epoch=0,
        protocol="pbft",
        trust="Byzantine",
        members=tuple(
            Member(f"test-{i}", k.signer.public_key, k.fingerprint, f"127.0.0.1:{port}", "")
            for i, (k, port) in enumerate(zip(keys, ports, strict=True))
        ),
        clients=(),
        admin=Ed25519Signer.generate().public_key,
        parameters=Parameters(),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
    )


class Listener:
    """One member's accepting side, with what it received."""

    def __init__(self, roster: Roster, keys: Keys, port: int) -> None:
        self.received: list[tuple[int, Frame]] = []
        self.seen = Seen()
        self.gate = asyncio.Event()
        self.gate.set()
        self._keys = keys
        self._port = port
        self.met: list[int] = []
        self.left: list[int] = []
        self.server = PeerServer(
            roster, Ed25519Verifier(), self._deliver, self.seen, self.met.append, self.left.append
        )

    async def _deliver(self, sender: int, message: Frame, _size_bytes: int) -> None:
        await self.gate.wait()
        self.received.append((sender, message))

    async def __aenter__(self) -> Self:
        context = server_context(self._keys.certificate, self._keys.key)
        await self.server.start("127.0.0.1", self._port, context)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()


class Dialing:
    """One member's dialing side, running."""

    def __init__(self, roster: Roster) -> None:
        self.seen = Seen()
        self.dialer = PeerDialer(roster, self.seen)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.dialer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
