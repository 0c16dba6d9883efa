"""Epochs of Raft end too, and each protocol follows the other: nothing is lost or repeated."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.epochs import Seal
from dwcp.wire.peer import Equivocation, Header
from dwcp.wire.records import Protocol, scope_of
from dwcp.wire.switch import SwitchRequest
from dwcp_replica.core.effects import (
    EntryRecord,
    EpochSealed,
    Input,
    Panicked,
    PanicReason,
    Received,
    Submit,
)
from replica.core.conversation import Conversation

SAME = [0, 1, 2, 3]
OTHER: dict[Protocol, Protocol] = {"pbft": "raft", "raft": "pbft"}


def served(protocol: Protocol, values: int = 2, **options: int) -> Conversation:
    """A cluster that has executed a few requests."""
    talk = Conversation(protocol=protocol, **options)  # type: ignore[arg-type]
    for value in range(values):
        talk.submit(0, "a", str(value))
        talk.deliver()
    talk.wait(150)
    return talk


def standings(talk: Conversation) -> list[tuple[int, str]]:
    found = [replica.standing() for replica in talk.replicas]
    return [(s.epoch, s.record.protocol) for s in found if s.record is not None]


def goes_on(talk: Conversation, value: str, to: int = 1) -> None:
    """A request is executed everywhere, once."""
    talk.submit(to, "b", value)
    talk.wait(1500)
    for member in SAME:
        assert talk.values(member).count(value.encode()) == 1, f"member {member}"
    assert len({tuple(talk.values(member)) for member in SAME}) == 1


def first_header(talk: Conversation, member: int) -> Header:
    entries = [r.entry for r in talk.records[member] if isinstance(r, EntryRecord)]
    return next(e.header for e in entries if e.header.index == 1)


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
@pytest.mark.parametrize("following", ["pbft", "raft"])
def test_the_admin_orders_a_protocol(protocol: Protocol, following: Protocol) -> None:
    talk = served(protocol)
    talk.order(SAME, protocol=following)
    talk.wait(300)
    assert standings(talk) == [(1, following)] * 4
    goes_on(talk, "after")
    talk.order(SAME, to=2, protocol=protocol)
    talk.wait(300)
    assert standings(talk) == [(2, protocol)] * 4
    goes_on(talk, "and after that")


@pytest.mark.parametrize("interval", [4, 100])
def test_switches_to_and_fro_under_load_lose_and_repeat_nothing(interval: int) -> None:
    talk = Conversation(interval=interval, protocol="raft")
    sent = []
    for turn in range(10):
        for part in range(3):
            value = f"{turn}.{part}"
            talk.submit((turn + part) % 4, "k", value)
            sent.append(value.encode())
        record = talk.replicas[0].standing().record
        assert record is not None
        talk.order(SAME, to=turn % 4, protocol=OTHER[record.protocol])
        talk.wait(200)
    talk.wait(2000)
    assert standings(talk) == [(10, "raft")] * 4
    assert all(sorted(talk.values(member)) == sorted(sent) for member in SAME)
    assert len({tuple(talk.values(member)) for member in SAME}) == 1


def test_panics_of_f_plus_one_members_bring_pbft_after_raft() -> None:
    talk = served("raft")
    talk.alarm(3)
    talk.deliver()
    assert standings(talk) == [(0, "raft")] * 4, "one member alone ends nothing"
    talk.alarm(2)
    talk.wait(300)
    assert standings(talk) == [(1, "pbft")] * 4
    goes_on(talk, "after")


def test_a_panic_wins_over_a_switch_to_raft() -> None:
    """The SEALs hold PANICs: the protocol is PBFT whatever the SWITCH says."""
    talk = served("raft")
    talk.order(SAME, protocol="raft")
    talk.alarm(2)
    talk.alarm(3)
    talk.wait(300)
    assert standings(talk)[0] in ((1, "pbft"), (2, "pbft"))
    goes_on(talk, "after")


def test_a_raft_leader_that_equivocates_is_followed_by_pbft_and_never_leads() -> None:
    talk = served("raft")
    first = first_header(talk, 1)
    other = msgspec.structs.replace(first, batch=bytes(32))
    scope = scope_of(talk.genesis, talk.genesis)
    other = msgspec.structs.replace(other, sig=talk.signers[0].sign(other.signing_bytes(scope)))
    talk.receive(2, 3, Equivocation(first, other))
    talk.wait(500)
    assert standings(talk) == [(1, "pbft")] * 4
    assert {r.standing().record.barred for r in talk.replicas} == {(0,)}  # type: ignore[union-attr]
    goes_on(talk, "after")
    for turn in range(4):
        talk.order(SAME, to=1, protocol="raft" if turn % 2 == 0 else "pbft")
        talk.wait(400)
        assert talk.replicas[1].standing().primary != 0
    goes_on(talk, "and still")


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
@pytest.mark.parametrize("down", [0, 1, 2, 3])
def test_one_member_may_be_down(protocol: Protocol, down: int) -> None:
    """Also the leader, the slot's first primary, and the next epoch's leader (member 1)."""
    talk = served(protocol, 3, interval=2)
    talk.crash(down)
    to = (down + 1) % 4
    up = [m for m in SAME if m != down]
    for _ in range(3):  # an order is for the leader to propose; whoever leads hears it
        talk.order(SAME, to=to, protocol=OTHER[protocol])
        talk.wait(3000)
    told = {standings(talk)[m] for m in up}
    assert len(told) == 1
    assert told.pop()[1] == OTHER[protocol]
    talk.restart(down)
    talk.wait(3000)
    assert len(set(standings(talk))) == 1
    goes_on(talk, "after")


def test_a_member_that_missed_switches_follows_them() -> None:
    talk = served("raft", 3, interval=2)
    talk.isolate(3)
    for turn, protocol in enumerate(("pbft", "raft", "pbft")):
        talk.order(SAME, to=0, protocol=protocol)  # type: ignore[arg-type]
        talk.wait(300)
        talk.submit(0, "m", f"missed {turn}")
        talk.wait(600)
    assert standings(talk)[0] == (3, "pbft")
    talk.cut.clear()
    talk.wait(3000)
    assert len(set(standings(talk))) == 1
    assert talk.values(3) == talk.values(0)
    goes_on(talk, "after")


@pytest.mark.parametrize("rounds", range(1, 10))
def test_all_restart_in_the_middle_of_leaving_raft(rounds: int) -> None:
    talk = served("raft", 3, interval=2)
    talk.order(SAME, protocol="pbft")
    for _ in range(rounds):
        talk.deliver_once()
    talk.inbox.clear()
    for member in SAME:
        talk.crash(member)
    for member in SAME:
        talk.restart(member)
    talk.wait(6000)
    assert len(set(standings(talk))) == 1
    goes_on(talk, "after")
    talk.order(SAME, to=2, protocol="raft")
    talk.wait(1000)
    goes_on(talk, "and after that")


@pytest.mark.parametrize("member", SAME)
def test_every_prefix_of_the_records_resumes(member: int) -> None:
    talk = served("raft", 2, interval=2)
    talk.hand_over(0)
    talk.wait(300)
    talk.order(SAME, to=1, protocol="pbft")
    talk.wait(500)
    talk.submit(1, "b", "x")
    talk.wait(300)
    talk.order(SAME, to=3, protocol="raft")
    talk.wait(500)
    assert standings(talk) == [(2, "raft")] * 4
    whole = list(talk.records[member])
    for length in range(len(whole) + 1):
        talk.crash(member)
        talk.records[member] = whole[:length]
        talk.restart(member)
        assert talk.replicas[member].standing().halted is None
    talk.wait(3000)
    assert talk.values(member) == talk.values((member + 1) % 4)


def test_a_seal_after_an_election_shows_certificates_by_digest() -> None:
    """The start is recovered over Raft's terms, also by who was away in the second one."""
    talk = served("raft", 2)
    talk.isolate(3)
    talk.hand_over(0)
    talk.wait(300)
    leader = talk.replicas[1].standing().primary
    talk.submit(leader, "c", "of the second term")
    talk.deliver()
    talk.cut.clear()
    talk.alarm(1)
    talk.alarm(2)
    seals = []
    for _ in range(40):
        for source, target, message in talk.step():
            if isinstance(message, Seal):
                seals.append(message)
            talk.receive(target, source, message)
    assert any(ref.term > 1 for seal in seals for ref in seal.elections)
    talk.wait(2000)
    assert standings(talk) == [(1, "pbft")] * 4
    goes_on(talk, "after")
    assert b"of the second term" in talk.values(3)


def signed_request(talk: Conversation, member: int, protocol: Protocol) -> SwitchRequest:
    unsigned = SwitchRequest(0, protocol, member, bytes(64))
    sig = talk.signers[member].sign(unsigned.signing_bytes(scope_of(talk.genesis, talk.genesis)))
    return msgspec.structs.replace(unsigned, sig=sig)


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_members_ask_for_the_other_protocol(protocol: Protocol) -> None:
    talk = served(protocol)
    asked = OTHER[protocol]
    talk.receive(0, 2, signed_request(talk, 2, asked))
    talk.wait(300)
    assert standings(talk) == [(0, protocol)] * 4, "f of them are not enough"
    talk.receive(0, 3, signed_request(talk, 3, asked))
    talk.wait(300)
    assert standings(talk) == [(1, asked)] * 4
    goes_on(talk, "after")


ALL = frozenset({"Vote", "Append", "Appended", "Prepare"})


@pytest.mark.parametrize(
    ("lost", "reason"),
    [(ALL, PanicReason.ELECTIONS_FAILED), (ALL | {"PreVote"}, PanicReason.STARVED)],
)
def test_a_raft_that_gets_nowhere_ends_in_pbft(lost: frozenset[str], reason: PanicReason) -> None:
    """Candidates are heard, but votes for them are not; or nobody even says that it would vote."""
    talk = served("raft")
    talk.crash(0)
    envelope = talk.submit(1, "w", "waits")
    for member in (2, 3):  # the client asks everybody
        talk._act(member, Submit(envelope))
    events: list[object] = []
    lose(talk, lost, 12_000, events)
    assert reason in {event.reason for event in events if isinstance(event, Panicked)}
    assert any(isinstance(event, EpochSealed) and event.reason == "panic" for event in events)
    talk.restart(0)
    talk.wait(6000)
    assert {protocol for _, protocol in standings(talk)} == {"pbft"}
    assert all(talk.values(member).count(b"waits") == 1 for member in SAME)


def lose(talk: Conversation, lost: frozenset[str], ms: int, events: list[object]) -> None:
    """Let time pass, while messages of these kinds are lost; notes what the engines report."""
    for replica in talk.replicas:
        proper = replica.step

        def step(event: Input, proper: object = proper) -> object:
            ready = proper(event)  # type: ignore[operator]
            events.extend(ready.events)
            return ready

        replica.step = step  # type: ignore[method-assign, assignment]
    receive = talk.receive

    def lossy(member: int, sender: int, message: object) -> None:
        if type(message).__name__ not in lost:
            receive(member, sender, message)  # type: ignore[arg-type]

    talk.receive = lossy  # type: ignore[method-assign]
    talk.wait(ms)
    del talk.receive  # type: ignore[attr-defined]


def test_a_message_of_an_ended_raft_epoch_never_counts() -> None:
    talk = served("raft")
    talk.submit(0, "c", "x")
    old = [(s, t, m) for s, t, m in talk.step()]
    for source, target, message in old:
        talk.receive(target, source, message)
    talk.deliver()
    talk.order(SAME, protocol="raft")
    talk.wait(400)
    before = [len(records) for records in talk.records]
    for source, target, message in old:
        if source < 4 and target < 4:
            ready = talk.replicas[target].step(Received(source, message))
            assert not ready.persist
    assert before == [len(records) for records in talk.records]


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_what_waited_during_a_switch_is_passed_on_at_once(protocol: Protocol) -> None:
    """Not a heartbeat later: member 3 got it, and member 1 leads the next epoch."""
    talk = served("raft")
    talk.order(SAME, protocol=protocol)
    while not talk.replicas[3].standing().sealed:
        talk.deliver_once()
    talk.submit(3, "d", "came while the epoch ended")
    talk.deliver()
    assert standings(talk) == [(1, protocol)] * 4
    for member in SAME:
        assert talk.values(member)[-1] == b"came while the epoch ended"
