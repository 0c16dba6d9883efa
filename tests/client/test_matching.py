"""f liars with any content never make a wrong answer accepted, and only liars are named."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.members import OK, Members, results
from dwcp.matching import (
    ANSWER_DROPPED,
    MIXED,
    Collector,
    History,
    ReplicaMessage,
    content_of,
    contradict,
)
from dwcp.wire.envelope import Envelope, Rejected, Reply
from dwcp.wire.operations import EnvelopeFailure, Failure, KeyValue, PutResponse, RangeResponse
from dwcp.wire.signing import digest

ENVELOPE = Envelope(bytes(32), b"request", bytes(range(64)))
REQUEST = ENVELOPE.digest()
OTHER = results(PutResponse(KeyValue(b"k", 1, 1, 1)))
TRUTH = (7, 3, OK)

sizes = pytest.mark.parametrize("n", [4, 7, 10, 13])


def collector(members: Members, *, read_only: bool = False) -> Collector:
    return Collector(members.checker, REQUEST, ENVELOPE.sig, read_only=read_only)


@sizes
def test_the_answer_comes_with_the_f_plus_first_matching_reply(n: int) -> None:
    members = Members(n)
    collected = collector(members)
    for member in range(members.f):
        collected.add(member, members.reply(member, REQUEST))
        assert collected.answer is None
    assert collected.matching == members.f
    collected.add(n - 1, members.reply(n - 1, REQUEST))
    assert collected.answer is not None
    assert (collected.answer.index, collected.answer.revision, collected.answer.results) == TRUTH
    assert {reply.member for reply in collected.answer.replies} == {*range(members.f), n - 1}


def test_view_takes_no_part_in_matching() -> None:
    members = Members()
    collected = collector(members)
    collected.add(0, members.reply(0, REQUEST, view=1))
    collected.add(1, members.reply(1, REQUEST, view=9))
    assert collected.answer is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 1}, "another-epoch"),
        ({"signed_by": 2}, "signature"),
        ({}, "another-member"),
    ],
)
def test_a_reply_that_is_not_the_members_own_word_does_not_count(
    change: dict[str, int], reason: str
) -> None:
    members = Members()
    collected = collector(members)
    collected.add(0, members.reply(0, REQUEST))
    sender = 3 if reason == "another-member" else 1
    finding = collected.add(sender, members.reply(1, REQUEST, **change))
    assert finding.refused == reason
    assert collected.answer is None
    assert collected.heard == {0}


def test_a_tampered_reply_does_not_count() -> None:
    members = Members()
    collected = collector(members)
    good = members.reply(1, REQUEST)
    for changed in (
        msgspec.structs.replace(good, index=8),
        msgspec.structs.replace(good, revision=4),
        msgspec.structs.replace(good, results=OTHER),
    ):
        assert collected.add(1, changed).refused == "signature"
    assert collected.add(1, members.reply(1, digest("another"))).refused == "another-request"
    assert collected.add(4, members.reply(1, REQUEST)).refused == "not-a-member"
    assert collected.add(-1, members.reply(1, REQUEST)).refused == "not-a-member"
    assert collected.matching == 0


def test_one_member_votes_once_for_one_answer() -> None:
    members = Members()
    collected = collector(members)
    for view in range(1, 10):
        collected.add(0, members.reply(0, REQUEST, view=view))
    assert collected.answer is None
    assert collected.matching == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_contradicting_reply_names_its_member(late: bool) -> None:
    members = Members()
    collected = collector(members)
    messages = [members.reply(m, REQUEST) for m in (0, 1)]
    lie = members.reply(3, REQUEST, content=OTHER)
    messages.insert(2 if late else 0, lie)
    found = [lie for m in messages for lie in collected.add(m.member, m).lies]
    assert [f.member for f in found] == [3]
    assert found[0].said == (lie,)
    assert {r.member for r in found[0].accepted} == {0, 1}
    assert "index 7" in found[0].describe()
    assert collected.add(3, members.reply(3, REQUEST, index=9)).refused == "liar"


def test_a_member_that_contradicts_itself_is_named_and_its_votes_are_gone() -> None:
    members = Members()
    collected = collector(members)
    one, two = members.reply(3, REQUEST, content=OTHER), members.reply(3, REQUEST)
    assert not collected.add(3, one).lies
    (lie,) = collected.add(3, two).lies
    assert (lie.member, lie.said, lie.accepted) == (3, (one, two), ())
    assert "two different answers" in lie.describe()
    for content in (OK, OTHER):
        member = 0 if content is OK else 2
        collected.add(member, members.reply(member, REQUEST, content=content))
        assert collected.answer is None
    collected.add(1, members.reply(1, REQUEST))
    assert collected.answer is not None
    assert collected.answer.results == OK


def test_a_forged_contradiction_convicts_nobody() -> None:
    members = Members()
    collected = collector(members)
    for m in (0, 1):
        collected.add(m, members.reply(m, REQUEST))
    finding = collected.add(2, members.reply(2, REQUEST, content=OTHER, signed_by=3))
    assert finding.refused == "signature"
    assert not finding.lies


@pytest.mark.parametrize(
    ("read_only", "first", "second", "lie"),
    [
        # An envelope that writes is executed once.
        (False, (7, 3, OK), (7, 3, OTHER), True),
        (False, (7, 3, OK), (7, 4, OK), True),
        (False, (7, 3, OK), (8, 3, OK), True),
        # Its results may be gone when it is answered again.
        (False, (7, 3, OK), (7, 3, results(EnvelopeFailure(ANSWER_DROPPED, "gone"))), False),
        # A replay after the session's end is refused, at another index.
        (False, (7, 3, OK), (9, 5, results(EnvelopeFailure(5, "no session"))), False),
        (False, (7, 3, OK), (7, 3, results(Failure(8, "full"))), True),
        (False, (7, 3, results(Failure(8, "full"))), (7, 3, OK), True),
        # A read may be executed again, at a later index.
        (True, (7, 3, OK), (9, 5, OTHER), False),
        (True, (7, 3, OK), (7, 4, OTHER), True),
        (True, (7, 3, OK), (7, 3, OTHER), True),
        (True, (7, 3, OK), (7, 3, OK), False),
    ],
)
def test_what_an_honest_replica_can_not_have_signed(
    read_only: bool, first: tuple[int, int, bytes], second: tuple[int, int, bytes], lie: bool
) -> None:
    one, two = (Reply(REQUEST, *c, 0, 1, 0, bytes(64)) for c in (first, second))
    assert contradict(one, two, read_only=read_only) is lie
    assert contradict(two, one, read_only=read_only) is lie


def test_an_honest_member_may_answer_again_with_less() -> None:
    members = Members()
    collected = collector(members)
    dropped = results(EnvelopeFailure(ANSWER_DROPPED, "not kept"))
    assert not collected.add(0, members.reply(0, REQUEST)).lies
    assert not collected.add(0, members.reply(0, REQUEST, content=dropped)).lies
    assert not collected.add(1, members.reply(1, REQUEST, content=dropped)).lies
    assert collected.answer is not None
    assert collected.answer.results == dropped
    assert not collected.add(2, members.reply(2, REQUEST)).lies


def test_votes_of_one_member_are_bounded() -> None:
    members = Members()
    collected = collector(members, read_only=True)
    for index in range(1, 30):
        collected.add(0, members.reply(0, REQUEST, index=index))
    collected.add(1, members.reply(1, REQUEST, index=1))
    assert collected.answer is None, "the oldest vote is forgotten"
    collected.add(1, members.reply(1, REQUEST, index=29))
    assert collected.answer is not None


def reject(collected: Collector, members: Members, member: int, reason: str) -> None:
    message = members.rejected(member, ENVELOPE, reason, f"because of {reason}")
    assert collected.add(member, message).refused is None


def test_f_rejections_are_not_enough() -> None:
    members = Members(7)
    collected = collector(members)
    for member in (0, 1):
        reject(collected, members, member, "session-gone")
        reject(collected, members, member, "session-gone")
    assert collected.rejection is None
    reject(collected, members, 2, "malformed")
    assert collected.rejection is None, "three rejections, but no three alike"
    reject(collected, members, 3, "session-gone")
    assert collected.rejection is not None
    assert collected.rejection.reason == "session-gone"
    assert "because of session-gone" in collected.rejection.message


def test_what_a_member_did_not_sign_is_no_rejection_of_its_own() -> None:
    members = Members()
    collected = collector(members)
    good = members.rejected(0, ENVELOPE, "malformed", "why")
    spoiled = msgspec.structs.replace(ENVELOPE, sig=bytes(64))
    for member, message, reason in [
        (0, msgspec.structs.replace(good, sig=bytes(64)), "signature"),
        (0, msgspec.structs.replace(good, reason="session-gone"), "signature"),
        (0, msgspec.structs.replace(good, message="because"), "signature"),
        (0, msgspec.structs.replace(good, epoch=1), "another-epoch"),
        (1, good, "another-member"),
        (1, msgspec.structs.replace(good, member=1), "signature"),
        # an honest replica rejects a copy with another signature: that is no word on this one
        (0, members.rejected(0, spoiled, "signature", "it does not verify"), "signature"),
        (0, _other_kind(members), "signature"),
        (2, msgspec.structs.replace(members.busy(2, ENVELOPE, 9), retry_after_ms=10), "signature"),
        (2, members.busy(2, spoiled, 9), "signature"),
    ]:
        assert collected.add(member, message).refused == reason, message
    assert not collected.rejected
    assert not collected.busy
    assert collected.add(0, good).refused is None
    assert collected.rejected == {0}


def _other_kind(members: Members) -> Rejected:
    """A Rejected under the signature of a Busy of the same member."""
    busy = members.busy(0, ENVELOPE, 9)
    return Rejected(busy.request, "malformed", "", 0, 0, busy.sig)


def test_n_minus_f_different_rejections_are_enough() -> None:
    members = Members()
    collected = collector(members)
    for member, reason in enumerate(["a", "b", "c"]):
        assert collected.rejection is None
        reject(collected, members, member, reason)
    assert collected.rejection is not None
    assert collected.rejection.reason == MIXED


def test_an_answer_outweighs_rejections() -> None:
    members = Members()
    collected = collector(members)
    for member in (2, 3):
        reject(collected, members, member, "session-gone")
    for member in (0, 1):
        collected.add(member, members.reply(member, REQUEST))
    assert collected.answer is not None
    assert collected.rejection is None


def test_busy_counts_from_f_plus_one_and_liars_do_not_lengthen_it() -> None:
    members = Members(7)
    collected = collector(members)
    for member, wait_ms in enumerate([10**9, 10**9]):
        collected.add(member, members.busy(member, ENVELOPE, wait_ms))
        assert collected.busy_ms is None
    collected.add(2, members.busy(2, ENVELOPE, 100))
    assert collected.busy_ms == 100
    collected.forget_busy()
    assert collected.busy_ms is None


def test_history_is_bounded_by_number_and_bytes() -> None:
    members = Members()
    history = History(requests_max=3, bytes_max=10_000)
    requests = [digest("r", bytes((i,))) for i in range(6)]
    for request in requests[:4]:
        history.add(Collector(members.checker, request, bytes(64), read_only=False))
    assert [history.get(r) is not None for r in requests[:4]] == [False, True, True, True]
    large = Collector(members.checker, requests[4], bytes(64), read_only=False)
    for member in (0, 1):
        content = results(RangeResponse((KeyValue(b"k", 1, 1, 1, bytes(4900)),)))
        large.add(member, members.reply(member, requests[4], content=content))
    history.add(large)
    assert history.get(requests[4]) is None, "it alone is over the bound"
    history.add(Collector(members.checker, requests[5], bytes(64), read_only=False))
    assert history.get(requests[5]) is not None


CONTENTS = [
    TRUTH,
    (7, 3, OTHER),
    (8, 3, OK),
    (7, 4, OK),
    (7, 3, results(Failure(8, "full"))),
    (7, 3, results(EnvelopeFailure(ANSWER_DROPPED, "gone"))),
    (7, 3, b"no results"),
    (0, 0, b""),
]


@settings(deadline=None, max_examples=300)
@given(data=st.data(), n=st.sampled_from([4, 7]), read_only=st.booleans())
def test_f_liars_never_win(data: st.DataObject, n: int, read_only: bool) -> None:
    """Honest members say the truth or nothing; liars say anything, also in others' names."""
    members = Members(n)
    liars = data.draw(st.sets(st.integers(0, n - 1), min_size=0, max_size=members.f))
    honest = [m for m in range(n) if m not in liars]
    speaking = data.draw(st.sets(st.sampled_from(honest)))
    messages: list[tuple[int, ReplicaMessage]] = [
        (m, members.reply(m, REQUEST)) for m in sorted(speaking)
    ]
    if liars:
        forged = st.tuples(
            st.sampled_from(sorted(liars)), st.integers(0, n - 1), st.sampled_from(CONTENTS)
        )
        for liar, claimed, (index, revision, content) in data.draw(st.lists(forged, max_size=12)):
            lie = members.reply(
                claimed, REQUEST, index=index, revision=revision, content=content, signed_by=liar
            )
            # On its own connection, or on one that it took over.
            messages.append((data.draw(st.sampled_from([liar, claimed])), lie))
        for liar in sorted(liars):
            messages.append((liar, members.rejected(liar, ENVELOPE, "malformed", "")))
            messages.append((liar, members.busy(liar, ENVELOPE, 10)))
            # in all names, on whatever connection
            stolen = members.rejected(liar, ENVELOPE, "malformed", "")
            for member in range(n):
                message = msgspec.structs.replace(stolen, member=member)
                messages.append((data.draw(st.sampled_from([liar, member])), message))
    order = data.draw(st.permutations(messages))
    duplicated = list(itertools.chain(order, order[: len(order) // 2]))

    collected = collector(members, read_only=read_only)
    named = {lie.member for m, x in duplicated for lie in collected.add(m, x).lies}

    if collected.answer is not None:
        first = collected.answer.replies[0]
        assert content_of(first) == TRUTH
        assert collected.answer.results == OK
    assert named <= liars
    assert collected.rejection is None
    assert (collected.answer is not None) or len(speaking) <= members.f


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), n=st.sampled_from([4, 7, 10]))
def test_without_faults_any_order_answers_with_the_f_plus_first(seed: int, n: int) -> None:
    members = Members(n)
    collected = collector(members)
    order = random.Random(seed).sample(range(n), n)
    for count, member in enumerate(order, start=1):
        finding = collected.add(member, members.reply(member, REQUEST))
        assert not finding.lies
        assert finding.refused is None
        assert (collected.answer is not None) is (count > members.f)
