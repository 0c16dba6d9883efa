"""The state machine that a user implements and embeds (Schneider 1990): apply, snapshot, restore.

The engine gives every replica the same commands in the same order, each client's command exactly
once, and lets a client believe an answer when f+1 replicas gave the same one. The machine's part
is to be *deterministic*: what `apply` answers and changes may depend on the state, the command
and the `Moment` alone. No clock, no randomness, no floating point that differs between
platforms, no iteration over sets, nothing read from outside. A machine that is not is found out
at the next checkpoint, where the digests of the replicas differ, and the odd one stops.

Two ways to write one:

- `RecordsMachine`: keep everything in `self.records`, an ordered map from bytes to bytes, and
  write only `apply`. Cost follows what changes; the state may be larger than memory.
- `StateMachine`: keep the state in any shape and write all four methods. Its pieces are compared
  and stored at every checkpoint, so the cost there follows the size of the state.

What the machine keeps shares one state, one digest, one snapshot and one transfer with the client
sessions that make each command execute once: neither can be restored without the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import msgspec

from dwcp.wire.operations import Failure
from dwcp_replica.store.records import Records, Section

Piece = tuple[bytes, bytes]
"""A part of a state: a key of 1 to 479 bytes, and a value of at most 8 MiB."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and for whom a command is executed; the same on every replica.

    index: of the log entry. stamp_ms: agreed time, Unix milliseconds, which never goes back.
    client: the public key that signed the command, 32 bytes.
    """

    index: int
    stamp_ms: int
    client: bytes


class CommandRefusedError(Exception):
    """Raised by `apply` to answer with a failure; the machine has changed nothing.

    `code` is a gRPC status code: 3 invalid argument, 5 not found, 9 failed precondition.
    """

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


@runtime_checkable
class StateMachine(Protocol):
    """A deterministic state machine. A new instance is in its initial state."""

    def apply(self, command: bytes, moment: Moment) -> bytes:
        """Execute a command and return its answer. Raises CommandRefusedError.

        Any other exception stops the replica: it can not know what has changed.
        """
        ...

    def snapshot(self) -> Iterator[Piece]:
        """The whole state in pieces with distinct keys, in any order."""
        ...

    def restore(self, pieces: Iterable[Piece]) -> None:
        """Be what these pieces of a snapshot say; nothing else is remembered."""
        ...

    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal states."""
        ...


class RecordsMachine:
    """A machine that keeps all its state in `records`; a subclass writes `apply`.

    What a subclass keeps elsewhere is a cache, to be made anew in `loaded`.
    """

    records: Records

    def attach(self, records: Records) -> None:
        """Work on these records from now on."""
        self.records = records
        self.loaded()

    def loaded(self) -> None:
        """The records are those of another moment: drop what was derived from them."""

    def apply(self, command: bytes, moment: Moment) -> bytes:
        """See StateMachine."""
        raise NotImplementedError

    def snapshot(self) -> Iterator[Piece]:
        """See StateMachine."""
        return self.records.scan(b"")

    def restore(self, pieces: Iterable[Piece]) -> None:
        """See StateMachine."""
        for key in [key for key, _ in self.records.scan(b"")]:
            self.records.remove(key)
        for key, value in pieces:
            self.records.set(key, value)
        self.loaded()

    def digest(self) -> bytes:
        """See StateMachine."""
        return self.records.digest()


_ABOUT: Final = b"\x03"
_PIECES: Final = b"\x04"
"""Kinds of records (store.py has them all)."""


class RestoreFaultError(Exception):
    """A machine's restore does not undo its snapshot, or another machine wrote the state."""


class Embedded:
    """A user's machine inside the replicated state, among whose records it keeps its own."""

    def __init__(self, machine: StateMachine, records: Records) -> None:
        self._machine = machine
        self._name = type(machine).__qualname__
        self._records = records
        self._section = Section(records, _PIECES)

    def apply(self, command: bytes, moment: Moment) -> bytes | Failure:
        """The answer to a command, or why it was refused."""
        try:
            return self._machine.apply(command, moment)
        except CommandRefusedError as refused:
            return Failure(refused.code, str(refused))

    def save(self) -> None:
        """Write into the records what the machine keeps elsewhere."""
        state = b""
        if not isinstance(self._machine, RecordsMachine):
            pieces = dict(self._machine.snapshot())
            for key in [key for key, _ in self._section.scan() if key not in pieces]:
                self._section.remove(key)
            for key, value in pieces.items():
                if self._section.get(key) != value:
                    self._section.set(key, value)
            state = self._machine.digest()
        about = msgspec.msgpack.encode((self._name, state))
        if self._records.get(_ABOUT) != about:
            self._records.set(_ABOUT, about)

    def load(self) -> None:
        """Let the machine be what the records say. Raises RestoreFaultError."""
        machine, about = self._machine, self._records.get(_ABOUT)
        name, state = self._name, b""
        if about is not None:
            name, state = msgspec.msgpack.decode(about, type=tuple[str, bytes])
        if name != self._name:
            raise RestoreFaultError(
                f"the state is that of a machine named {name}, not of {self._name}: "
                "start this replica with the machine that its cluster runs"
            )
        if isinstance(machine, RecordsMachine):
            machine.attach(self._section)
        elif about is not None:
            machine.restore(self._section.scan())
            if machine.digest() != state:
                raise RestoreFaultError(
                    f"{name}.restore does not give the state that {name}.snapshot was taken of: "
                    "their digests differ"
                )
