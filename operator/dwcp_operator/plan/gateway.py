"""Which parts of a cluster's gateways are to be made or removed next.

Level-triggered, as planner.py: every call looks at what is there, and its steps may be cut off
after any of them. What is shown to users comes first when gateways are made, and what sends users
to them goes last when they are removed. A part that is wanted is asked for each time: whoever
carries it out writes only what has changed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What gateways are made of, in the order in which it is made."""

    AUTHORITY = "Authority"
    CERTIFICATES = "Certificates"
    SERVICE = "Service"
    DEPLOYMENT = "Deployment"
    BUDGET = "PodDisruptionBudget"


@dataclass(frozen=True, slots=True)
class GatewayWanted:
    """What the resource asks for. `own_certificates`: no Secret of the user's holds them.

    `begun`: clients can read the genesis; before that a gateway could only wait.
    """

    replicas: int
    own_certificates: bool
    begun: bool = True


@dataclass(frozen=True, slots=True)
class EnsurePart:
    """Make the part be as the resource says."""

    part: Part


@dataclass(frozen=True, slots=True)
class RemovePart:
    """Remove the part."""

    part: Part


GatewayStep = EnsurePart | RemovePart


def plan_gateway(wanted: GatewayWanted | None, there: Collection[Part]) -> tuple[GatewayStep, ...]:
    """The steps that are due, in order; `there` are the parts that exist."""
    parts = _parts(wanted)
    removed = [part for part in reversed(Part) if part in there and part not in parts]
    if wanted is not None and not wanted.begun:
        return tuple(RemovePart(part) for part in removed)
    made = [EnsurePart(part) for part in Part if part in parts]
    return (*made, *(RemovePart(part) for part in removed))


def _parts(wanted: GatewayWanted | None) -> frozenset[Part]:
    if wanted is None:
        return frozenset()
    parts = {Part.SERVICE, Part.DEPLOYMENT}
    if wanted.own_certificates:
        parts |= {Part.AUTHORITY, Part.CERTIFICATES}
    if wanted.replicas > 1:
        parts.add(Part.BUDGET)
    return frozenset(parts)
