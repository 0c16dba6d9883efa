"""What members tell each other in every protocol: where they stand, and what clients asked."""

from __future__ import annotations

from typing import Final

from dwcp.wire.envelope import Envelope
from dwcp.wire.peer import Forward, Status
from dwcp_replica.core import catchup
from dwcp_replica.core.state import Core

HEARTBEATS_PER_TIMEOUT: Final = 4
FORWARD_BYTES_MAX: Final = 4 * 1024 * 1024
FORWARD_MAX: Final = 256
"""Waiting requests that a replica passes to a new leader at once."""


def heartbeat_every_ms(core: Core) -> int:
    """How often a replica says where it stands."""
    return max(20, core.record.parameters.request_timeout_ms // HEARTBEATS_PER_TIMEOUT)


def status(core: Core) -> Status:
    """Where I stand."""
    return Status(
        epoch=core.record.epoch,
        view=core.view,
        active=core.active,
        last=core.log.last,
        prepared=core.prepared,
        final=core.final,
        stable=core.low,
        mute=core.mute is not None,
    )


def forward_waiting(core: Core) -> None:
    """Pass the oldest requests that wait here to the primary, as many as fit a frame."""
    if not core.active or core.primary == core.me:
        return
    envelopes: list[Envelope] = []
    room = FORWARD_BYTES_MAX
    for envelope in core.pool.waiting(FORWARD_MAX):
        room -= len(envelope.body) + 256
        if envelopes and room < 0:
            break
        envelopes.append(envelope)
    if envelopes:
        core.send(core.primary, Forward(tuple(envelopes)))


def on_forward(core: Core, sender: int, message: Forward) -> None:
    """Take requests that a backup passed on, each checked as if its client had sent it."""
    if core.transfer is not None or core.stateless:
        return  # it could have been executed already
    for envelope in message.envelopes[:FORWARD_MAX]:
        if not catchup.envelope_holds(core, envelope):
            core.refuse(sender, message, "client-signature")
            return
        core.pool.add(envelope, core.now_ms)
