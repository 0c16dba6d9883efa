"""What one member can make another hold, send or write: everything from a peer has a bound."""

from __future__ import annotations

from itertools import combinations

import msgspec

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import (
    MAX_FRAME_BYTES,
    Election,
    ElectionRef,
    Entries,
    Fetch,
    Forward,
    NewView,
    PeerMessage,
    Status,
    encode_message,
)
from dwcp.wire.signing import digest
from dwcp_replica.core.effects import ElectionRecord, Tick
from replica.core.conversation import WALL_MS, Conversation
from replica.core.pbft.test_view_start import Stage


def test_names_of_elections_do_not_pile_up() -> None:
    """A VIEW-CHANGE may name up to 64 unknown election certificates. All names are kept in
    `elections_wanted`, for ever; the liar repeats it with new names as often as it likes.
    """
    stage = Stage(liar=0)
    for number in range(200):
        refs = tuple(
            ElectionRef(1, digest("no such election", bytes((number, i)))) for i in range(60)
        )
        change = msgspec.structs.replace(stage.change(2, ()), elections=refs)
        sig = stage.signers[0].sign(change.signing_bytes(stage.scope))
        stage.receive(1, 0, msgspec.structs.replace(change, sig=sig))
    held = len(stage.replicas[1]._core.elections_wanted)
    assert held <= 4096, f"{held} names are held because of one liar"


def test_elections_of_one_view_do_not_pile_up_on_disk() -> None:
    """A primary can form many valid election certificates for its view, since its own VIEW-CHANGE
    is what it likes. Each that it shows in a NEW-VIEW is verified, kept in memory and written to
    the log, even where the NEW-VIEW itself is refused; nothing is ever forgotten.
    """
    stage = Stage(liar=1, timeout_ms=4000)
    for value in range(10):
        stage.submit(0, "k", str(value))
        stage.deliver()
    stage.hand_over(0)
    stage.deliver()
    log = stage.log_of(0)
    before = sum(isinstance(record, ElectionRecord) for record in stage.records[3])
    for length in range(len(log)):
        changes = {**stage.changes(2), 1: stage.change(2, log[:length])}
        for others in combinations((0, 2, 3), 2):
            members = sorted((1, *others))
            election = Election(0, 2, tuple(changes[m] for m in members))
            wrong = stage.entry(2, 99, log[-1].hash(), Batch(WALL_MS, ()))
            stage.receive(3, 1, NewView(election, wrong))
    written = sum(isinstance(record, ElectionRecord) for record in stage.records[3]) - before
    assert written <= 3, f"{written} election certificates written for one view that never began"


def test_a_forward_fits_a_frame() -> None:
    """A backup forwards up to 256 waiting requests in one message. A dozen large ones make a frame
    over the limit, which the sender drops: the primary never hears of any of them, and the backup
    gives up one working primary after the other.
    """
    talk = Conversation()
    for number in range(12):
        talk.submit(1, f"k{number}", "x" * 1_500_000)
    talk.step()  # the single forwards are lost
    longest = 0
    for _ in range(8):
        talk.now_ms += 50
        talk._act(1, Tick(talk.now_ms, WALL_MS + talk.now_ms))
        for _, _, message in talk.step():
            if isinstance(message, Forward):
                longest = max(longest, len(encode_message(message)))
    assert 0 < longest <= MAX_FRAME_BYTES


class Slow(Conversation):
    """A conversation over links with a delay, one way, in ms."""

    delay_ms = 0

    def deliver(self) -> None:
        waiting: list[tuple[int, int, int, PeerMessage]] = getattr(self, "waiting", [])
        waiting += [(self.now_ms + self.delay_ms, s, t, m) for s, t, m in self.step()]
        due = [item for item in waiting if item[0] <= self.now_ms]
        self.waiting = [item for item in waiting if item[0] > self.now_ms]
        for _, source, target, message in due:
            if (source, target) not in self.cut:
                self.receive(target, source, message)


def test_catch_up_works_over_a_long_way() -> None:
    """An answer counts only if it comes from the peer that was asked last, and after 500 ms another
    is asked. Over 400 ms one way (or a 4 MiB answer over 50 Mbit/s) every answer comes after that,
    is refused as "not-asked", and the replica never catches up.
    """
    talk = Slow(timeout_ms=2000)
    talk.isolate(3)
    for value in range(5):
        talk.submit(0, "k", str(value))
        talk.wait(200)
    assert talk.values(0) == [b"0", b"1", b"2", b"3", b"4"]
    talk.cut.clear()
    talk.waiting = []
    talk.delay_ms = 400
    talk.wait(30_000)
    assert talk.values(3) == talk.values(0)


def test_questions_are_not_answered_without_a_limit() -> None:
    """Forty bytes of FETCH are answered with up to 4 MiB, and fifty of STATUS with a NEW-VIEW, as
    often as they come: a liar with a modest link keeps an honest replica's loop and uplink busy.
    """
    talk = Conversation()
    talk.hand_over(0)
    talk.deliver()
    talk.submit(1, "k", "x" * 1_000_000)
    talk.deliver()
    sent = 0
    for _ in range(200):  # no time passes
        talk.receive(2, 3, Fetch(0, 1))
        talk.receive(2, 3, Status(0, 1, active=False, last=0, prepared=0, final=0, stable=0))
        sent += sum(isinstance(m, Entries | NewView) for _, t, m in talk.step() if t == 3)
    assert sent <= 32, f"{sent} large answers at one moment"


def test_answers_that_bring_nothing_are_not_asked_for_again_at_once() -> None:
    """A member claims a stable checkpoint that it does not have, and shows what is known (life
    43895082): each answer would be the next question's cause."""
    talk = Conversation(interval=100)
    for value in range(3):
        talk.submit(0, "a", str(value))
        talk.deliver()
    talk.wait(1500)
    final = talk.replicas[1].standing().final
    said = msgspec.structs.replace(talk.replicas[1].standing().peers[3], stable=final)
    talk.receive(1, 3, said)
    asked = 0
    for _ in range(60):
        for source, target, message in talk.step():
            asked += source == 1 and isinstance(message, Fetch)
            talk.receive(target, source, message)
    assert asked == 1
