"""How a replica process was started, and the codes with which it ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dwcp.certificates import TlsFiles

EXIT_STOPPED: Final = 0
EXIT_FAULT: Final = 70
"""An invariant does not hold, or the disk failed: this process can not go on."""
EXIT_LOCKED: Final = 75
"""Another process holds the data directory."""
EXIT_REFUSED: Final = 78
"""The arguments or the data directory can not be used: starting again will not help."""

LOG_BYTES_MIN: Final = 64 * 1024 * 1024
"""So much log is kept before a snapshot is worth its cost."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "HOST:PORT" or "[HOST]:PORT". Raises ValueError with a sentence."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


class Feature(StrEnum):
    """A part of mode detection that a member may have switched on (docs/modes.md).

    FIRST_PROTOCOL: ask for the protocol of the genesis, whatever is decided.
    """

    MEASURE = "measure"
    REPORT = "report"
    SWITCH = "switch"
    PLACE = "place"
    FIRST_PROTOCOL = "first-protocol"

    @classmethod
    def parse(cls, text: str) -> frozenset[Feature]:
        """Read "measure,report", or "none". Raises ValueError with a sentence."""
        known = ", ".join(cls)
        words = [] if text == "none" else text.split(",")
        if wrong := [word for word in words if word not in set(cls)]:
            raise ValueError(f"{wrong[0]!r} is no feature: use some of {known}, or none")
        return frozenset(map(cls, words))


USUAL: Final = frozenset(Feature) - {Feature.FIRST_PROTOCOL}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the command line says. `token` is the one-time secret of this member, if any.

    machine: "module:Class" of the state machine that the cluster's owner embeds. log_bytes: so
    much log is kept before a snapshot is made and the log is cut.
    `cuts`: for tests, the file of links that are cut (node/cuts.py).
    `client_tls`: the client port speaks TLS, with the member's own certificate, which the genesis
    names, or with the one in `client_tls_files`. `restore`: path or URL of the backup that the
    cluster begins from.
    """

    data: Path
    name: str
    cluster: str
    namespace: str
    client_listen: Address
    peer_listen: Address
    token: bytes | None = None
    stay_on_refusal: bool = False
    machine: str | None = None
    log_bytes: int = LOG_BYTES_MIN
    client_tls: bool = False
    client_tls_files: TlsFiles | None = None
    cuts: Path | None = None
    restore: str | None = None
    features: frozenset[Feature] = USUAL
