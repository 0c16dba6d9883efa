"""What PBFT promises, one test for each sentence, in clusters of 4, 7, 10 and 13."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from dwcp.wire.envelope import Envelope, decode_batch
from dwcp.wire.peer import (
    CheckpointVote,
    Commit,
    Forward,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
)
from dwcp.wire.records import Parameters
from dwcp.wire.signing import digest
from dwcp_replica.core.effects import Submit, ViewChangeReason, ViewChangeStarted
from dwcp_replica.core.quorum import faults, quorum
from dwcp_replica.core.state import IN_FLIGHT_MAX, WINDOW_INTERVALS
from dwcp_replica.sim.crypto import HashSigner
from dwcp_replica.sim.planting import Setting
from dwcp_replica.sim.run import Simulation
from replica.core.conversation import Conversation

SIZES = (4, 7, 10, 13)
TIMEOUT_MS = 400
every_size = pytest.mark.parametrize("n", SIZES)


def views(talk: Conversation) -> set[int]:
    """The views of the members that are up."""
    return {talk.replicas[m].standing().view for m in range(talk.n) if m not in talk.down}


def lose(talk: Conversation, lost: Callable[[int, int, PeerMessage], bool]) -> None:
    """Let no message through for which `lost(target, sender, message)` is true."""
    receive = talk.receive

    def maybe(target: int, sender: int, message: PeerMessage) -> None:
        if not lost(target, sender, message):
            receive(target, sender, message)

    talk.receive = maybe  # type: ignore[method-assign]


def ask_all(
    talk: Conversation, key: str, value: str, but: frozenset[int] = frozenset()
) -> Envelope:
    """A client that asks every member, as it does when its answer is late."""
    envelope = talk.envelope(key, value)
    for member in range(talk.n):
        if member not in talk.down | but:
            talk._act(member, Submit(envelope))
    return envelope


# --- the normal case --------------------------------------------------------------------------


@every_size
def test_a_quorum_is_enough_and_less_is_not(n: int) -> None:
    """With f members down all goes on; with one more nothing is executed, until it is back."""
    talk = Conversation(n)
    for member in range(n - faults(n), n):
        talk.crash(member)
    talk.submit(0, "a", "1")
    talk.deliver()
    alive = quorum(n)
    assert all(talk.values(m) == [b"1"] for m in range(alive))
    talk.crash(alive - 1)
    talk.submit(0, "b", "2")
    talk.deliver()
    assert all(talk.values(m) == [b"1"] for m in range(alive - 1))
    talk.restart(alive - 1)
    talk.wait(3 * TIMEOUT_MS)
    assert all(talk.values(m) == [b"1", b"2"] for m in range(alive))


@every_size
def test_execution_is_in_order_whatever_the_network_does(n: int) -> None:
    """Messages arrive in any order; every member executes the same, in the order of the chain."""
    for seed in range(5):
        talk, draw = Conversation(n), Random(seed)
        for number in range(6):
            talk.submit(0, "k", str(number))
        for _ in range(40):
            draw.shuffle(talk.inbox)
            talk.deliver_once()
        indexes = [[index for index, _ in executed] for executed in talk.executed]
        assert all(found == sorted(found) for found in indexes), f"seed {seed}"
        assert len(talk.executed[0]) == 6, f"seed {seed}"
        assert all(executed == talk.executed[0] for executed in talk.executed), f"seed {seed}"


@every_size
def test_proposals_overtake_agreement_within_a_window_and_the_rest_is_batched(n: int) -> None:
    """Several entries are under way at once, a window of them; what waits shares the next."""
    talk = Conversation(n)
    for number in range(20):
        talk.submit(0, "k", str(number))
    under_way = {m.entry.header.index for _, _, m in talk.inbox if isinstance(m, PrePrepare)}
    assert under_way == set(range(1, IN_FLIGHT_MAX + 1))
    talk.deliver()
    assert [value for _, value in talk.executed[1]] == [b"%d" % i for i in range(20)]
    assert talk.executed[1][-1][0] < 20 // 2, "what waited was not batched"


@every_size
def test_a_request_to_a_backup_reaches_the_primary(n: int) -> None:
    talk = Conversation(n)
    talk.submit(n - 1, "a", "1")
    talk.deliver()
    assert all(talk.values(m) == [b"1"] for m in range(n))
    assert views(talk) == {1}


def test_a_client_with_much_to_ask_does_not_keep_another_waiting() -> None:
    """The next batch has what the other client asks, however much was there before it."""
    talk = Conversation()
    for number in range(400):
        talk._act(0, Submit(talk.envelope(f"k{number}", "x" * 50_000)))
    late = talk.envelope("late", "1", HashSigner(digest("another client")))
    talk._act(0, Submit(late))
    proposed: dict[int, tuple[Envelope, ...]] = {}

    def note(_target: int, _sender: int, message: PeerMessage) -> bool:
        if isinstance(message, PrePrepare):
            batch = decode_batch(message.entry.body)
            proposed[message.entry.header.index] = batch.envelopes
        return False

    lose(talk, note)
    for _ in range(5):
        talk.deliver_once()
    before = [proposed[index] for index in range(1, IN_FLIGHT_MAX + 1)]
    assert all(late not in batch for batch in before), "the window was full when it came"
    following = proposed[IN_FLIGHT_MAX + 1]
    assert late in following[:2]
    assert len(following) < 100, "it did not have to wait for all that was there before it"


# --- checkpoints and water marks ------------------------------------------------------------------


def test_a_checkpoint_is_taken_every_hundred_entries_by_default() -> None:
    assert Parameters().checkpoint_interval == 100
    talk = Conversation()
    for number in range(101):
        talk.submit(0, "k", str(number))
        talk.deliver()
    assert {r.standing().stable for r in talk.replicas} == {100}


@every_size
def test_nothing_is_proposed_above_the_high_water_mark(n: int) -> None:
    """While no checkpoint gets stable the log stops growing; then it goes on."""
    talk = Conversation(n, interval=2)
    high = WINDOW_INTERVALS * max(2, IN_FLIGHT_MAX)
    unstable = True
    lose(talk, lambda _to, _by, m: unstable and isinstance(m, CheckpointVote))
    for number in range(3 * high):
        talk.submit(0, "k", str(number))
        talk.deliver()
    assert {r.standing().last for r in talk.replicas} == {high}
    assert {r.standing().stable for r in talk.replicas} == {0}
    unstable = False
    talk.wait(2 * TIMEOUT_MS)
    assert all(len(talk.values(m)) == 3 * high for m in range(n))
    assert views(talk) == {1}


@every_size
def test_votes_and_entries_below_a_stable_checkpoint_are_collected(n: int) -> None:
    """However long it runs, what is kept for agreement stays within the window."""
    talk = Conversation(n, interval=4)
    for number in range(40):
        talk.submit(0, "k", str(number))
        talk.deliver()
    for replica in talk.replicas:
        standing = replica.standing()
        assert standing.stable == 40
        assert standing.pre_prepare_log_size == 0
        assert standing.prepare_log_size == standing.commit_log_size == 0
        assert len(replica._core.checkpoint_votes) <= n
        assert len(replica._core.states) <= 2


# --- messages are lost ---------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("kind", [PrePrepare, Prepare, Commit])
def test_a_replica_that_lost_messages_catches_up_without_a_view_change(
    n: int, kind: type[PeerMessage]
) -> None:
    talk = Conversation(n)
    deaf = True
    lose(talk, lambda to, _by, m: deaf and to == n - 1 and isinstance(m, kind))
    for number in range(5):
        talk.submit(0, "k", str(number))
        talk.deliver()
    deaf = False
    talk.wait(2 * TIMEOUT_MS)
    assert talk.values(n - 1) == [b"%d" % number for number in range(5)]
    assert views(talk) == {1}


@every_size
@pytest.mark.parametrize("kind", [PrePrepare, Prepare, Commit])
def test_what_all_have_lost_is_sent_again_without_a_view_change(
    n: int, kind: type[PeerMessage]
) -> None:
    talk = Conversation(n)
    first = True
    lose(talk, lambda _to, _by, m: first and isinstance(m, kind))
    talk.submit(0, "a", "1")
    talk.deliver()
    assert not talk.values(0)
    first = False
    talk.wait(TIMEOUT_MS)
    assert all(talk.values(m) == [b"1"] for m in range(n))
    assert views(talk) == {1}


# --- views change --------------------------------------------------------------------------------


@every_size
def test_view_changes_run_while_a_view_change_runs_until_a_primary_works(n: int) -> None:
    """The first f primaries are dead: each view change but the last fails, and is followed."""
    f = faults(n)
    talk = Conversation(n, timeout_ms=TIMEOUT_MS)
    for member in range(f):
        talk.crash(member)
    ask_all(talk, "a", "1")
    talk.wait(TIMEOUT_MS * 2 ** (f + 2))
    assert views(talk) == {f + 1}
    assert all(talk.values(m) == [b"1"] for m in range(f, n))


@pytest.mark.parametrize("n", [10, 13])
def test_the_timer_doubles_with_each_view_change_that_brings_nothing(n: int) -> None:
    talk = Conversation(n, timeout_ms=TIMEOUT_MS)
    for member in range(faults(n)):
        talk.crash(member)
    ask_all(talk, "a", "1")
    began_ms: list[int] = []
    for _ in range(200):
        talk.said.clear()
        talk.wait(50)
        if any(line.startswith(f"{n - 1}: ViewChangeStarted") for line in talk.said):
            began_ms.append(talk.now_ms)
    waits = [after - before for before, after in pairwise(began_ms)]
    assert len(waits) == faults(n) - 1
    assert waits[0] >= 2 * TIMEOUT_MS
    assert all(after >= 1.8 * before for before, after in pairwise(waits))


@every_size
def test_a_primary_that_ignores_one_request_is_replaced(n: int) -> None:
    """It orders what others ask, all the while; what it leaves out is oldest, and tells on it."""
    talk = Conversation(n, timeout_ms=TIMEOUT_MS)
    victim = ask_all(talk, "victim", "v", but=frozenset({0}))
    lose(talk, lambda to, _by, m: to == 0 and isinstance(m, Forward) and victim in m.envelopes)
    served = 0
    for number in range(100):
        talk.submit(0, "k", str(number))
        talk.wait(50)
        if views(talk) != {1}:
            break
        served = number
    assert served >= TIMEOUT_MS // 50 - 1, "it was given up before it had its time"
    assert views(talk) == {2}
    talk.wait(TIMEOUT_MS)
    assert all(b"v" in talk.values(m) for m in range(n))


@every_size
def test_a_primary_that_censors_a_client_is_replaced(n: int) -> None:
    """The same in simulated lives: the client's every operation is answered, in a later view.

    Some of these censors keep switches back instead, and nobody asks for one here.
    """
    setting = Setting(n=n, operations=12, liars={0: "censor"}, faults=())
    lives = [Simulation(setting.scenario(seed)) for seed in range(1, 6)]
    reports = [life.run() for life in lives]
    assert all(report.operations == 12 for report in reports)
    replaced = [life for life, report in zip(lives, reports, strict=True) if report.views > 1]
    assert len(replaced) >= 2
    for life in replaced:
        events = [event for _, event in life.checker.events]
        reasons = {event.reason for event in events if isinstance(event, ViewChangeStarted)}
        assert ViewChangeReason.TIMEOUT in reasons


@every_size
def test_a_new_view_comes_with_a_quorum_of_signed_statements(n: int) -> None:
    """Every NEW-VIEW shows them in full, and one with a statement less is refused."""
    talk = Conversation(n, timeout_ms=TIMEOUT_MS)
    talk.submit(0, "a", "1")
    talk.deliver()
    shown: list[NewView] = []

    def note(_target: int, _sender: int, message: PeerMessage) -> bool:
        if isinstance(message, NewView):
            shown.append(message)
        return False

    lose(talk, note)
    talk.hand_over(0)
    talk.deliver()
    assert views(talk) == {2}
    changes = shown[0].election.changes
    assert len({change.member for change in changes}) == len(changes) == quorum(n)
