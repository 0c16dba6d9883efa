"""What is forced stays until it is released, and Raft comes back only after its cool-down."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.records import EpochRecord, ModePolicy, Protocol
from dwcp_replica.core.epochs import homing, switching
from dwcp_replica.core.epochs.cooldown import FIRST_MS, NORMAL_MS, Cooldown
from replica.core.conversation import Conversation

SAME = [0, 1, 2, 3]


def present(talk: Conversation, member: int = 0) -> EpochRecord:
    record = talk.replicas[member].standing().record
    assert record is not None
    return record


def ran(talk: Conversation) -> tuple[int, str, str | None]:
    """Epoch, protocol and what is held: the same for all."""
    found = {(r.epoch, r.protocol, r.forced) for r in (present(talk, m) for m in SAME)}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("made", ["pbft", "raft"])
@pytest.mark.parametrize("forced", ["pbft", "raft"])
def test_a_forced_protocol_is_held_until_released(made: Protocol, forced: Protocol) -> None:
    """The predecessor's forced mode was lost on the next detection."""
    talk = Conversation(protocol=made)
    talk.order(SAME, protocol=forced, hold="force")
    talk.wait(300)
    assert ran(talk) == (1, forced, forced)
    talk.wait(2 * NORMAL_MS)
    assert ran(talk) == (1, forced, forced), "nothing goes back by itself"
    talk.order(SAME)
    talk.wait(300)
    assert ran(talk) == (2, forced, forced), "a refresh keeps what is held"
    for member in SAME:
        talk.crash(member)
        talk.restart(member)
    talk.wait(2 * NORMAL_MS)
    assert ran(talk) == (2, forced, forced), "nor does a restart"
    talk.order(SAME, hold="release")
    talk.wait(2 * NORMAL_MS)
    assert ran(talk)[1:] == (made, None), "the one that it was made with"


def test_a_fail_over_comes_back_after_a_cool_down_that_grows() -> None:
    talk = Conversation(protocol="raft")
    epoch = 0
    for turn, wait_ms in enumerate((FIRST_MS, 2 * FIRST_MS, 4 * FIRST_MS)):
        talk.alarm(1)
        talk.alarm(2)
        talk.wait(500)
        epoch += 1
        assert ran(talk) == (epoch, "pbft", None)
        talk.wait(wait_ms - 2000)
        assert ran(talk) == (epoch, "pbft", None), f"turn {turn}: too early"
        talk.wait(3000)
        epoch += 1
        assert ran(talk) == (epoch, "raft", None), f"turn {turn}: not back"


def test_an_order_waits_for_no_cool_down() -> None:
    talk = Conversation(protocol="raft")
    talk.alarm(1)
    talk.alarm(2)
    talk.wait(500)
    talk.order(SAME, protocol="raft")
    talk.wait(300)
    assert ran(talk) == (2, "raft", None)


def test_a_fail_over_keeps_what_is_forced() -> None:
    talk = Conversation(protocol="pbft")
    talk.order(SAME, protocol="raft", hold="force")
    talk.wait(300)
    talk.alarm(1)
    talk.alarm(2)
    talk.wait(500)
    assert ran(talk) == (2, "pbft", "raft")
    talk.wait(FIRST_MS + 1000)
    assert ran(talk) == (3, "raft", "raft")


def test_members_can_not_ask_for_another_than_the_forced_protocol() -> None:
    talk = Conversation(protocol="raft")
    talk.order(SAME, protocol="raft", hold="force")
    talk.wait(300)
    for member in (1, 2, 3):
        core = talk.replicas[member]._core

        switching.request(core, "pbft")
    talk.wait(2000)
    assert ran(talk) == (1, "raft", "raft")


def test_where_members_measure_the_network_nothing_else_brings_them_home() -> None:
    talk = Conversation(protocol="raft")
    record = talk.genesis
    measured = msgspec.structs.replace(
        record, parameters=msgspec.structs.replace(record.parameters, modes=ModePolicy(detect=True))
    )
    assert homing.home(record, record) == "raft"
    assert homing.home(measured, measured) is None
    held = msgspec.structs.replace(measured, forced="pbft")
    assert homing.home(measured, held) == "pbft"


def test_a_restart_counts_the_fail_overs_of_the_chain() -> None:
    genesis = Conversation(protocol="raft").genesis
    chain = [genesis]
    for protocol in ("pbft", "raft", "pbft"):
        chain.append(msgspec.structs.replace(chain[-1], protocol=protocol))
    assert homing.resumed(chain[:1], 1000) == Cooldown()
    assert homing.resumed(chain, 1000) == Cooldown(1000, 2)
    assert not homing.resumed(chain, 1000).allows(1000 + FIRST_MS)
