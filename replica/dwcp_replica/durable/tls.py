"""The member's TLS key and certificate: self-signed, and pinned by fingerprint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID: Final = timedelta(days=36525)
"""A hundred years: peers pin the fingerprint, so a date would only stop an honest member."""
_LEEWAY: Final = timedelta(days=1)


def make_key_pem() -> bytes:
    """A new EC P-256 private key as unencrypted PKCS #8 PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_certificate_pem(key_pem: bytes, name: str) -> bytes:
    """A self-signed certificate for `name`, as PEM. Raises ValueError when the key is damaged."""
    key = load_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file. Raises ValueError when it is not one."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an EC key")  # noqa: TRY004 - the file's content is wrong
    return key


def certificate_fingerprint(certificate_pem: bytes) -> bytes:
    """SHA-256 over the certificate's DER: 32 bytes. Raises ValueError when it is not one."""
    return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256())


def is_pair(key_pem: bytes, certificate_pem: bytes) -> bool:
    """True when the certificate is for the key. Raises ValueError when either is damaged."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return certificate.public_key() == load_key(key_pem).public_key()
