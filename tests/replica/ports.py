"""Ports for servers under test."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from contextlib import suppress
from typing import Final

FIRST: Final = 12_000
LAST: Final = 32_000
"""Below the range from which the kernel takes ports for outgoing connections, so that none of
those takes a port between its choice and its use."""
WORKERS: Final = 10
SHARE: Final = (LAST - FIRST) // WORKERS

_next = itertools.count(secrets.randbelow(SHARE))


def free_port() -> int:
    """A port on which nothing listens just now, and that was not given out lately.

    A test chooses all its ports before the first is bound: chosen at random, two of them were the
    same now and then. Test processes that run side by side have shares of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    while True:
        port = FIRST + worker * SHARE + next(_next) % SHARE
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
