"""What a protocol must bring to the chain core; everything else is shared.

A driver decides who leads, in which messages entries and votes travel, and when time has run
out. The chain, certificates, vote books, evidence, checkpoints, catch-up and durable records
are the core's, so that both protocols keep the same promises by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dwcp.wire.envelope import Envelope
from dwcp_replica.core.state import Core

Handler = Callable[[Core, int, Any], None]
"""Takes the core, the sender and the message."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A protocol, as functions on the core.

    handlers: by the class of the message. resume: bring view and standing back after the records
    were read, given the view that was entered last. begin: the first tick. submitted: a client's
    envelope was taken into the pool. restored: the state is here that had been lacking. read: a
    ReadIndex came. hand_over: give the leading role up, to one or any. follow_up: what any event
    may have made possible. deadline_ms: when the next tick matters, in core time.
    """

    handlers: Mapping[type[Any], Handler]
    resume: Callable[[Core, int], None]
    begin: Callable[[Core], None]
    on_tick: Callable[[Core], None]
    deadline_ms: Callable[[Core], int]
    submitted: Callable[[Core, Envelope], None]
    restored: Callable[[Core], None]
    read: Callable[[Core, bytes], None]
    hand_over: Callable[[Core, int | None], None]
    follow_up: Callable[[Core], None]
