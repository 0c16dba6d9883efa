"""A certificate for a member that has none: nobody knows it, and nothing of it is written down."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from dwcp.certificates import TlsFiles
from dwcp_replica.durable.tls import make_certificate_pem, make_key_pem


def throwaway_context(name: str) -> ssl.SSLContext:
    """For the client port of a member whose directory is refused: probes must reach it.

    The library reads files only, and the container's are read-only: the key lies in memory.
    """
    key = make_key_pem()
    place = os.memfd_create("certificate")
    try:
        os.write(place, key + make_certificate_pem(key, name))
        path = Path(f"/proc/self/fd/{place}")
        return TlsFiles(path, path).context()
    finally:
        os.close(place)
