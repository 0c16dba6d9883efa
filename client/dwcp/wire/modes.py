"""What decides in which mode a cluster runs: members' reports, and what a person asks for.

A report is an operation of a member, in an envelope that the member's identity key signs: alone,
in session 0. So it goes the way of every request (forwarded, ordered, timed out when a primary
leaves it out), and every replica holds the same reports at the same place of the log.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dwcp.wire.records import Mode
from dwcp.wire.signing import Count

Microseconds = Annotated[int, Meta(ge=0, le=3_600_000_000)]


class NetworkReport(Struct, frozen=True, array_like=True, tag="network_report"):
    """The network with which a member reaches a quorum; None is unknown, and abstains.

    `stamp_ms` is its clock (Unix milliseconds), above that of its last report. Round trip and
    jitter are in microseconds, `loss_ppm` is segments sent again of a million, `rate_bps` bits
    per second.
    """

    stamp_ms: Count
    rtt_us: Microseconds | None = None
    jitter_us: Microseconds | None = None
    loss_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    rate_bps: Count | None = None


class NetworkReported(Struct, frozen=True, array_like=True, tag="network_report"):
    """The report counts from now on, until the member's next one or until it is too old."""


class ModeSetRequest(Struct, frozen=True, array_like=True, tag="mode_set"):
    """None: let the network decide, where the genesis holds a mode. For administrators.

    To hold a mode is for the admin's order, which stands in the epoch record: refused here.
    """

    mode: Mode | None = None


class ModeSetResponse(Struct, frozen=True, array_like=True, tag="mode_set"):
    """What is decided now: the mode, and the one that is held."""

    mode: Mode
    forced: Mode | None = None
