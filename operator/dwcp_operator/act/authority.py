"""The operator's own authority for one cluster's gateways, and what it vouches for.

Everything lies in Secrets; nothing is remembered here. A certificate is made anew 30 days before
its end, the authority's a year before. While an old authority still counts, `ca.crt` names both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dwcp_operator.build.secrets import AUTHORITY, CERTIFICATE, PRIVATE_KEY

AUTHORITY_VALID: Final = timedelta(days=3650)
AUTHORITY_RENEWED: Final = timedelta(days=365)
VALID: Final = timedelta(days=90)
RENEWED: Final = timedelta(days=30)
LEEWAY: Final = timedelta(hours=1)
"""Clocks differ: what is made now is good since then."""
AUTHORITY_KEY: Final = "ca.key"


def utc() -> datetime:
    """Now."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Authority:
    """The newest authority's key, and all authorities that still count, the newest first."""

    key: ec.EllipticCurvePrivateKey
    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, data: Mapping[str, bytes]) -> Authority:
        """What a Secret holds. Raises ValueError when it is not one."""
        key = serialization.load_pem_private_key(data.get(AUTHORITY_KEY, b""), password=None)
        found = x509.load_pem_x509_certificates(data.get(AUTHORITY, b""))
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            key.public_key() != found[0].public_key()
        ):
            raise ValueError("its key and its newest certificate are not a pair")
        return cls(key, tuple(found))

    @property
    def pem(self) -> bytes:
        """`ca.crt`."""
        return b"".join(_pem(certificate) for certificate in self.certificates)

    def data(self) -> dict[str, bytes]:
        """What its Secret holds."""
        return {AUTHORITY: self.pem, AUTHORITY_KEY: _key_pem(self.key)}

    def issue(self, name: str, hosts: Sequence[str], now: datetime) -> dict[str, bytes]:
        """A new key and certificate, in cert-manager's shape: for a server, or, without hosts, for
        a user of that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(name, key, now, VALID)
            .issuer_name(self.certificates[0].subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if hosts:
            alternative = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            builder = builder.add_extension(alternative, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return {
            CERTIFICATE: _pem(certificate),
            PRIVATE_KEY: _key_pem(key),
            AUTHORITY: self.pem,
        }


def authority(old: Authority | None, name: str, now: datetime) -> Authority:
    """The authority to go on with: the old one, or a new one before the old one's end."""
    if old is not None and old.certificates[0].not_valid_after_utc - now > AUTHORITY_RENEWED:
        return old
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(name, key, now, AUTHORITY_VALID)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    before = () if old is None else old.certificates
    return Authority(key, (made, *(c for c in before if c.not_valid_after_utc > now)))


def renewed(
    found: Mapping[str, bytes] | None, by: Authority, name: str, hosts: Sequence[str],
    now: datetime,
) -> dict[str, bytes] | None:  # fmt: skip
    """What a certificate's Secret should hold now; None when it is good as it is."""
    if found is None or _is_due(found, by, hosts, now):
        return by.issue(name, hosts, now)
    return None if found.get(AUTHORITY) == by.pem else {**found, AUTHORITY: by.pem}


def _is_due(found: Mapping[str, bytes], by: Authority, hosts: Sequence[str], now: datetime) -> bool:
    """True for what is damaged, near its end, for other names, or vouched for by nobody known."""
    try:
        certificate = x509.load_pem_x509_certificate(found[CERTIFICATE])
        key = serialization.load_pem_private_key(found[PRIVATE_KEY], password=None)
    except (KeyError, ValueError):
        return True
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    known = [
        x509.SubjectKeyIdentifier.from_public_key(one.public_key()).digest
        for one in by.certificates
    ]
    return (
        key.public_key() != certificate.public_key()
        or certificate.not_valid_after_utc - now <= RENEWED
        or issuer.key_identifier not in known
        or _hosts(certificate) != set(hosts)
    )


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(found.value.get_values_for_type(x509.DNSName))


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
