"""State transfer: what differs is fetched, each part proved, from whoever has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from dwcp.wire.operations import PutRequest
from dwcp.wire.peer import Entries, PeerMessage, VoteSig
from dwcp.wire.state import (
    FetchState,
    StableCheckpoint,
    StateChunk,
    StateNode,
    StateRecord,
    StateValue,
)
from dwcp_replica.core import transfer
from dwcp_replica.core.effects import (
    MessageRefused,
    Received,
    SourceLied,
    TransferDone,
    TransferStarted,
)
from dwcp_replica.core.trie import value_hash
from dwcp_replica.store.records import MemoryRecords
from replica.core.stateful import Stateful, left_behind

Change = Callable[[PeerMessage], PeerMessage]


def tapped(talk: Stateful, sender: int, change: Change) -> None:
    """Member `sender` says what `change` makes of its words."""
    receive = talk.receive

    def heard(member: int, source: int, message: PeerMessage) -> None:
        receive(member, source, change(message) if source == sender else message)

    talk.receive = heard  # type: ignore[method-assign]


def counted(talk: Stateful) -> Counter[int]:
    """Bytes of state that member 3 gets, by sender."""
    sizes: Counter[int] = Counter()
    receive = talk.receive

    def heard(member: int, source: int, message: PeerMessage) -> None:
        if member == 3 and isinstance(message, StateChunk):
            sizes[source] += len(msgspec.msgpack.encode(message))
        receive(member, source, message)

    talk.receive = heard  # type: ignore[method-assign]
    return sizes


def test_a_member_left_behind_fetches_what_differs_and_executes_on() -> None:
    talk = left_behind(keys=4000, changed=1)
    sizes = counted(talk)
    talk.restart(3)
    talk.wait(3000)
    assert len(talk.of(3, TransferDone)) == 1
    talk.put(900, 905)
    talk.wait(1000)
    assert len(set(talk.digests())) == 1
    assert talk.replicas[3].standing().final == talk.replicas[0].standing().final
    assert len(sizes) > 1, "several members help at once"
    whole = sum(len(k) + len(v) for k, v in talk.stores[0].records())
    assert sizes.total() < whole / 2


def test_it_votes_again_and_counts_for_a_quorum() -> None:
    talk = left_behind()
    talk.restart(3)
    talk.wait(3000)
    talk.crash(2)
    before = talk.replicas[0].standing().final
    talk.put(0, 1, b"by three")
    talk.wait(3000)
    assert talk.replicas[0].standing().final > before
    assert talk.replicas[3].standing().final == talk.replicas[0].standing().final


def test_sessions_come_with_the_state() -> None:
    """A request that was executed while the member was away is not executed there again."""
    talk = left_behind()
    talk.restart(3)
    talk.wait(3000)
    assert [talk.stores[m].revision for m in range(4)] == [talk.stores[0].revision] * 4
    for member in range(3):
        talk.crash(member)
        talk.restart(member)
    talk.wait(500)
    talk.write(PutRequest(b"x", b"1"))
    talk.wait(2000)
    assert len(set(talk.digests())) == 1


def _first_node(change: Callable[[StateNode], StateNode]) -> Change:
    def lie(message: PeerMessage) -> PeerMessage:
        if not isinstance(message, StateChunk) or not message.nodes:
            return message
        return msgspec.structs.replace(
            message, nodes=(change(message.nodes[0]), *message.nodes[1:])
        )

    return lie


def _other_value(node: StateNode) -> StateNode:
    if node.children:
        return msgspec.structs.replace(node, children=(bytes([7]) * 32, *node.children[1:]))
    first = node.records[0]
    changed = StateRecord(first.key, first.hash, b"lie")
    return msgspec.structs.replace(node, records=(changed, *node.records[1:]))


def _with_its_hash(node: StateNode) -> StateNode:
    if node.children:
        return msgspec.structs.replace(node, children=node.children[:15])
    first = node.records[0]
    changed = StateRecord(first.key, value_hash(b"lie"), b"lie")
    return msgspec.structs.replace(node, records=(changed, *node.records[1:]))


def _left_out(node: StateNode) -> StateNode:
    if node.children:
        return msgspec.structs.replace(node, children=(bytes(32),) * 16)
    return msgspec.structs.replace(node, records=node.records[1:])


def _both_kinds(node: StateNode) -> StateNode:
    record = StateRecord(b"k", value_hash(b""), b"")
    children = node.children or (bytes(32),) * 16
    return msgspec.structs.replace(node, children=children, records=(record,))


def _nothing(message: PeerMessage) -> PeerMessage:
    if isinstance(message, StateChunk):
        return msgspec.structs.replace(message, nodes=(), values=())
    return message


def _twice(message: PeerMessage) -> PeerMessage:
    if isinstance(message, StateChunk):
        return msgspec.structs.replace(message, nodes=message.nodes * 2)
    return message


LIES = {
    "twice": _twice,
    "other value": _first_node(_other_value),
    "value with its hash": _first_node(_with_its_hash),
    "left out": _first_node(_left_out),
    "leaf and inner": _first_node(_both_kinds),
    "nothing": _nothing,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("liar", [0, 1])
def test_a_lying_source_is_named_and_others_are_used(liar: int, lie: Change) -> None:
    talk = left_behind()
    tapped(talk, liar, lie)
    talk.restart(3)
    talk.wait(6000)
    assert len(talk.of(3, TransferDone)) == 1
    assert {event.member for event in talk.of(3, SourceLied)} == {liar}  # type: ignore[union-attr]
    assert len(talk.of(3, SourceLied)) == 1, "it is not asked again"
    assert len(set(talk.digests())) == 1


def _checkpoint(change: Callable[[StableCheckpoint], StableCheckpoint]) -> Change:
    def lie(message: PeerMessage) -> PeerMessage:
        return change(message) if isinstance(message, StableCheckpoint) else message

    return lie


def _forged_votes(shown: StableCheckpoint) -> StableCheckpoint:
    votes = tuple(VoteSig(member, bytes(64)) for member in range(4))
    certificate = msgspec.structs.replace(shown.certificate, votes=votes)
    return msgspec.structs.replace(shown, certificate=certificate)


def _other_state(shown: StableCheckpoint) -> StableCheckpoint:
    certificate = msgspec.structs.replace(shown.certificate, state=bytes(32))
    return msgspec.structs.replace(shown, certificate=certificate)


def _too_few(shown: StableCheckpoint) -> StableCheckpoint:
    votes = shown.certificate.votes[:2]
    certificate = msgspec.structs.replace(shown.certificate, votes=votes)
    return msgspec.structs.replace(shown, certificate=certificate)


FORGED = {
    "votes": (_forged_votes, "certificate"),
    "state": (_other_state, "certificate"),
    "too few": (_too_few, "certificate"),
    "body": (lambda shown: msgspec.structs.replace(shown, body=b"\x90"), "digest"),
}


@pytest.mark.parametrize(("forge", "reason"), FORGED.values(), ids=FORGED)
def test_a_checkpoint_that_no_quorum_signed_leads_nowhere(
    forge: Callable[[StableCheckpoint], StableCheckpoint], reason: str
) -> None:
    talk = left_behind()
    for liar in range(3):
        tapped(talk, liar, _checkpoint(forge))
    talk.restart(3)
    talk.wait(4000)
    assert not talk.of(3, TransferStarted)
    assert reason in {e.reason for e in talk.of(3, MessageRefused)}  # type: ignore[union-attr]
    assert talk.stores[3].target is None


def test_what_was_not_asked_for_changes_nothing() -> None:
    talk = left_behind()
    shown: list[StableCheckpoint] = []
    tapped(talk, 0, _checkpoint(lambda message: (shown.append(message), message)[1]))
    talk.restart(3)
    talk.wait(3000)
    state = shown[0].certificate.state
    chunk = StateChunk(shown[0].certificate.header.index, state, ())
    for message in (chunk, shown[0]):
        ready = talk.replicas[3].step(Received(0, message))
        assert not ready.persist, message
        assert ready.transfer is None, message
        assert [e.reason for e in ready.events] == ["not-asked"]  # type: ignore[union-attr]


def test_progress_outlives_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed again and again in the middle, it fetches little more than once."""
    monkeypatch.setattr(transfer, "SAVE_BYTES", 2000)

    def fetched(crashes: int) -> int:
        talk = left_behind(keys=2000, entries=40)
        sizes = counted(talk)
        talk.committed[3] = None
        talk.records[3].clear()
        talk.restart(3)
        for _ in range(crashes):
            for _ in range(200):
                talk.now_ms += 50
                talk.wait(50)
                if talk.stores[3].target is not None:
                    break
            for _ in range(6):
                talk.deliver_once()
            talk.crash(3)
            talk.restart(3)
        talk.wait(20_000)
        assert len(set(talk.digests())) == 1
        return sizes.total()

    assert fetched(4) < 1.6 * fetched(0)


def test_long_values_come_by_themselves() -> None:
    talk = Stateful(timeout_ms=4000)
    talk.open()
    talk.crash(3)
    for number in range(8):
        talk.write(PutRequest(b"long%d" % number, bytes([number]) * 300_000))
    talk.wait(500)
    values: list[StateValue] = []
    tapped(talk, 1, lambda m: (values.extend(m.values), m)[1] if isinstance(m, StateChunk) else m)
    talk.restart(3)
    talk.wait(4000)
    assert len(set(talk.digests())) == 1
    assert values
    assert all(len(value.value) > 300_000 for value in values)


def test_a_changed_long_value_is_refused() -> None:
    talk = Stateful(timeout_ms=4000)
    talk.open()
    talk.crash(3)
    for number in range(8):
        talk.write(PutRequest(b"long%d" % number, bytes([number]) * 300_000))
    talk.wait(500)

    def lie(message: PeerMessage) -> PeerMessage:
        if isinstance(message, StateChunk):
            values = tuple(StateValue(v.key, v.value[:-1] + b"!") for v in message.values)
            return msgspec.structs.replace(message, values=values)
        return message

    tapped(talk, 1, lie)
    talk.restart(3)
    talk.wait(6000)
    assert {e.member for e in talk.of(3, SourceLied)} == {1}  # type: ignore[union-attr]
    assert len(set(talk.digests())) == 1


def test_a_lost_state_is_fetched_though_the_log_is_there() -> None:
    talk = left_behind(entries=0)
    talk.restart(3)
    talk.put(0, 3, b"together")
    talk.wait(500)
    talk.put(3, 6, b"together")
    talk.wait(500)
    base = talk.replicas[3].standing().log_base
    assert base > 0
    talk.crash(3)
    talk.committed[3] = None
    talk.records[3] = talk.replicas[3].durable()
    talk.restart(3)
    talk.wait(3000)
    started = talk.of(3, TransferStarted)
    assert [event.reason for event in started] == ["state-lost"]  # type: ignore[union-attr]
    assert len(set(talk.digests())) == 1


def test_a_state_above_a_damaged_log_is_made_good() -> None:
    """The log lost its end, and the state is further than what is left of it."""
    talk = left_behind(entries=0)
    talk.restart(3)
    for number in range(6):
        talk.put(number, number + 3, b"together")
    talk.wait(500)
    talk.crash(3)
    del talk.records[3][len(talk.records[3]) // 3 :]
    talk.restart(3)
    talk.put(0, 3, b"on")
    talk.wait(4000)
    assert len(set(talk.digests())) == 1


def test_one_peer_gets_only_its_share() -> None:
    """However often it asks, what it is sent stays within its allowance."""
    talk = left_behind()
    core = talk.replicas[0]._core
    index, state = core.low, core.stable.state  # type: ignore[union-attr]
    sent = 0
    for _ in range(20_000):
        ask = FetchState(index, state, tuple(b"%x" % nibble for nibble in range(16)))
        ready = talk.replicas[0].step(Received(3, ask))
        sent += sum(len(msgspec.msgpack.encode(out.message)) for out in ready.send)
    assert 0 < sent < 40 * 1024 * 1024


@pytest.mark.parametrize("place", [b"g", b"0" * 64 + b"0", b"A", b"\xff"])
def test_places_that_can_not_be_are_refused(place: bytes) -> None:
    talk = left_behind()
    core = talk.replicas[0]._core
    if len(place) > 64:
        return  # the wire refuses it: tests/replica/test_wire_limits.py
    ask = FetchState(core.low, core.stable.state, (place,))  # type: ignore[union-attr]
    ready = talk.replicas[0].step(Received(3, ask))
    assert [e.reason for e in ready.events] == ["place"]  # type: ignore[union-attr]
    assert not ready.send


def test_sources_that_move_on_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster makes checkpoints faster than one is fetched: it aims at newer ones."""
    monkeypatch.setattr("dwcp_replica.core.state_source.PARTS_AT_ONCE", 4)
    monkeypatch.setattr(transfer, "PARTS_AT_ONCE", 4)
    monkeypatch.setattr("dwcp_replica.store.shelf.VIEWS_MAX", 1)
    talk = left_behind(keys=1200)
    talk.restart(3)
    deliver = talk.deliver
    talk.deliver = lambda: [talk.deliver_once() for _ in range(4)]  # type: ignore[assignment, func-returns-value, return-value]
    for number in range(60):
        talk.put(number, number + 2, b"busy %d" % number)
        talk.wait(50)
    talk.deliver = deliver  # type: ignore[method-assign]
    talk.wait(20_000)
    assert len(talk.of(3, TransferStarted)) > 1
    assert len(set(talk.digests())) == 1


def test_no_log_no_entries() -> None:
    """Where the log still leads there, entries are fetched, not the state."""
    talk = Stateful(interval=10, timeout_ms=4000)
    talk.open()
    talk.crash(3)
    for number in range(5):
        talk.put(number, number + 1)
    entries: list[Entries] = []
    tapped(talk, 0, lambda m: (entries.append(m), m)[1] if isinstance(m, Entries) else m)
    talk.restart(3)
    talk.wait(3000)
    assert not talk.of(3, TransferStarted)
    assert entries
    assert len(set(talk.digests())) == 1
    assert isinstance(talk.stores[3].held, MemoryRecords)


def test_who_is_asked_to_lead_while_it_fetches_leads_as_soon_as_it_has_the_state() -> None:
    """No VIEW-CHANGE comes after that: without a push the view would time out."""
    talk = left_behind()
    held: list[PeerMessage] = []
    receive = talk.receive

    def heard(member: int, source: int, message: PeerMessage) -> None:
        if member == 3 and isinstance(message, StateChunk):
            held.append(message)
        else:
            receive(member, source, message)

    talk.receive = heard  # type: ignore[method-assign]
    talk.restart(3)
    talk.wait(1500)
    assert held
    for primary in (0, 1, 2):
        talk.hand_over(primary)
        talk.deliver()
    standings = [replica.standing() for replica in talk.replicas]
    assert {(s.view, s.primary, s.active) for s in standings} == {(4, 3, False)}
    assert standings[3].transfer is not None
    talk.receive = receive  # type: ignore[method-assign]
    talk.wait(2500)  # what was held back is asked for again after a second
    standings = [replica.standing() for replica in talk.replicas]
    assert {(s.view, s.active) for s in standings} == {(4, True)}
    assert len(set(talk.digests())) == 1
