"""One session: numbered envelopes, sent to the right members, repeated byte for byte."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import pytest

from client.members import OK, results
from client.world import World
from dwcp.outcomes import Answered, Broken, Declined, Unknown
from dwcp.waiting import GROUP_BYTES_MAX, Limits
from dwcp.wire.envelope import Envelope, EnvelopeBody, decode_body
from dwcp.wire.operations import (
    CloseSession,
    DeleteRangeRequest,
    DeleteRangeResponse,
    EnvelopeFailure,
    Failure,
    OpenSession,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Result,
    SessionOpened,
)

PUT = PutRequest(b"key", b"value")


def put(number: int) -> PutRequest:
    return PutRequest(b"k%d" % number, b"v%d" % number)


def body_of(envelope: Envelope) -> EnvelopeBody:
    return decode_body(envelope.body)


def answer(world: World, envelope: Envelope, *content: Result, members: tuple[int, ...]) -> None:
    packed = results(*content)
    for member in members:
        world.receive(member, world.members.reply(member, envelope.digest(), content=packed))


def opened(limits: Limits | None = None, n: int = 4) -> World:
    """A world whose client has session 5 open, with nothing under way."""
    world = World(n=n, limits=limits)
    world.connect()
    ticket = world.submit(PUT)
    ((_, envelope),) = world.poll()
    answer(world, envelope, SessionOpened(5), members=tuple(range(world.members.f + 1)))
    ((_, first),) = world.poll()
    answer(world, first, PutResponse(), members=tuple(range(world.members.f + 1)))
    assert world.poll() == []
    assert isinstance(world.outcomes.pop(ticket), Answered)
    return world


# --- the discipline of one session ----------------------------------------------------------


def test_a_session_is_opened_once_there_is_something_to_send() -> None:
    world = World()
    world.connect()
    assert world.poll() == []
    world.submit(PUT)
    ((member, envelope),) = world.poll()
    assert member == world.members.genesis.primary(1)
    body = body_of(envelope)
    assert (body.session, body.sequence, body.acked) == (0, 0, 0)
    (operation,) = body.operations
    assert isinstance(operation, OpenSession)
    assert operation.time_ms == 1_800_000_001_000
    assert world.poll() == [], "it is sent once"


def test_nothing_waits_when_idle_and_operations_gather_when_busy() -> None:
    world = opened(Limits(in_flight_max=2))
    first = [world.submit(put(0))]
    ((_, one),) = world.poll()
    first.append(world.submit(put(1)))
    ((_, two),) = world.poll()
    rest = [world.submit(put(i)) for i in range(2, 12)]
    assert world.poll() == []
    assert [len(body_of(e).operations) for e in (one, two)] == [1, 1]
    answer(world, one, PutResponse(), members=(0, 1))
    ((_, three),) = world.poll()
    assert body_of(three).operations == tuple(put(i) for i in range(2, 12))
    assert list(world.outcomes) == first[:1]
    answer(world, three, *[PutResponse()] * 10, members=(2, 3))
    world.poll()
    assert list(world.outcomes) == first[:1] + rest


def test_sequence_numbers_count_up_and_acknowledge_only_without_gaps() -> None:
    world = opened()
    envelopes = []
    for i in range(3):
        world.submit(put(i))
        envelopes += [e for _, e in world.poll()]
    assert [body_of(e).sequence for e in envelopes] == [2, 3, 4]
    answer(world, envelopes[1], PutResponse(), members=(0, 1))
    world.submit(put(9))
    ((_, later),) = world.poll()
    assert body_of(later).acked == 1, "2 is not answered yet"
    answer(world, envelopes[0], PutResponse(), members=(0, 1))
    world.submit(put(10))
    ((_, last),) = world.poll()
    assert (body_of(last).sequence, body_of(last).acked) == (6, 3)


def test_sequence_numbers_stay_within_the_window() -> None:
    world = opened(Limits(window=8))
    world.submit(put(0))
    ((_, stuck),) = world.poll()
    sent = 0
    for i in range(1, 20):
        world.submit(put(i))
        for _, envelope in world.poll():
            sent += 1
            answer(world, envelope, PutResponse(), members=(0, 1))
    assert sent == 7
    answer(world, stuck, PutResponse(), members=(0, 1))
    ((_, envelope),) = world.poll()
    assert len(body_of(envelope).operations) == 12


def test_envelopes_are_bounded_by_operations_and_bytes() -> None:
    limits = Limits(in_flight_max=1, envelope_operations_max=3, envelope_bytes_max=1000)
    world = opened(limits)
    world.submit(put(0))
    ((_, out),) = world.poll()
    sizes = [10, 10, 10, 10, 600, 600, 5000, 10]
    for i, size in enumerate(sizes):
        world.submit(PutRequest(b"%d" % i, bytes(size)))
    counts = []
    while not world.core.idle:
        answer(world, out, *[PutResponse()] * len(body_of(out).operations), members=(0, 1))
        for _, out in world.poll():
            counts.append(len(body_of(out).operations))
    assert counts == [3, 2, 1, 1, 1]


def test_the_largest_group_fits_an_envelope() -> None:
    world = opened()
    world.submit(PutRequest(b"k", bytes(GROUP_BYTES_MAX - 64)))
    ((_, envelope),) = world.poll()
    assert world.stores[0].check(envelope, body_of(envelope)) is None
    assert len(msgspec.msgpack.encode(envelope)) <= 1_572_864


def test_cancelled_operations_are_never_sent() -> None:
    world = opened(Limits(in_flight_max=1))
    world.submit(put(0))
    ((_, first),) = world.poll()
    one, two = world.submit(put(1)), world.submit(put(2))
    assert world.core.cancel(one)
    assert not world.core.cancel(one)
    answer(world, first, PutResponse(), members=(0, 1))
    ((_, envelope),) = world.poll()
    assert body_of(envelope).operations == (put(2),)
    assert not world.core.cancel(two), "it has been sent"


def test_every_ticket_gets_its_own_results_and_revision() -> None:
    world = opened(Limits(in_flight_max=1))
    world.submit(put(0))
    ((_, first),) = world.poll()
    a = world.submit(put(1), RangeRequest(b"x"))
    b = world.submit(PutRequest(b""))
    c = world.submit(DeleteRangeRequest(b"k1"))
    answer(world, first, PutResponse(), members=(0, 1))
    ((_, folded),) = world.poll()
    content = (PutResponse(), RangeResponse(), Failure(3, "no key"), DeleteRangeResponse(1))
    for member in (1, 2):
        reply = world.members.reply(member, folded.digest(), revision=12, content=results(*content))
        world.receive(member, reply)
    world.poll()
    assert world.outcomes[a] == Answered(7, 11, content[:2])
    assert world.outcomes[b] == Answered(7, 11, content[2:3])
    assert world.outcomes[c] == Answered(7, 12, content[3:])


@pytest.mark.parametrize("content", [b"nonsense", results(), results(*[PutResponse()] * 2)])
def test_an_agreed_answer_that_does_not_fit_is_reported(content: bytes) -> None:
    world = opened()
    ticket = world.submit(PUT)
    ((_, envelope),) = world.poll()
    for member in (0, 1):
        world.receive(member, world.members.reply(member, envelope.digest(), content=content))
    world.poll()
    assert isinstance(world.outcomes[ticket], Broken)


# --- sending again, and where to ------------------------------------------------------------


def test_first_the_primary_then_all_always_the_same_bytes() -> None:
    world = opened(Limits(retry_ms=100, retry_ms_max=400))
    world.submit(PUT)
    ((member, envelope),) = world.poll()
    assert member == 0
    times = []
    while len(times) < 4:
        deadline_ms = world.core.deadline_ms()
        assert deadline_ms is not None
        world.now_ms = deadline_ms - 1
        assert world.poll() == []
        world.now_ms = deadline_ms
        assert world.poll() == [(m, envelope) for m in range(4)]
        times.append(deadline_ms)
    assert [b - a for a, b in itertools.pairwise(times)] == [200, 400, 400]


def test_the_primary_of_the_f_plus_first_highest_view_is_asked() -> None:
    world = opened()
    for member, view in ((3, 2**60), (2, 3), (1, 2)):
        reply = world.members.reply(member, bytes(32), view=view)
        world.receive(member, reply)
    assert world.core.primary == world.members.genesis.primary(3)
    world.submit(PUT)
    assert [m for m, _ in world.poll()] == [2]
    world.receive(2, world.members.reply(2, bytes(32), view=1))
    assert world.core.primary == 2, "views never go back"


def test_a_lost_connection_sends_to_the_others_at_once() -> None:
    world = opened()
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    world.core.disconnected(0, world.now_ms)
    assert world.poll() == [(m, envelope) for m in (1, 2, 3)]
    world.core.connected(0)
    assert world.poll() == [(0, envelope)], "it went to all: so to the one that is back"


def test_without_any_connection_the_first_ones_get_it() -> None:
    world = World()
    world.submit(PUT)
    assert world.poll() == []
    world.core.connected(2)
    assert [m for m, _ in world.poll()] == [2]
    world.core.connected(0)
    assert [m for m, _ in world.poll()] == [0]


def test_one_busy_primary_is_asked_again_a_few_times_then_all_are() -> None:
    world = opened()
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    asked = []
    for _ in range(4):
        world.receive(0, world.members.busy(0, envelope, 50))
        if sends := world.poll():
            asked.append([m for m, _ in sends])
            continue
        assert world.core.deadline_ms() == world.now_ms + 50
        world.now_ms += 50
        asked.append([m for m, _ in world.poll()])
    assert asked == [[0], [0], [0], [0, 1, 2, 3]]


def test_f_liars_that_are_busy_delay_nothing() -> None:
    world = opened(Limits(retry_ms=100))
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    world.now_ms += 100
    assert len(world.poll()) == 4
    before = world.core.deadline_ms()
    world.receive(3, world.members.busy(3, envelope, 10**12))
    assert world.core.deadline_ms() == before
    world.receive(1, world.members.busy(1, envelope, 1500))
    assert world.core.deadline_ms() == world.now_ms + 1500, "f+1: an honest one is busy"


def test_words_about_being_busy_do_not_outlive_a_repetition() -> None:
    world = opened(Limits(retry_ms=100))
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    world.now_ms += 100
    assert len(world.poll()) == 4
    world.receive(3, world.members.busy(3, envelope, 1500))
    deadline_ms = world.core.deadline_ms()
    assert deadline_ms is not None
    world.now_ms = deadline_ms
    assert len(world.poll()) == 4
    again_ms = world.core.deadline_ms()
    world.receive(1, world.members.busy(1, envelope, 1500))
    assert world.core.deadline_ms() == again_ms, "one member is busy now"


# --- sessions that end ----------------------------------------------------------------------


def gone(world: World, member: int, envelope: Envelope) -> None:
    rejected = world.members.rejected(member, envelope, "session-gone", "open a new one")
    world.receive(member, rejected)


def test_a_lost_session_leaves_the_fate_unknown_and_the_next_one_goes_on() -> None:
    world = opened()
    lost = world.submit(put(1))
    ((_, envelope),) = world.poll()
    gone(world, 0, envelope)
    world.poll()
    assert world.core.session == 5, "one member's word is not enough"
    gone(world, 2, envelope)
    later = world.submit(put(2))
    ((_, again),) = world.poll()
    assert isinstance(world.outcomes[lost], Unknown)
    assert isinstance(body_of(again).operations[0], OpenSession)
    answer(world, again, SessionOpened(6), members=(1, 2))
    ((_, envelope),) = world.poll()
    body = body_of(envelope)
    assert (body.session, body.sequence, body.operations) == (6, 1, (put(2),))
    answer(world, envelope, PutResponse(), members=(1, 2))
    world.poll()
    assert isinstance(world.outcomes[later], Answered)


def test_other_envelopes_of_a_lost_session_are_asked_for_one_by_one() -> None:
    world = opened()
    tickets, envelopes = [], []
    for i in range(3):
        tickets.append(world.submit(put(i)))
        envelopes += [e for _, e in world.poll()]
    for member in (1, 2):
        gone(world, member, envelopes[0])
    sends = world.poll()
    assert sends == [(m, e) for e in envelopes[1:] for m in range(4)]
    answer(world, envelopes[1], PutResponse(), members=(0, 3))
    for member in (0, 3):
        gone(world, member, envelopes[2])
    world.poll()
    kinds = [type(world.outcomes[t]) for t in tickets]
    assert kinds == [Unknown, Answered, Unknown]


@pytest.mark.parametrize(("code", "kind"), [(5, Unknown), (9, Unknown), (15, Unknown)])
def test_an_envelope_refused_by_the_state_machine(code: int, kind: type) -> None:
    world = opened()
    tickets = [world.submit(put(1)), world.submit(put(2))]
    ((_, envelope),) = world.poll()
    answer(world, envelope, EnvelopeFailure(code, "as a whole"), members=(0, 1))
    world.poll()
    assert [type(world.outcomes[t]) for t in tickets] == [kind, kind]
    assert (world.core.session is None) is (code != 15)


def test_what_was_never_executed_is_declined_with_a_code() -> None:
    world = opened()
    ticket = world.submit(PUT)
    ((_, envelope),) = world.poll()
    for member in (0, 1):
        world.receive(member, world.members.rejected(member, envelope, "too-large", "split it"))
    world.poll()
    assert world.outcomes[ticket] == Declined(3, "split it (too-large)")


def test_an_idle_session_is_replaced_before_it_is_used() -> None:
    world = opened(Limits(session_idle_ms_max=60_000))
    world.now_ms += 60_000
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    assert body_of(envelope).session == 5
    answer(world, envelope, PutResponse(), members=(0, 1))
    world.now_ms += 60_001
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    assert isinstance(body_of(envelope).operations[0], OpenSession)


def test_a_session_that_can_not_be_opened_is_tried_again_and_then_reported() -> None:
    world = World(limits=Limits(retry_ms=100))
    world.connect()
    ticket = world.submit(PUT)
    requests = set()
    for attempt in range(3):
        ((_, envelope),) = world.poll()
        requests.add(envelope.digest())
        answer(world, envelope, EnvelopeFailure(9, "your clock is wrong"), members=(0, 1))
        world.poll()
        assert (ticket in world.outcomes) is (attempt == 2)
        world.now_ms += 200
    assert world.outcomes[ticket] == Declined(9, "no session could be opened: your clock is wrong")
    assert len(requests) == 3


def test_an_opening_answered_by_nonsense_is_reported() -> None:
    world = World()
    world.connect()
    ticket = world.submit(PUT)
    ((_, envelope),) = world.poll()
    answer(world, envelope, PutResponse(), members=(0, 1))
    world.poll()
    assert isinstance(world.outcomes[ticket], Broken)


def test_close_says_good_bye_when_nothing_is_under_way() -> None:
    world = opened()
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    world.core.close()
    assert world.poll() == []
    answer(world, envelope, PutResponse(), members=(0, 1))
    world.core.close()
    sends = world.poll()
    assert [m for m, _ in sends] == [0, 1, 2, 3]
    assert body_of(sends[0][1]).operations == (CloseSession(),)


def test_a_late_lie_is_still_named() -> None:
    world = opened()
    world.submit(PUT)
    ((_, envelope),) = world.poll()
    answer(world, envelope, PutResponse(), members=(0, 1))
    world.poll()
    world.receive(3, world.members.reply(3, envelope.digest(), revision=99, content=OK))
    world.poll()
    assert world.lies == Counter({3: 1})
    assert list(world.core.lies) == [3]


def test_progress_says_what_is_missing() -> None:
    world = opened(Limits(in_flight_max=1))
    sent = world.submit(PUT)
    ((_, envelope),) = world.poll()
    waiting = world.submit(PUT)
    answer(world, envelope, PutResponse(), members=(1,))
    gone(world, 2, envelope)
    progress = world.core.progress(sent)
    assert (progress.sent, progress.matching, progress.needed) == (True, 1, 2)
    assert (progress.heard, progress.rejected) == ({1}, {2})
    assert not world.core.progress(waiting).sent
