"""The read index: no read from the past, under Crash trust only (Ongaro 2014, section 6.4)."""

from __future__ import annotations

from dwcp_replica.core.effects import ReadAnswer
from replica.core.conversation import Conversation


def trusting() -> Conversation:
    talk = Conversation(n=3, protocol="raft", trust="Crash")
    talk.submit(0, "a", "1")
    talk.deliver()
    return talk


def test_a_read_waits_for_a_quorum() -> None:
    talk = trusting()
    talk.isolate(0)
    talk.read(0, "r")
    talk.deliver()
    assert talk.reads[0] == []
    talk.cut.clear()
    talk.wait(100)
    assert talk.reads[0] == [ReadAnswer(b"r", 1)]


def test_a_deposed_leader_answers_no_read() -> None:
    talk = trusting()
    talk.isolate(0)
    talk.submit(1, "b", "2")
    talk.wait(600)
    assert b"2" in talk.values(1)
    talk.read(0, "r")
    talk.wait(2000)
    assert talk.reads[0] == [ReadAnswer(b"r", None)]


def test_reads_that_come_together_share_a_heartbeat() -> None:
    talk = trusting()
    for token in "abc":
        talk.read(0, token)
    talk.deliver()
    assert {answer.token for answer in talk.reads[0]} == {b"a", b"b", b"c"}
    assert {answer.index for answer in talk.reads[0]} == {1}
    assert talk.replicas[0]._core.raft.beat <= 3


def test_among_liars_every_read_goes_through_the_log() -> None:
    talk = Conversation(protocol="raft")
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.read(0, "r")
    talk.deliver()
    assert talk.reads[0] == [ReadAnswer(b"r", None)]


def test_in_pbft_every_read_goes_through_the_log() -> None:
    talk = Conversation()
    talk.read(0, "r")
    assert talk.reads[0] == [ReadAnswer(b"r", None)]


def test_a_single_member_reads_at_once() -> None:
    talk = Conversation(n=1, protocol="raft", trust="Crash")
    talk.submit(0, "a", "1")
    talk.read(0, "r")
    assert talk.reads[0] == [ReadAnswer(b"r", 1)]
