"""Operations that wait for a place in an envelope: bounded, in order, folded many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp.errors import INVALID_ARGUMENT, Busy, Refused
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, MAX_ENVELOPE_OPERATIONS
from dwcp.wire.operations import CloseSession, OpenSession, Operation, nests_too_deep

ENVELOPE_OVERHEAD_BYTES: Final = 256
"""More than an envelope holds besides its operations: key, signature, three counts, framing."""
GROUP_BYTES_MAX: Final = MAX_ENVELOPE_BYTES - ENVELOPE_OVERHEAD_BYTES
REPLICA_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one client; bytes are those of the encoded operations.

    An envelope is closed at `envelope_bytes_max`; one group of operations that is larger
    (up to what a replica takes) goes alone. `window` is how far sequence numbers run ahead
    of the acknowledged ones: replicas keep that many replies of a session, at most 64.
    `open_ms_max` is how long one request to open a session is repeated: replicas take it while
    its time is within ten minutes of theirs. `read_ms` is how long replicas may take to agree on
    a read beside the log.
    """

    in_flight_max: int = 4
    window: int = 48
    envelope_operations_max: int = 1024
    envelope_bytes_max: int = 256 * 1024
    waiting_operations_max: int = 65_536
    waiting_bytes_max: int = 64 * 1024 * 1024
    retry_ms: int = 1000
    retry_ms_max: int = 8000
    open_ms_max: int = 5 * 60 * 1000
    session_idle_ms_max: int = 20 * 60 * 1000
    read_ms: int = 250

    def __post_init__(self) -> None:
        assert self.in_flight_max >= 1, "nothing could be sent"
        assert 1 <= self.window <= REPLICA_WINDOW, "replicas would refuse what is sent"
        assert 1 <= self.envelope_operations_max <= MAX_ENVELOPE_OPERATIONS
        assert 1 <= self.envelope_bytes_max <= GROUP_BYTES_MAX
        assert 1 <= self.retry_ms <= self.retry_ms_max


@dataclass(frozen=True, slots=True)
class Group:
    """Operations submitted together: they share an envelope, in order, under one ticket."""

    ticket: int
    operations: tuple[Operation, ...]
    size_bytes: int


class WaitingQueue:
    """A bounded queue of groups; what was withdrawn is skipped when its turn comes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._groups: deque[Group] = deque()
        self._waiting: dict[int, Group] = {}
        self._operations = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._waiting

    def add(self, ticket: int, operations: Sequence[Operation]) -> None:
        """Append a group. Raises Refused when it can never be sent, Busy when the queue is full."""
        group = Group(ticket, tuple(operations), _size_bytes(operations))
        limits = self._limits
        if (
            self._operations + len(group.operations) > limits.waiting_operations_max
            or self._bytes + group.size_bytes > limits.waiting_bytes_max
        ):
            raise Busy(
                f"{self._operations} operations ({self._bytes} bytes) are waiting already: "
                "wait for some of them, or send from fewer tasks"
            )
        self._groups.append(group)
        self._waiting[ticket] = group
        self._operations += len(group.operations)
        self._bytes += group.size_bytes

    def withdraw(self, ticket: int) -> bool:
        """Remove a group that still waits; False when it does not."""
        group = self._waiting.get(ticket)
        if group is None:
            return False
        self._forget(group)
        while self._groups and self._groups[0].ticket not in self._waiting:
            self._groups.popleft()
        return True

    def fold(self) -> tuple[Group, ...]:
        """Take the groups of the next envelope: at least one, unless none waits."""
        taken: list[Group] = []
        operations = size_bytes = 0
        while self._groups:
            group = self._groups[0]
            if group.ticket in self._waiting:
                operations += len(group.operations)
                size_bytes += group.size_bytes
                if taken and (
                    operations > self._limits.envelope_operations_max
                    or size_bytes > self._limits.envelope_bytes_max
                ):
                    break
                taken.append(group)
                self._forget(group)
            self._groups.popleft()
        return tuple(taken)

    def drain(self) -> tuple[int, ...]:
        """Remove all groups; their tickets, in order."""
        tickets = tuple(self._waiting)
        self._groups.clear()
        self._waiting.clear()
        self._operations = self._bytes = 0
        return tickets

    def _forget(self, group: Group) -> None:
        del self._waiting[group.ticket]
        self._operations -= len(group.operations)
        self._bytes -= group.size_bytes


def _size_bytes(operations: Sequence[Operation]) -> int:
    """The encoded size of a group. Raises Refused when no replica would take it."""
    if not operations:
        raise Refused(INVALID_ARGUMENT, "a group of no operations can not be sent: give one")
    if len(operations) > MAX_ENVELOPE_OPERATIONS:
        raise Refused(
            INVALID_ARGUMENT,
            f"{len(operations)} operations do not fit one envelope: send at most "
            f"{MAX_ENVELOPE_OPERATIONS} together",
        )
    if any(isinstance(operation, OpenSession | CloseSession) for operation in operations):
        raise Refused(INVALID_ARGUMENT, "the client opens and closes its sessions by itself")
    if any(map(nests_too_deep, operations)):
        raise Refused(INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
    size_bytes = sum(len(msgspec.msgpack.encode(operation)) for operation in operations)
    if size_bytes > GROUP_BYTES_MAX:
        raise Refused(
            INVALID_ARGUMENT,
            f"{size_bytes} bytes do not fit one envelope: keep keys and values together under "
            f"{GROUP_BYTES_MAX} bytes",
        )
    return size_bytes
