"""TLS contexts: version 1.3 only, and between members trust by fingerprint only."""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The context of the accepting side, with its own certificate (PEM files).

    Raises OSError or ssl.SSLError when the files are missing or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    return context


def client_context() -> ssl.SSLContext:
    """The context of the dialing side; the caller must pin the server's fingerprint.

    No authority is trusted: a member's self-signed certificate as a trust anchor would let
    that member mint certificates in other members' names.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
