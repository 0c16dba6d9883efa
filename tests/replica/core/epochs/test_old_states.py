"""States of an ended epoch: who lacks one gets it from whoever has more, before and after crashes.

The present epoch has no stable checkpoint of its own yet, so the ended one's must do.
"""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.state import FetchCheckpoint, FetchState, StableCheckpoint, StateChunk
from dwcp_replica.core.effects import MessageRefused, Received, TransferStarted
from replica.core.conversation import Conversation
from replica.core.stateful import Stateful

FOUR = [0, 1, 2, 3]


def refreshed(entries: int = 9) -> Stateful:
    """Members with a state each, in an epoch that has just begun."""
    talk = Stateful(interval=4)
    talk.open()
    for number in range(entries):
        talk.put(number * 40, number * 40 + 40, b"old %d" % number)
    talk.wait(500)
    Conversation.order(talk, FOUR)
    talk.wait(500)
    assert {replica.standing().epoch for replica in talk.replicas} == {1}
    assert all(replica._core.stable is None for replica in talk.replicas)
    return talk


def shown(talk: Stateful, member: int, asked: FetchState | FetchCheckpoint) -> list[object]:
    ready = talk.replicas[member].step(Received(3, asked))
    return [out.message for out in ready.send]


def checkpoint_shown(talk: Stateful, member: int, asked: FetchState | FetchCheckpoint) -> int:
    """The index of the one checkpoint that a member shows."""
    (found,) = shown(talk, member, asked)
    assert isinstance(found, StableCheckpoint)
    return found.certificate.header.index


def loses_its_state(talk: Stateful, member: int) -> None:
    """Down with an empty state, and a log that begins anew above a checkpoint."""
    talk.records[member] = talk.replicas[member].durable()
    talk.crash(member)
    talk.committed[member] = None


def test_a_source_that_has_moved_on_shows_the_newer_checkpoint_of_the_ended_epoch() -> None:
    talk = refreshed()
    newest = max(talk.shelves[0]._views)
    gone = FetchState(newest - 400, bytes(32), (b"",))
    assert checkpoint_shown(talk, 0, gone) == newest
    held = FetchState(newest, talk.replicas[0]._keeper.line.checkpoints[newest].state, (b"",))
    assert [type(message) for message in shown(talk, 0, held)] == [StateChunk]


def test_nothing_older_than_what_was_asked_for_is_shown() -> None:
    talk = refreshed()
    newer = FetchState(max(talk.shelves[0]._views) + 4, bytes(32), (b"",))
    assert shown(talk, 0, newer) == []


def test_a_stateless_member_gets_the_checkpoint_of_the_ended_epoch() -> None:
    """It restarts in an epoch that has no stable checkpoint."""
    talk = refreshed()
    loses_its_state(talk, 3)
    talk.restart(3)
    assert not talk.replicas[3].standing().has_state
    talk.wait(4000)
    assert talk.of(3, TransferStarted)
    assert talk.replicas[3].standing().has_state
    assert len(set(talk.digests())) == 1
    talk.put(0, 3, b"together")
    talk.wait(500)
    assert len(set(talk.digests())) == 1


def test_sources_whose_logs_began_anew_still_show_it_after_a_restart() -> None:
    talk = refreshed()
    newest = max(talk.shelves[0]._views)
    loses_its_state(talk, 3)
    for member in (0, 1, 2):
        talk.records[member] = talk.replicas[member].durable()
        talk.crash(member)
    for member in (0, 1, 2):
        talk.restart(member)
    assert checkpoint_shown(talk, 0, FetchCheckpoint(1)) == newest
    talk.restart(3)
    talk.wait(6000)
    assert talk.replicas[3].standing().has_state
    assert len(set(talk.digests())) == 1


def test_a_transfer_follows_sources_that_hold_only_a_newer_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint that a member aims at is kept by nobody when it asks for the parts."""
    monkeypatch.setattr("dwcp_replica.store.shelf.VIEWS_MAX", 1)
    talk = refreshed()
    loses_its_state(talk, 3)
    talk.restart(3)
    core = talk.replicas[3]._core
    older = _older_checkpoint(talk)
    core.fetch_asked.add(0)
    talk._act(3, Received(0, older))
    assert core.transfer is not None
    assert core.transfer.index == older.certificate.header.index
    talk.wait(6000)
    started = [event.index for event in talk.of(3, TransferStarted)]  # type: ignore[union-attr]
    assert started == sorted(set(started))
    assert len(started) == 2
    assert len(set(talk.digests())) == 1


def _older_checkpoint(talk: Stateful) -> StableCheckpoint:
    """One below the newest, that all have forgotten by now."""
    line = talk.replicas[0]._keeper.line
    index = sorted(line.checkpoints)[-2]
    body = line.history.body_at(index)
    assert body is not None
    return StableCheckpoint(line.checkpoints[index], body)


def test_an_old_checkpoint_that_was_not_asked_for_changes_nothing() -> None:
    talk = refreshed()
    (message,) = shown(talk, 0, FetchCheckpoint(1))
    ready = talk.replicas[3].step(Received(0, message))  # type: ignore[arg-type]
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)] == ["not-asked"]
    assert not ready.persist
    assert ready.transfer is None


@pytest.mark.parametrize("votes", [2, 4])
def test_an_old_checkpoint_without_a_quorum_leads_nowhere(votes: int) -> None:
    talk = refreshed()
    (message,) = shown(talk, 0, FetchCheckpoint(1))
    assert isinstance(message, StableCheckpoint)
    short = message.certificate.votes[:votes]
    forged = tuple(msgspec.structs.replace(vote, sig=bytes(64)) for vote in short)
    certificate = msgspec.structs.replace(message.certificate, votes=forged if votes > 2 else short)
    loses_its_state(talk, 3)
    talk.restart(3)
    talk.replicas[3]._core.fetch_asked.add(0)
    ready = talk.replicas[3].step(Received(0, StableCheckpoint(certificate, message.body)))
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)] == ["certificate"]
    assert ready.transfer is None
