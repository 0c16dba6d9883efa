"""Ports for members: free now, and below the range that outgoing connections are given."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PORT_MIN: Final = 20_000
EPHEMERAL_DEFAULT: Final = 32_768
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoFreePortsError(Exception):
    """Too few ports are free."""


def ephemeral_start() -> int:
    """The first port that the kernel hands to outgoing connections."""
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_DEFAULT


def is_free(port: int) -> bool:
    """True when a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose old connections are in TIME_WAIT is free for a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(count: int, *, draw: random.Random | None = None) -> tuple[int, ...]:
    """`count` different free ports, from a random place on. Raises NoFreePortsError."""
    draw = draw or random.SystemRandom()
    low, high = PORT_MIN, max(PORT_MIN + 1000, min(ephemeral_start(), 65_000))
    start, found = draw.randrange(low, high), []
    for offset in range(high - low):
        port = low + (start - low + offset) % (high - low)
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return tuple(found)
    raise NoFreePortsError(
        f"{count} free ports are needed between {low} and {high}: stop something"
    )
