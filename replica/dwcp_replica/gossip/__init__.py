"""Documents between members: rounds, news and catch-up, beside the log. Sans-IO.

Every member compares what it has with up to FANOUT others every ROUND_MS, and tells of news at
once. docs/documents.md explains.
"""

from __future__ import annotations

from dwcp_replica.gossip.core import FANOUT, ROUND_MS, Gossip
from dwcp_replica.gossip.parts import Parts

__all__ = ["FANOUT", "ROUND_MS", "Gossip", "Parts"]
