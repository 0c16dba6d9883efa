"""Ports for servers under test."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import Final

FIRST: Final = 12_000
LAST: Final = 32_000
"""Below the range from which the kernel takes ports for outgoing connections, so that none of
those takes a port between its choice and its use."""


def free_port() -> int:
    """A random port on which nothing listens just now."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
