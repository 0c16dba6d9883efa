"""From one epoch to the next: every trigger, every message lost, every member restarted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dwcp.wire.envelope import Batch, batch_digest
from dwcp.wire.epochs import Panic, Panics, Seal, SlotProposal, SlotVote, SwitchProof
from dwcp.wire.peer import Equivocation, Fork, Header, PeerMessage, PrePrepare
from dwcp.wire.records import scope_of
from dwcp.wire.switch import AdminSwitch, RequestedSwitch, SwitchRequest
from dwcp_replica.core.effects import MessageRefused, Received, SealedRecord
from replica.core.conversation import WALL_MS, Conversation

SAME = [0, 1, 2, 3]


def served(values: int = 1, **options: int) -> Conversation:
    """A cluster that has executed a few requests."""
    talk = Conversation(**options)
    for value in range(values):
        talk.submit(0, "a", str(value))
        talk.deliver()
    return talk


def epochs(talk: Conversation) -> list[int]:
    return [r.standing().epoch for r in talk.replicas]


def goes_on(talk: Conversation, value: str, members: list[int] = SAME) -> None:
    """A request is executed everywhere, once."""
    talk.submit(members[1], "b", value)
    talk.wait(1500)
    for member in members:
        assert talk.values(member).count(value.encode()) == 1, f"member {member}"
    assert len({tuple(talk.values(member)) for member in members}) == 1


def signed_panic(talk: Conversation, member: int, epoch: int = 0) -> Panic:
    unsigned = Panic(epoch, member, bytes(64))
    record = talk.replicas[0].standing().record
    sig = talk.signers[member].sign(unsigned.signing_bytes(scope_of(talk.genesis, record)))
    return msgspec.structs.replace(unsigned, sig=sig)


def test_the_admin_refreshes_the_epoch() -> None:
    talk = served()
    talk.order(SAME)
    talk.wait(200)
    assert epochs(talk) == [1, 1, 1, 1]
    record = talk.replicas[0].standing().record
    assert (record.start_index, record.leader, record.protocol) == (2, 1, "pbft")
    assert record.previous == talk.genesis.hash()
    goes_on(talk, "after")


def test_many_switches_under_load_lose_and_repeat_nothing() -> None:
    talk = Conversation(interval=4)
    sent = []
    for turn in range(8):
        for part in range(3):
            value = f"{turn}.{part}"
            talk.submit((turn + part) % 4, "k", value)
            sent.append(value.encode())
        talk.order(SAME, to=turn % 4)
        talk.wait(200)
    talk.wait(2000)
    assert epochs(talk) == [8] * 4
    assert all(sorted(talk.values(member)) == sorted(sent) for member in range(4))
    assert len({tuple(talk.values(member)) for member in range(4)}) == 1


def test_panics_of_f_plus_one_members_end_the_epoch_and_those_of_f_do_not() -> None:
    talk = served()
    talk.receive(1, 3, signed_panic(talk, 3))
    talk.deliver()
    assert epochs(talk) == [0, 0, 0, 0]
    talk.receive(1, 2, signed_panic(talk, 2))
    talk.deliver()
    assert epochs(talk) == [1, 1, 1, 1], "one member heard both, and passed them on"
    goes_on(talk, "after")


def test_a_proof_of_equivocation_bars_its_leader() -> None:
    talk = served()
    talk.receive(2, 3, equivocation(talk))
    talk.wait(500)
    assert {r.standing().record.barred for r in talk.replicas} == {(0,)}
    for _ in range(3):
        talk.order(SAME, to=1)
        talk.wait(300)
    record = talk.replicas[1].standing().record
    assert record.epoch == 4
    assert record.barred == (0,), "for as long as it is a member"
    assert record.leader == 1, "0 would be next"
    assert [record.primary(view) for view in (1, 2, 3, 4)] == [1, 2, 3, 1]


def equivocation(talk: Conversation, epoch: int = 0) -> Equivocation:
    """Two headers of the genesis leader at index 1."""
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    first = next(e.header for e in entries if e is not None and e.header.index == 1)
    return Equivocation(first, resigned(talk, first, 0, batch=bytes(32)))


def resigned(talk: Conversation, header: Header, member: int, **changes: object) -> Header:
    changed = msgspec.structs.replace(header, **changes)
    record = talk.replicas[1].standing().record
    sig = talk.signers[member].sign(changed.signing_bytes(scope_of(talk.genesis, record)))
    return msgspec.structs.replace(changed, sig=sig)


def test_a_view_begun_twice_from_starts_of_different_length_is_a_proof() -> None:
    """The two first entries stand at different indexes: comparing by index would miss it."""
    talk = served(3)
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    chain = [e.header for e in entries if e is not None]
    other = resigned(talk, chain[0], 0, batch=bytes(32))  # a second beginning, below
    proof = Fork(other, tuple(chain[:3]))
    talk.receive(1, 2, proof)
    talk.wait(500)
    assert {r.standing().record.barred for r in talk.replicas} == {(0,)}
    assert talk.replicas[1].standing().evidence[0].kind == "fork"


@pytest.mark.parametrize("case", ["same-chain", "unlinked", "another-term", "forged"])
def test_what_is_no_fork_convicts_nobody(case: str) -> None:
    talk = served(3)
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    chain = [e.header for e in entries if e is not None]
    other = resigned(talk, chain[0], 0, batch=bytes(32))
    proofs = {
        "same-chain": Fork(chain[0], tuple(chain[:3])),
        "unlinked": Fork(other, (chain[0], chain[2])),
        "another-term": Fork(resigned(talk, chain[0], 1, batch=bytes(32), term=2), tuple(chain)),
        "forged": Fork(resigned(talk, chain[0], 2, batch=bytes(32)), tuple(chain[:3])),
    }
    talk.receive(1, 2, proofs[case])
    talk.wait(500)
    assert epochs(talk) == [0, 0, 0, 0]
    assert talk.replicas[1].standing().evidence == ()


# --- one honest seal leads to all --------------------------------------------------------------


@pytest.mark.parametrize("reached", [0, 1, 2, 3])
def test_a_trigger_that_reached_one_member_reaches_all(reached: int) -> None:
    talk = served()
    panics = Panics((signed_panic(talk, 2), signed_panic(talk, 3)))
    talk.receive(reached, (reached + 1) % 4, panics)
    talk.wait(3000)
    assert epochs(talk) == [1, 1, 1, 1]


def test_a_seal_alone_ends_the_epoch_elsewhere() -> None:
    """Its trigger is inside; nothing else got through."""
    talk = served()
    talk.receive(1, 0, Panics((signed_panic(talk, 2), signed_panic(talk, 3))))
    seal = next(m for s, _, m in talk.step() if s == 1 and isinstance(m, Seal))
    talk.receive(3, 1, seal)
    assert talk.replicas[3].standing().sealed


def test_a_sealed_replica_signs_nothing_in_its_log() -> None:
    talk = served()
    talk.receive(1, 0, Panics((signed_panic(talk, 2), signed_panic(talk, 3))))
    talk.step()
    talk.submit(0, "b", "2")
    proposal = next(m for _, t, m in talk.step() if t == 1 and isinstance(m, PrePrepare))
    before = len(talk.records[1])
    talk.receive(1, 0, proposal)
    assert not talk.step()
    assert len(talk.records[1]) == before


def test_who_has_sealed_its_epoch_or_lacks_its_start_answers_no_linearizable_read() -> None:
    """Others may be at work in the next epoch, and have confirmed writes there."""
    talk = served()
    before = talk.replicas[1].standing()
    assert before.shows_newest(before.applied)
    talk.receive(1, 0, Panics((signed_panic(talk, 2), signed_panic(talk, 3))))
    sealed = talk.replicas[1].standing()
    assert not sealed.shows_newest(sealed.applied)
    talk.wait(500)
    begun = talk.replicas[1].standing()
    assert begun.record.epoch == 1
    assert begun.shows_newest(begun.record.start_index)
    assert not begun.shows_newest(begun.record.start_index - 1)


def test_the_seal_never_changes() -> None:
    """Not by time, not by what arrives after it, not by a restart."""
    talk = served(3)
    talk.isolate(1)
    talk._act(1, Received(0, Panics((signed_panic(talk, 2), signed_panic(talk, 3)))))
    seals = set()
    for _ in range(3):
        seals |= {msgspec.msgpack.encode(m) for s, _, m in talk.step() if isinstance(m, Seal)}
        talk.now_ms += 1000
        talk.restart(1)
        for _ in range(2):
            talk.now_ms += 500
            talk._act(1, tick(talk))
    assert len(seals) == 1
    assert sum(isinstance(r, SealedRecord) for r in talk.records[1]) == 1


def tick(talk: Conversation) -> object:
    from dwcp_replica.core.effects import Tick

    return Tick(talk.now_ms, WALL_MS + talk.now_ms)


# --- members that are down, slow or restarted --------------------------------------------------


@pytest.mark.parametrize("down", [0, 1, 2, 3])
def test_one_member_may_be_down(down: int) -> None:
    """Also the leader, and the slot's first primary (member 1 for epoch 1)."""
    talk = served(3, interval=2)
    talk.crash(down)
    to = (down + 1) % 4
    talk.order(SAME, to=to)
    talk.wait(8000)
    up = [m for m in SAME if m != down]
    assert {talk.replicas[m].standing().epoch for m in up} == {1}
    talk.restart(down)
    talk.wait(3000)
    assert epochs(talk) == [1, 1, 1, 1]
    goes_on(talk, "after")


def test_a_member_that_missed_three_epochs_follows_them() -> None:
    talk = served(3, interval=2)
    talk.isolate(3)
    for turn in range(3):
        talk.order(SAME, to=0)
        talk.wait(300)
        talk.submit(0, "m", f"missed {turn}")
        talk.wait(300)
    assert epochs(talk) == [3, 3, 3, 0]
    talk.cut.clear()
    talk.wait(3000)
    assert epochs(talk) == [3, 3, 3, 3]
    assert talk.values(3) == talk.values(0)
    goes_on(talk, "after")


@pytest.mark.parametrize("rounds", range(1, 9))
def test_all_restart_in_the_middle_of_a_switch(rounds: int) -> None:
    talk = served(3, interval=2)
    talk.order(SAME)
    for _ in range(rounds):
        talk.deliver_once()
    talk.inbox.clear()
    for member in SAME:
        talk.crash(member)
    for member in SAME:
        talk.restart(member)
    talk.wait(6000)
    assert len(set(epochs(talk))) == 1
    goes_on(talk, "after")
    talk.order(SAME, to=2)
    talk.wait(1000)
    goes_on(talk, "and after that")


@pytest.mark.parametrize("member", [0, 1, 2, 3])
def test_every_prefix_of_the_records_resumes(member: int) -> None:
    """A replica that lost nothing it had promised goes on from wherever its disk ends."""
    talk = served(2, interval=2)
    talk.order(SAME)
    talk.wait(500)
    talk.submit(1, "b", "x")
    talk.wait(300)
    talk.order(SAME, to=3)
    talk.wait(500)
    whole = list(talk.records[member])
    assert talk.replicas[member].standing().epoch == 2
    for length in range(len(whole) + 1):
        talk.crash(member)
        talk.records[member] = whole[:length]
        talk.restart(member)
        standing = talk.replicas[member].standing()
        assert standing.final <= 6
    talk.wait(3000)
    assert talk.values(member) == talk.values((member + 1) % 4)


# --- what counts as a SWITCH -------------------------------------------------------------------


def requests(talk: Conversation, members: list[int], epoch: int = 0) -> RequestedSwitch:
    record = talk.replicas[0].standing().record
    made = []
    for member in members:
        unsigned = SwitchRequest(epoch, "pbft", member, bytes(64))
        sig = talk.signers[member].sign(unsigned.signing_bytes(scope_of(talk.genesis, record)))
        made.append(msgspec.structs.replace(unsigned, sig=sig))
    return RequestedSwitch("pbft", tuple(made))


def order(talk: Conversation, signer: object = None, **changes: object) -> AdminSwitch:
    unsigned = AdminSwitch(0, "pbft", talk.genesis.members, bytes(64))
    unsigned = msgspec.structs.replace(unsigned, **changes)
    signer = signer or talk.admin
    scope = scope_of(talk.genesis, talk.genesis)
    return msgspec.structs.replace(unsigned, sig=signer.sign(unsigned.signing_bytes(scope)))


def proposal(talk: Conversation, batch: Batch) -> PrePrepare:
    """An entry that the leader signs at the next index."""
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    last = [e.header for e in entries if e is not None][-1]
    body = msgspec.msgpack.encode(batch)
    header = resigned(
        talk, last, 0, index=last.index + 1, prev=last.hash(), batch=batch_digest(body)
    )
    from dwcp.wire.peer import Entry

    return PrePrepare(Entry(header, body))


BAD_SWITCHES: dict[str, Callable[[Conversation], object]] = {
    "switch-requests": lambda t: requests(t, [1]),
    "switch-epoch": lambda t: order(t, epoch=1),
    "switch-signature": lambda t: order(t, t.client),
    "switch-count": lambda t: order(t, members=t.genesis.members[:3]),
    "switch-members": lambda t: order(t, members=(t.genesis.members[0],) * 4),
    "switch-protocol": lambda t: msgspec.structs.replace(requests(t, [1, 2]), protocol="other"),
}


@pytest.mark.parametrize("reason", BAD_SWITCHES)
def test_a_leader_alone_switches_nothing(reason: str) -> None:
    talk = served()
    batch = Batch(WALL_MS + talk.now_ms, (), BAD_SWITCHES[reason](talk))  # type: ignore[arg-type]
    ready = talk.replicas[1].step(Received(0, proposal(talk, batch)))
    found = [e.reason for e in ready.events if isinstance(e, MessageRefused)]
    assert found in ([reason], ["body"])
    assert not ready.persist


def test_f_plus_one_members_may_ask_for_a_refresh() -> None:
    talk = served()
    for request in requests(talk, [2, 3]).requests:
        for member in (0, 1):
            talk.receive(member, request.member, request)
    talk.wait(300)
    assert epochs(talk) == [1, 1, 1, 1]


@pytest.mark.parametrize("what", ["order", "requests"])
def test_a_primary_that_keeps_a_switch_back_is_replaced(what: str) -> None:
    """It does all else, so that only the switch itself can depose it."""
    talk = served()
    kept = (order(talk),) if what == "order" else requests(talk, [2, 3]).requests
    for message in kept:
        for member in (1, 2, 3):
            talk.receive(member, 3 if member != 3 else 2, message)
    for _ in range(60):
        for source, target, message in talk.step():
            if target != 0 or not isinstance(message, AdminSwitch | SwitchRequest):
                talk.receive(target, source, message)
        talk.now_ms += 50
        for member in SAME:
            talk._act(member, tick(talk))
    assert [r.standing().record.epoch for r in talk.replicas] == [1, 1, 1, 1]


def test_a_request_that_everybody_missed_is_repeated() -> None:
    """The primary does not hear the mute member, and what others say for it is lost at first."""
    talk = served()
    talk.crash(3)
    talk.damaged[3] = "damaged tail"
    talk.restart(3)
    lost: set[tuple[int, int]] = set()
    for _ in range(80):
        for source, target, message in talk.step():
            asks = isinstance(message, SwitchRequest)
            if asks and (source == 3 or (source, target) not in lost) and target == 0:
                lost.add((source, target))
            else:
                talk.receive(target, source, message)
        talk.now_ms += 50
        for member in SAME:
            talk._act(member, tick(talk))
    assert lost == {(1, 0), (2, 0), (3, 0)}
    assert epochs(talk) == [1, 1, 1, 1]


def test_an_order_of_an_older_epoch_is_void() -> None:
    talk = served()
    old = talk.order(SAME)
    talk.wait(300)
    talk.receive(2, 0, old)
    talk.wait(600)
    assert epochs(talk) == [1, 1, 1, 1]


# --- forged parts ------------------------------------------------------------------------------


def recorded(talk: Conversation, kind: type[PeerMessage]) -> list[tuple[int, int, PeerMessage]]:
    """Let a switch happen; what was sent of a kind."""
    found: list[tuple[int, int, PeerMessage]] = []
    for _ in range(60):
        for source, target, message in talk.step():
            if isinstance(message, kind):
                found.append((source, target, message))
            talk.receive(target, source, message)
    return found


FORGERIES: dict[
    str, tuple[type[PeerMessage], Callable[[Conversation, PeerMessage], PeerMessage]]
] = {
    "seal-without-trigger": (
        Seal,
        lambda t, m: reseal(t, m, trigger=Panics((signed_panic(t, 3),))),  # type: ignore[arg-type]
    ),
    "seal-of-another": (Seal, lambda t, m: msgspec.structs.replace(m, member=3)),
    "seal-with-less": (Seal, lambda t, m: msgspec.structs.replace(m, log=())),
    "seal-with-unsigned-entries": (
        Seal,
        lambda t, m: reseal(
            t,
            m,
            log=(*m.log[:-1], msgspec.structs.replace(m.log[-1], sig=bytes(64))),  # type: ignore[union-attr]
        ),
    ),
    "proposal-in-another-name": (
        SlotProposal,
        lambda t, m: msgspec.structs.replace(m, member=2),
    ),
    "vote-in-another-name": (SlotVote, lambda t, m: msgspec.structs.replace(m, member=3)),
    "switch-proof-without-quorum": (
        SwitchProof,
        lambda t, m: msgspec.structs.replace(
            m,
            certificate=msgspec.structs.replace(m.certificate, votes=m.certificate.votes[:1]),  # type: ignore[union-attr]
        ),
    ),
}


def reseal(talk: Conversation, seal: Seal, **changes: object) -> Seal:
    changed = msgspec.structs.replace(seal, **changes)
    signed = changed.signing_bytes(scope_of(talk.genesis, talk.genesis))
    return msgspec.structs.replace(changed, sig=talk.signers[seal.member].sign(signed))


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_part_is_refused_and_changes_nothing(case: str) -> None:
    kind, forge = FORGERIES[case]
    talk, fresh = served(2), served(2)
    talk.wait(150)
    talk.order(SAME)
    source, target, message = recorded(talk, kind)[0]
    fresh.wait(150)
    ready = fresh.replicas[target].step(Received(source, forge(fresh, message)))
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)]
    assert not ready.persist
    assert not fresh.replicas[target].standing().sealed
