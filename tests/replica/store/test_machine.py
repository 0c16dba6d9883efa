"""A user's own state machine: commands in, answers out, and one state with the sessions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256

import pytest

from dwcp.wire.operations import Command, CommandResult, Failure, PutRequest, PutResponse
from dwcp_replica.store import Outcome, Store
from dwcp_replica.store.machine import (
    CommandRefusedError,
    Moment,
    Piece,
    RecordsMachine,
    RestoreFaultError,
    StateMachine,
)
from dwcp_replica.store.records import MemoryRecords
from replica.store.driver import ALICE, GENESIS, NOW_MS, Driver, envelope, results_of


class Tally(RecordsMachine):
    """Counts words; an empty one is refused."""

    def loaded(self) -> None:
        self.words = sum(1 for _ in self.records.scan(b""))

    def apply(self, command: bytes, moment: Moment) -> bytes:
        if not command:
            raise CommandRefusedError("a word has letters")
        count = int(self.records.get(command) or b"0") + 1
        self.words += count == 1
        self.records.set(command, b"%d" % count)
        return b"%d of %d, entry %d" % (count, self.words, moment.index)


class Total:
    """A state in one attribute, with its four methods written out."""

    def __init__(self) -> None:
        self.total = 0
        self.last = b""

    def apply(self, command: bytes, moment: Moment) -> bytes:
        assert moment.client == ALICE.public_key
        assert moment.stamp_ms == NOW_MS
        self.total += int(command)
        self.last = command
        return b"%d" % self.total

    def snapshot(self) -> Iterator[Piece]:
        yield b"all", json.dumps([self.total, self.last.decode()]).encode()

    def restore(self, pieces: Iterable[Piece]) -> None:
        ((_, value),) = pieces
        self.total, last = json.loads(value)
        self.last = last.encode()

    def digest(self) -> bytes:
        return sha256(b"%d/%s" % (self.total, self.last)).digest()


class Forgetful(Total):
    """Restores only a part of what it saved."""

    def restore(self, pieces: Iterable[Piece]) -> None:
        super().restore(pieces)
        self.last = b"?"


class Driven(Driver):
    """A driver of a store with a machine; it can be stopped and started."""

    def __init__(self, machine: StateMachine, records: MemoryRecords | None = None) -> None:
        super().__init__()
        self.store = Store(GENESIS, records=records or MemoryRecords(), machine=machine)

    def restarted(self, machine: StateMachine) -> Driven:
        self.store.commit()
        assert isinstance(self.store.held, MemoryRecords)
        return Driven(machine, MemoryRecords(self.store.held.committed))


def answer(outcome: Outcome) -> bytes:
    (result,) = results_of(outcome)
    assert isinstance(result, CommandResult), result
    return result.payload


def test_commands_and_keys_share_a_log_and_a_state() -> None:
    driver = Driven(Tally())
    session = driver.open()
    before = driver.store.digest()
    outcome = driver.one(
        envelope(session, 1, Command(b"a"), PutRequest(b"a", b"key"), Command(b"a"))
    )
    assert results_of(outcome) == (
        CommandResult(b"1 of 1, entry 2"),
        PutResponse(),
        CommandResult(b"2 of 1, entry 2"),
    )
    assert driver.store.digest() != before


def test_a_command_is_executed_once_whatever_is_repeated() -> None:
    driver = Driven(Tally())
    item = envelope(driver.open(), 1, Command(b"a"))
    first = driver.one(item)
    again = driver.restarted(Tally()).one(item)
    assert (answer(again), again.duplicate) == (answer(first), True)


def test_a_refused_command_changes_nothing_and_says_why() -> None:
    driver = Driven(Tally())
    session = driver.open()
    pieces = dict(driver.store.records())
    (result,) = results_of(driver.one(envelope(session, 1, Command(b""))))
    assert result == Failure(3, "a word has letters")
    assert {k: v for k, v in driver.store.records() if k.startswith(b"\x04")} == {}
    assert b"\x03" in pieces


def test_without_a_machine_a_command_is_refused_with_advice() -> None:
    driver = Driver()
    (result,) = results_of(driver.one(envelope(driver.open(), 1, Command(b"a"))))
    assert isinstance(result, Failure)
    assert result.code == 12
    assert "--machine" in result.message


@pytest.mark.parametrize("kind", [Tally, Total])
def test_a_machine_goes_on_where_it_was(kind: type[StateMachine]) -> None:
    """Restarted after every command, it answers as one that never stopped."""
    steady = moving = Driven(kind())
    session = steady.open()
    moving = Driven(kind())
    moving.open()
    for sequence, command in enumerate((b"5", b"7", b"5", b"5"), 1):
        item = envelope(session, sequence, Command(command))
        assert answer(steady.one(item)) == answer(moving.one(item))
        assert steady.store.digest() == moving.store.digest()
        moving = moving.restarted(kind())


def test_a_restore_that_is_not_the_whole_is_found_out() -> None:
    driver = Driven(Forgetful())
    driver.one(envelope(driver.open(), 1, Command(b"5")))
    with pytest.raises(RestoreFaultError, match="digests differ"):
        driver.restarted(Forgetful())


def test_the_state_of_another_machine_is_refused() -> None:
    driver = Driven(Tally())
    driver.one(envelope(driver.open(), 1, Command(b"5")))
    with pytest.raises(RestoreFaultError, match="named Tally, not of Total"):
        driver.restarted(Total())


def test_an_answer_that_does_not_fit_says_that_it_was_executed() -> None:
    class Loud(Tally):
        def apply(self, command: bytes, moment: Moment) -> bytes:
            super().apply(command, moment)
            return bytes(9 * 1024 * 1024)

    driver = Driven(Loud())
    (result,) = results_of(driver.one(envelope(driver.open(), 1, Command(b"a"))))
    assert isinstance(result, Failure)
    assert "was executed" in result.message


def test_snapshot_and_restore_of_a_records_machine() -> None:
    one, other = Tally(), Tally()
    one.attach(MemoryRecords())
    other.attach(MemoryRecords())
    moment = Moment(1, NOW_MS, ALICE.public_key)
    for word in (b"x", b"y", b"x"):
        one.apply(word, moment)
    other.apply(b"z", moment)
    other.restore(one.snapshot())
    assert other.digest() == one.digest()
    assert (other.words, other.records.get(b"x")) == (2, b"2")
