"""How many votes are enough; clients count by the same rule, so it stands beside the wire."""

from dwcp.wire.quorum import faults, liars, quorum

__all__ = ["faults", "liars", "quorum"]
