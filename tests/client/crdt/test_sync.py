"""Two functions and a state: about one round trip, quiet when equal, unmoved by liars."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from client.crdt.people import GENESIS, Members, document, rules, signers
from dwcp.crdt import Document
from dwcp.crdt.bloom import BITS_PER_ENTRY, filter_of, may_hold
from dwcp.crdt.held import HELD_PER_AUTHOR_MAX
from dwcp.crdt.sync import (
    MESSAGE_BYTES,
    SyncState,
    decode,
    encode,
    generate,
    is_equal,
    receive,
)
from dwcp.wire.documents import (
    MAX_NEEDED,
    Filter,
    Operation,
    OperationBody,
    Summary,
    SyncMessage,
    operation_signing_bytes,
)

ROUNDS_MAX = 60


def write(replica: Document, author: int, text: str = "x", epoch: int = 0) -> Operation:
    with replica.edit(signers(8)[author], epoch) as transaction:
        transaction.insert("text", 0, text)
    assert transaction.operation is not None
    return transaction.operation


class Pair:
    """Two replicas and what went over the wire between them."""

    def __init__(self, a: Document, b: Document) -> None:
        self.documents = (a, b)
        self.states = (SyncState(), SyncState())
        self.sent: list[tuple[int, SyncMessage]] = []

    def turn(self, side: int) -> SyncMessage | None:
        message = generate(self.documents[side], self.states[side])
        if message is not None:
            self.sent.append((side, message))
            data = encode(message)
            receive(self.documents[1 - side], self.states[1 - side], decode(data))
        return message

    def run(self) -> int:
        """Take turns until both are quiet; return the number of messages."""
        for _ in range(ROUNDS_MAX):
            if not [message for message in (self.turn(0), self.turn(1)) if message is not None]:
                return len(self.sent)
        raise AssertionError("the two never fall silent")

    def again(self) -> None:
        for state in self.states:
            state.again()


def assert_equal(a: Document, b: Document) -> None:
    assert a.heads == b.heads
    assert a.view() == b.view()


def branches(common: int, left: int, right: int) -> tuple[Document, Document]:
    """Two replicas with a common past and a number of operations of their own each."""
    a, b = document(), document()
    for _ in range(common):
        b.receive(write(a, 0))
    for _ in range(left):
        write(a, 1)
    for _ in range(right):
        write(b, 2)
    return a, b


@pytest.mark.parametrize(
    ("common", "left", "right"), [(0, 0, 7), (5, 0, 0), (5, 3, 0), (5, 3, 4), (0, 60, 60)]
)
def test_two_replicas_become_equal_and_quiet(common: int, left: int, right: int) -> None:
    a, b = branches(common, left, right)
    pair = Pair(a, b)
    assert pair.run() <= 6
    assert_equal(a, b)
    assert generate(a, pair.states[0]) is None
    assert generate(b, pair.states[1]) is None
    assert all(is_equal(d, s) for d, s in zip(pair.documents, pair.states, strict=True))


def test_about_one_round_trip() -> None:
    """Request, answer with request, answer: after three messages both have everything."""
    a, b = branches(20, 10, 10)
    pair = Pair(a, b)
    for side in (0, 1, 0):
        pair.turn(side)
    assert_equal(a, b)


def test_a_change_is_pushed_at_once() -> None:
    a, b = branches(3, 0, 0)
    pair = Pair(a, b)
    pair.run()
    operation = write(a, 1)
    message = pair.turn(0)
    assert message is not None
    assert message.operations == (operation,)
    assert_equal(a, b)
    assert pair.run() <= 5


def test_what_a_peer_sent_is_not_sent_back() -> None:
    a, b = branches(3, 0, 0)
    pair = Pair(a, b)
    pair.run()
    pair.sent.clear()
    write(a, 1)
    pair.run()
    assert [len(message.operations) for side, message in pair.sent if side == 1] in ([], [0])


def test_only_what_differs_is_sent() -> None:
    a, b = branches(200, 5, 5)
    pair = Pair(a, b)
    pair.run()
    sent = sum(len(message.operations) for _, message in pair.sent)
    assert sent <= 20, "the filter and the heads keep the shared 200 off the wire"


def test_messages_are_bounded() -> None:
    a, b = document(), document()
    for _ in range(12):
        write(a, 0, "y" * 60_000)
    pair = Pair(a, b)
    pair.run()
    assert_equal(a, b)
    sizes = [len(encode(message)) for _, message in pair.sent]
    assert len(sizes) >= 4
    assert max(sizes) < MESSAGE_BYTES + 100_000


def test_a_receiver_is_silent_until_a_stream_ends() -> None:
    """A summary for each message would cost a filter over everything each time."""
    a, b = document(), document()
    for _ in range(12):
        write(a, 0, "y" * 60_000)
    pair = Pair(a, b)
    pair.turn(1)
    streamed = []
    while (message := pair.turn(0)) is not None:
        streamed.append(message)
        if message.summary is None:
            assert generate(b, pair.states[1]) is None
    assert len(streamed) >= 3
    assert [message.summary is None for message in streamed][-2:] == [True, False]
    assert generate(b, pair.states[1]) is not None


def test_an_interrupted_transfer_goes_on_in_a_new_connection() -> None:
    a, b = document(), document()
    for _ in range(12):
        write(a, 0, "y" * 60_000)
    first = Pair(a, b)
    for side in (1, 0, 0):
        first.turn(side)
    got = len(b.graph)
    assert 0 < got < 12
    second = Pair(a, b)
    second.run()
    assert_equal(a, b)
    assert sum(len(message.operations) for _, message in second.sent) == 12 - got


@pytest.mark.parametrize("seed", range(12))
def test_lost_messages_are_made_good_by_the_next_round(seed: int) -> None:
    random = Random(seed)
    a, b = branches(10, 40, 40)
    pair = Pair(a, b)
    for _ in range(40):
        for side in (0, 1):
            message = generate(pair.documents[side], pair.states[side])
            if message is not None and random.random() > 0.5:
                receive(pair.documents[1 - side], pair.states[1 - side], message)
        pair.again()
    pair.run()
    assert_equal(a, b)


def test_replicas_that_can_not_become_equal_fall_silent() -> None:
    """Operations of an epoch that one does not know yet are held there; nobody shouts."""
    a = document(members=Members(newest=1))
    b = document(members=Members(newest=0))
    with a.edit(signers(8)[0], epoch=1) as transaction:
        transaction.set("key", 1)
    pair = Pair(a, b)
    assert pair.run() <= 6
    assert len(b.held) == 1
    assert not b.graph.hashes


class TestLiars:
    def summary(self, replica: Document, **changes: object) -> SyncMessage:
        state = SyncState()
        message = generate(replica, state)
        assert message is not None
        assert message.summary is not None
        return SyncMessage(replica.name, msgspec.structs.replace(message.summary, **changes))

    def test_a_filter_that_claims_all_delays_nothing_but_its_own_sync(self) -> None:
        a, b = branches(5, 3, 3)
        full = Filter(b"\xff" * 100, 1, 0)
        liar = SyncState()
        receive(a, liar, self.summary(b, filter=full, heads=(b"u" * 32,)))
        generate(a, liar)
        honest = Pair(a, b)
        honest.run()
        assert_equal(a, b)

    @pytest.mark.parametrize(
        "changes",
        [
            {"heads": tuple(bytes([n, n]) * 16 for n in range(200))},
            {"since": (b"z" * 32,)},
            {"need": tuple(n.to_bytes(32, "big") for n in range(MAX_NEEDED))},
            {"filter": Filter(b"", 16, 2**63 - 1)},
            {"state": b"s" * 32},
        ],
    )
    def test_false_summaries_change_nothing_here(self, changes: dict[str, object]) -> None:
        a, _ = branches(5, 3, 0)
        before = (a.heads, a.view())
        state = SyncState()
        for _ in range(3):
            receive(a, state, self.summary(a, **changes))
            while (message := generate(a, state)) is not None and message.operations:
                pass
        assert (a.heads, a.view()) == before
        assert len(state.queue) <= len(a.graph)
        assert len(state.their_unknown) <= 1024
        assert generate(a, state) is None, "one lie, one answer"

    def test_garbage_is_one_kind_of_error(self) -> None:
        random = Random(7)
        good = encode(self.summary(branches(3, 0, 0)[0]))
        for _ in range(500):
            data = bytearray(good)
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] = random.randrange(256)
            try:
                message = decode(bytes(data[: random.randint(1, len(data))]))
            except msgspec.DecodeError:
                continue
            receive(document(), SyncState(), message)

    def test_operations_without_their_past_are_held_within_bounds(self) -> None:
        """A liar keeps the first operation back and sends what follows: memory is bounded."""
        a, b = document(), document()
        operations = [write(a, 0) for _ in range(HELD_PER_AUTHOR_MAX + 50)]
        state = SyncState()
        receive(b, state, SyncMessage(b.name, None, tuple(operations[1:])))
        assert len(b.held) == HELD_PER_AUTHOR_MAX
        assert b.refused["held-full"] == 49
        Pair(a, b).run()
        assert_equal(a, b)
        assert not len(b.held)

    def test_a_thousand_invented_predecessors_do_not_hide_a_real_one(self) -> None:
        """What is asked for by hash is shared out among authors; else b would never ask."""
        honest, b = document(), document()
        first, second = write(honest, 1), write(honest, 1)
        for number in range(HELD_PER_AUTHOR_MAX):
            past = number.to_bytes(32, "big")
            body = OperationBody("notes", 0, 1, 2, 0, (past,), (), ())
            data = msgspec.msgpack.encode(body)
            signer = signers(8)[2]
            sig = signer.sign(operation_signing_bytes(GENESIS, data))
            assert b.receive(Operation(signer.public_key, data, sig)).outcome == "held"
        b.receive(second)
        message = generate(b, SyncState())
        assert message is not None
        assert message.summary is not None
        assert len(message.summary.need) == MAX_NEEDED
        assert first.hash() in message.summary.need

    def test_a_message_of_another_document_is_refused(self) -> None:
        a, b = document("one"), document("two")
        write(a, 0)
        message = SyncMessage("one", None, tuple(a.operations()))
        assert receive(b, SyncState(), message).refused == ("document",)
        assert b.refused["document"] == 1


def test_selective_sending_does_not_split_the_honest() -> None:
    """A liar gives each of two honest replicas another half; they tell each other."""
    liar, a, b = document(), document(), document()
    first = [write(liar, 0) for _ in range(5)]
    fork = document()
    for operation in first[:2]:
        fork.receive(operation)
    second = [write(fork, 0, "fork") for _ in range(5)]
    for operation in first:
        a.receive(operation)
    for operation in (*first[:2], *second):
        b.receive(operation)
    Pair(a, b).run()
    assert_equal(a, b)
    assert len(a.graph.equivocations) == 3
    assert a.graph.equivocations.keys() == b.graph.equivocations.keys()


class TestFilter:
    def names(self, count: int, kind: str) -> list[bytes]:
        random = Random(kind)
        return [random.randbytes(32) for _ in range(count)]

    def test_nothing_held_is_denied(self) -> None:
        held = self.names(3000, "held")
        filter_ = filter_of(held, 12345)
        assert all(may_hold(filter_, name) for name in held)

    def test_one_in_a_hundred_is_wrongly_claimed(self) -> None:
        filter_ = filter_of(self.names(3000, "held"), 99)
        false = sum(may_hold(filter_, name) for name in self.names(20_000, "other"))
        assert false / 20_000 < 0.02
        assert len(filter_.bits) <= 3000 * BITS_PER_ENTRY // 8 + 1

    def test_a_collision_in_one_filter_is_none_in_the_next(self) -> None:
        held, others = self.names(500, "held"), self.names(20_000, "other")
        first = filter_of(held, 1)
        colliding = [name for name in others if may_hold(first, name)][:20]
        assert len(colliding) >= 5
        again = filter_of(held, 2)
        assert sum(may_hold(again, name) for name in colliding) <= 2

    def test_an_empty_filter_holds_nothing(self) -> None:
        assert not may_hold(filter_of([], 0), b"n" * 32)


def test_many_operations_beyond_one_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more news than a filter covers, the newest are covered and all still arrives."""
    monkeypatch.setattr("dwcp.crdt.sync.ENTRIES_MAX", 16)
    a, b = branches(10, 100, 100)
    Pair(a, b).run()
    assert_equal(a, b)


def test_first_contact_after_a_long_common_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one filter covers, but the older part is named by its heads."""
    monkeypatch.setattr("dwcp.crdt.sync.ENTRIES_MAX", 32)
    a, b = branches(300, 5, 5)
    pair = Pair(a, b)
    pair.run()
    assert_equal(a, b)
    assert sum(len(message.operations) for _, message in pair.sent) < 60


@pytest.mark.parametrize("followers", [0, 3])
def test_what_a_filter_hides_is_asked_for(followers: int) -> None:
    """An operation that a's filter wrongly claims is kept back by b, and a asks for it by hash.

    b does not know a's epoch, can not take a's operations, and so depends on a's filter.
    """
    a, b = document(members=Members(newest=1)), document(members=Members(newest=0))
    for _ in range(5):
        b.receive(write(a, 0))
    for _ in range(12):
        write(a, 1, epoch=1)
    first = generate(a, SyncState())
    assert first is not None
    assert first.summary is not None
    for number in range(10_000):
        trial = Document.restore(b.dump(), rules(Members(newest=0)))
        hidden = write(trial, 2, f"try {number}")
        if may_hold(first.summary.filter, hidden.hash()):
            break
    else:
        raise AssertionError("no collision found")
    later = [write(trial, 2) for _ in range(followers)]
    pair = Pair(a, trial)
    pair.turn(0)
    message = pair.turn(1)
    assert message is not None
    assert hidden not in message.operations
    pair.run()
    assert all(operation.hash() in a.graph for operation in (hidden, *later))


def test_a_summary_is_short_when_one_side_only_lags() -> None:
    a, b = branches(500, 0, 0)
    pair = Pair(a, b)
    pair.run()
    write(a, 1)
    message = pair.turn(0)
    assert message is not None
    assert isinstance(message.summary, Summary)
    assert len(encode(message)) < 1000
