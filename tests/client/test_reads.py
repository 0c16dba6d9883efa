"""Reads beside the log: enough equal replies, or the log; whatever f liars say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.members import Members, results
from dwcp.outcomes import Answered, Declined, TicketOutcome
from dwcp.reads import SEED_BYTES
from dwcp.session import SessionCore
from dwcp.waiting import Limits
from dwcp.wire.envelope import Envelope, decode_body
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.operations import (
    Failure,
    KeyValue,
    PutRequest,
    RangeRequest,
    RangeResponse,
    SessionOpened,
)
from dwcp.wire.query import Query, decode_query_body, query_reply_signing_bytes
from dwcp.wire.records import scope_of

READ = RangeRequest(b"k")
OLD_READ = RangeRequest(b"k", serializable=True)
NOTHING = results(RangeResponse())
OLD = results(RangeResponse((KeyValue(b"k", 2, 2, 1, b"old"),), count=1))
NEW = results(RangeResponse((KeyValue(b"k", 2, 3, 2, b"new"),), count=1))


class Asking:
    """One client whose members say what the test says."""

    def __init__(self, n: int = 4, *, fast: bool = True, limits: Limits | None = None) -> None:
        self.members = Members(n, fast_reads=fast)
        m = self.members
        self.core = SessionCore(m.genesis, m.client, m.verifier, limits, bytes(SEED_BYTES))
        self.now_ms = 1000
        self.outcomes: dict[int, TicketOutcome] = {}
        self.lies: list[int] = []
        for member in range(n):
            self.core.connected(member)

    def poll(self) -> list[tuple[int, Envelope | Query]]:
        self.core.tick(self.now_ms)
        if self.core.wants_session(self.now_ms):
            self.core.open(bytes(16), 1, self.now_ms)
        out = self.core.poll(self.now_ms)
        self.outcomes.update(out.outcomes)
        self.lies += [lie.member for lie in out.lies]
        return out.send

    def ask(self, *reads: RangeRequest) -> tuple[int, Query]:
        """Submit reads; the query that goes to every member."""
        ticket = self.core.submit(reads)
        sends = self.poll()
        assert [m for m, _ in sends] == list(range(self.members.n))
        query = sends[0][1]
        assert isinstance(query, Query)
        assert all(sent is query for _, sent in sends)
        return ticket, query

    def say(self, member: int, query: Query, content: bytes, **more: int) -> None:
        reply = self.members.query_reply(member, query, content, **more)
        self.core.received(member, reply, self.now_ms)

    def is_ordered(self, ticket: int) -> bool:
        """The ticket went into the log's queue: a session is opened for it."""
        assert ticket not in self.outcomes
        (_, envelope), *_ = [*self.poll(), *self.poll()]
        assert isinstance(envelope, Envelope)
        return decode_body(envelope.body).session == 0


@pytest.mark.parametrize("n", [4, 7, 10])
def test_a_fast_read_takes_a_quorum_of_equal_replies(n: int) -> None:
    asking = Asking(n)
    ticket, query = asking.ask(READ)
    f = asking.members.f
    for member in range(2 * f + 1):
        asking.poll()
        assert ticket not in asking.outcomes
        asking.say(member, query, NEW, index=5 + member)
    asking.poll()
    outcome = asking.outcomes[ticket]
    assert isinstance(outcome, Answered)
    assert (outcome.revision, outcome.ordered) == (3, False)
    assert outcome.index == 5 + f, "as far as an honest one is, at least"
    assert asking.core.idle


def test_a_serializable_read_takes_f_plus_one_wherever_reads_are_fast_or_not() -> None:
    for fast in (True, False):
        asking = Asking(fast=fast)
        ticket, query = asking.ask(OLD_READ)
        asking.say(2, query, OLD)
        asking.poll()
        assert ticket not in asking.outcomes
        asking.say(0, query, OLD)
        asking.poll()
        assert isinstance(asking.outcomes[ticket], Answered)


def test_without_fast_reads_a_linearizable_read_goes_through_the_log() -> None:
    asking = Asking(fast=False)
    assert asking.is_ordered(asking.core.submit([READ]))


def test_where_reads_are_fast_what_is_ordered_waits_for_a_quorum() -> None:
    for fast, needed in ((True, 3), (False, 2)):
        asking = Asking(fast=fast)
        asking.core.submit([PutRequest(b"k")])
        (_, opening), *_ = asking.poll()
        assert isinstance(opening, Envelope)
        for member in range(needed):
            assert asking.core.session is None
            content = results(SessionOpened(1))
            reply = asking.members.reply(member, opening.digest(), content=content)
            asking.core.received(member, reply, asking.now_ms)
        assert asking.core.session == 1


@pytest.mark.parametrize(
    "others",
    [
        [(OLD, 2), (NEW, 3)],  # a write is passing
        [(OLD, 3), (NEW, 3)],  # somebody lies
        [(NEW, 4), (NEW, 3)],  # one result, two states
    ],
)
def test_replies_that_differ_send_the_read_through_the_log(others: list[tuple[bytes, int]]) -> None:
    asking = Asking()
    ticket, query = asking.ask(READ)
    for member, (content, revision) in enumerate([*others, *others]):
        asking.say(member, query, content, revision=revision)
    assert asking.is_ordered(ticket)
    assert asking.core.reads is not None
    assert asking.core.reads.counts == {"different": 1}


def test_silence_sends_the_read_through_the_log_in_time() -> None:
    asking = Asking(limits=Limits(read_ms=250))
    ticket, query = asking.ask(READ)
    asking.say(0, query, NEW)
    asking.say(1, query, NEW)
    assert asking.core.deadline_ms() == 1250
    asking.now_ms = 1250
    assert asking.is_ordered(ticket)


def test_a_read_that_is_the_first_thing_to_be_ordered_wakes_the_shell() -> None:
    """The shell asks for a session before it polls; the fall-back comes out of the poll."""
    asking = Asking()
    _, query = asking.ask(READ)
    for member in range(4):
        asking.say(member, query, NEW, revision=member + 2)
    out = asking.core.poll(asking.now_ms)
    assert not out.send
    assert asking.core.deadline_ms() == asking.now_ms


def test_a_lost_connection_is_not_waited_for() -> None:
    asking = Asking()
    ticket, query = asking.ask(READ)
    asking.say(0, query, NEW)
    asking.core.disconnected(1, asking.now_ms)
    asking.core.disconnected(2, asking.now_ms)
    assert asking.is_ordered(ticket)


def test_too_few_connections_are_not_asked() -> None:
    asking = Asking()
    for member in (0, 1):
        asking.core.disconnected(member, asking.now_ms)
    assert asking.core.submit([READ]) == 1
    sends = asking.poll()
    assert not any(isinstance(sent, Query) for _, sent in sends)


def test_reads_gather_and_share_one_query() -> None:
    asking = Asking(limits=Limits(in_flight_max=1))
    first, query = asking.ask(READ)
    tickets = [asking.core.submit([RangeRequest(b"%d" % i)]) for i in range(5)]
    gone = asking.core.submit([READ])
    assert asking.core.cancel(gone)
    assert asking.poll() == []
    for member in range(3):
        asking.say(member, query, NEW)
    ((_, shared), *_) = asking.poll()
    assert isinstance(shared, Query)
    assert decode_query_body(shared.body).operations == tuple(
        RangeRequest(b"%d" % i) for i in range(5)
    )
    assert not asking.core.cancel(tickets[2]), "it is asked already"
    for member in range(3):
        asking.say(member, shared, results(*[RangeResponse(count=i) for i in range(5)]))
    asking.poll()
    found = {t: o.results for t, o in asking.outcomes.items() if isinstance(o, Answered)}
    assert set(found) == {first, *tickets} - {tickets[2]}
    assert found[tickets[3]] == (RangeResponse(count=3),)


def test_an_answer_to_an_earlier_query_is_none_to_this_one() -> None:
    asking = Asking()
    _, query = asking.ask(READ)
    earlier = [asking.members.query_reply(m, query, OLD, revision=2) for m in range(4)]
    for reply in earlier[:3]:
        asking.core.received(reply.member, reply, asking.now_ms)
    asking.poll()
    ticket, again = asking.ask(READ)
    assert again.digest() != query.digest()
    for reply in earlier:
        asking.core.received(reply.member, reply, asking.now_ms)
        asking.poll()
        assert ticket not in asking.outcomes


def test_lies_are_named_early_and_late_and_the_passing_of_a_write_is_none() -> None:
    asking = Asking(7)
    _, query = asking.ask(READ)
    asking.say(6, query, OLD, revision=3)
    asking.say(5, query, OLD, revision=2)
    asking.say(5, query, NEW, revision=3)  # asked twice by the network: no lie
    for member in range(4):
        asking.say(member, query, NEW, revision=3)
    asking.poll()
    assert asking.lies == [6]
    asking.say(4, query, NOTHING, revision=3)
    asking.poll()
    assert asking.lies == [6, 4]


def test_a_failure_proves_nothing() -> None:
    asking = Asking()
    _, query = asking.ask(READ)
    asking.say(3, query, results(Failure(11, "compacted")))
    for member in range(3):
        asking.say(member, query, NEW)
    asking.poll()
    assert not asking.lies


def test_an_answer_that_does_not_fit_is_asked_again_through_the_log() -> None:
    for content in (results(), results(RangeResponse(), RangeResponse()), b"no results"):
        asking = Asking()
        ticket, query = asking.ask(READ)
        for member in range(3):
            asking.say(member, query, content)
        assert asking.is_ordered(ticket)


def test_a_reply_of_another_kind_answers_no_query() -> None:
    asking = Asking()
    ticket, query = asking.ask(READ)
    for member in range(3):
        reply = asking.members.reply(member, query.digest(), content=NEW)
        asking.core.received(member, reply, asking.now_ms)
    asking.poll()
    assert ticket not in asking.outcomes
    assert asking.core.refused == {"another-request": 3}


def test_a_full_queue_is_told_to_the_caller() -> None:
    asking = Asking(limits=Limits(waiting_operations_max=1))
    ticket, query = asking.ask(READ)
    asking.core.submit([PutRequest(b"k")])
    for member in range(4):
        asking.say(member, query, NEW, revision=member + 2)
    asking.poll()
    outcome = asking.outcomes[ticket]
    assert isinstance(outcome, Declined)
    assert outcome.code == 8


def test_a_mixture_with_a_write_goes_through_the_log() -> None:
    asking = Asking()
    assert asking.is_ordered(asking.core.submit([READ, PutRequest(b"k")]))


CONTENTS = [(OLD, 2), (OLD, 3), (NEW, 3), (NEW, 4), (NOTHING, 1), (b"", 9)]


@settings(deadline=None, max_examples=200)
@given(data=st.data(), n=st.sampled_from([4, 7]))
def test_f_liars_never_hide_a_write_that_a_quorum_confirmed(data: st.DataObject, n: int) -> None:
    """A write stands at revision 3 on n-f-f honest members; the others may lag, the liars lie."""
    asking = Asking(n)
    f = asking.members.f
    liars = set(range(f))
    lagging = set(range(f, 2 * f))
    ticket, query = asking.ask(READ)
    messages = []
    for member in range(f, n):
        content, revision = (OLD, 2) if member in lagging else (NEW, 3)
        messages.append((member, member, content, revision))
    forged = st.tuples(
        st.sampled_from(sorted(liars)), st.integers(0, n - 1), st.sampled_from(CONTENTS)
    )
    for liar, claimed, (content, revision) in data.draw(st.lists(forged, max_size=16)):
        messages.append((liar, claimed, content, revision))
    for signed_by, member, content, revision in data.draw(st.permutations(messages)):
        reply = asking.members.query_reply(
            member, query, content, revision=revision, signed_by=signed_by
        )
        asking.core.received(data.draw(st.sampled_from([signed_by, member])), reply, asking.now_ms)
    asking.poll()
    outcome = asking.outcomes.get(ticket)
    assert outcome is None or (isinstance(outcome, Answered) and outcome.revision >= 3)
    assert set(asking.lies) <= liars


class Growing(Asking):
    """Four members, then seven: two may lie instead of one."""

    def __init__(self, *, fast: bool) -> None:
        super().__init__(7, fast=fast)
        self.seven = self.members.genesis
        four = msgspec.structs.replace(self.seven, members=self.seven.members[:4])
        m = self.members
        m.genesis, m.scope = four, scope_of(four, four)
        self.core = SessionCore(four, m.client, m.verifier, None, bytes(SEED_BYTES))
        for member in range(4):
            self.core.connected(member)

    def grow(self) -> None:
        """The client learns of the next record, and has links to all."""
        m = self.members
        record = msgspec.structs.replace(self.seven, epoch=1, previous=m.genesis.hash())
        self.core.checker.records.add(CertifiedRecord(record, 0, ()))
        self.core.checker.enter(record)
        m.scope = scope_of(m.genesis, record)
        for member in range(4, 7):
            self.core.connected(member)

    def say_in(self, epoch: int, member: int, query: Query, content: bytes) -> None:
        plain = self.members.query_reply(member, query, content)
        unsigned = msgspec.structs.replace(plain, epoch=epoch)
        sig = self.members.signers[member].sign(
            query_reply_signing_bytes(self.members.scope, unsigned)
        )
        reply = msgspec.structs.replace(unsigned, sig=sig)
        self.core.received(member, reply, self.now_ms)
        self.poll()


def test_a_read_asked_of_four_is_not_answered_by_the_liars_among_seven() -> None:
    """Two liars of seven would be f+1 of four."""
    asking = Growing(fast=True)
    ticket = asking.core.submit([OLD_READ])
    (_, query), *_ = asking.poll()
    assert isinstance(query, Query)
    asking.grow()
    for member in (0, 1):
        asking.say_in(1, member, query, NEW)
        assert ticket not in asking.outcomes
    asking.say_in(1, 2, query, NEW)
    assert isinstance(asking.outcomes[ticket], Answered)


def test_a_fast_read_asked_of_too_few_goes_through_the_log() -> None:
    """Four were asked, five of seven must agree."""
    asking = Growing(fast=True)
    asking.core.submit([READ])
    (_, query), *_ = asking.poll()
    assert isinstance(query, Query)
    asking.grow()
    for member in range(3):
        asking.say_in(1, member, query, NEW)
    assert not asking.outcomes
    assert asking.core.reads is not None
    assert asking.core.reads.counts == {"different": 1}


def test_replies_of_the_old_members_still_answer_what_they_were_asked() -> None:
    asking = Growing(fast=True)
    ticket = asking.core.submit([OLD_READ])
    (_, query), *_ = asking.poll()
    assert isinstance(query, Query)
    asking.say(0, query, OLD)
    old = asking.members.query_reply(1, query, OLD)
    asking.grow()
    asking.core.received(1, old, asking.now_ms)
    asking.poll()
    assert isinstance(asking.outcomes[ticket], Answered)
