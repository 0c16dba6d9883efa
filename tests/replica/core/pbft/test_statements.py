"""Honest members' VIEW-CHANGEs must hold for every other honest member, or no quorum forms."""

from __future__ import annotations

from dwcp.wire.envelope import Batch
from dwcp.wire.peer import (
    Commit,
    Entries,
    Header,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    vote_signing_bytes,
)
from dwcp_replica.core.effects import Submit, Tick
from replica.core.conversation import WALL_MS, Conversation
from replica.core.pbft.test_view_start import Stage


class Lossy(Conversation):
    """A conversation that loses some kinds of messages for a while."""

    def __init__(self, interval: int = 100, timeout_ms: int = 400) -> None:
        super().__init__(interval=interval, timeout_ms=timeout_ms)
        self.losing: tuple[type, ...] = ()
        self.losing_to: set[int] = set(range(self.n))

    def deliver_once(self) -> None:
        for source, target, message in self.step():
            is_lost = isinstance(message, self.losing) and target in self.losing_to
            reached = (source, target) not in self.cut and not self.down & {source, target}
            if reached and not is_lost:
                self.receive(target, source, message)


def goes_on(talk: Conversation, members: list[int], within_ms: int = 60_000) -> bool:
    """True when a request that all these members have is executed by all of them."""
    envelope = talk.envelope("later", "later")
    for member in members:
        talk._act(member, Submit(envelope))
    for _ in range(0, within_ms, 500):
        talk.wait(500)
        if all(b"later" in talk.values(m) for m in members):
            return True
    return False


def test_a_member_amid_catch_up_is_heard_in_a_view_change() -> None:
    """Catch-up brings entries of view 2 without that view's election certificate (a run that ends
    below the stable checkpoint carries none, and a liar need not give any). The VIEW-CHANGE that
    the member then makes names no certificate for view 2, so every other member refuses it as
    "election", and the same bytes are resent for ever: with one member down there is no quorum.
    """
    talk = Lossy(interval=4)
    talk.isolate(3)
    talk.hand_over(0)
    talk.deliver()
    for value in range(6):
        talk.submit(1, "k", "x" * 1_400_000 + str(value))
        talk.deliver()
    assert [r.standing().stable for r in talk.replicas] == [4, 4, 4, 0]
    talk.cut.clear()
    talk.step()
    while talk.replicas[3].standing().final == 0:
        talk.now_ms += 50
        for member in range(4):
            talk._act(member, Tick(talk.now_ms, WALL_MS + talk.now_ms))
        talk.losing, talk.losing_to = (NewView,), {3}
        talk.deliver_once()
    assert talk.replicas[3].standing().final == 3, "the first chunk has come"
    talk.crash(1)  # the primary of view 2, for good
    talk.losing = (NewView, Entries)  # the next chunk takes its time
    talk.wait(1000)
    assert talk.replicas[3].standing().view >= 3, "it has joined the others"
    talk.losing = ()
    assert goes_on(talk, [0, 2, 3])


def test_a_dead_branch_does_not_silence_its_holder() -> None:
    """Member 3 holds a CC of view 1 on a branch that the primary, a liar, had shown to few; the
    start of view 2 is rightly another branch. Once a stable checkpoint lies between the fork and
    the CC, my_change() shows the branch above the checkpoint, to which it does not link: every
    member refuses the VIEW-CHANGE as "link", for ever. (The CC is below a final entry of a later
    view and binds nothing: it must be left out.)
    """
    stage = Stage(liar=0, interval=4, timeout_ms=2000)
    branches = fork(stage)
    enter_view_2(stage, branches)
    stage.lost = lambda s, t, m: False
    stage.wait(4000)
    standings = [stage.replicas[m].standing() for m in (1, 2, 3)]
    assert [(s.view, s.active, s.final, s.stable) for s in standings] == [(2, True, 7, 4)] * 3
    stage.hand_over(1)
    assert stage.goes_on()


def fork(stage: Stage) -> list[ViewChange]:
    """Three entries final everywhere; then branch A at 1 and 3, a CC for it at 3 only, and B."""
    stamp = WALL_MS + stage.now_ms
    prev = stage.genesis.start_hash
    for index in range(1, 4):
        batch = Batch(stamp, (stage.envelope("k", str(index)),))
        entry = stage.entry(1, index, prev, batch)
        prev = entry.header.hash()
        stage.tell(stage.honest, PrePrepare(entry))
        stage.deliver()
    assert [stage.replicas[m].standing().final for m in (1, 2, 3)] == [3, 3, 3]
    common = stage.log_of(1)
    a_prev = b_prev = prev
    b_log = list(common)
    stage.lost = lambda s, t, m: (t == 1 and isinstance(m, Prepare)) or isinstance(m, Commit)
    for index in (4, 5):
        batch = Batch(stamp, (stage.envelope("a", str(index)),))
        entry = stage.entry(1, index, a_prev, batch)
        a_prev = entry.header.hash()
        stage.tell([1, 3], PrePrepare(entry))
        for source, target, message in stage.step():
            if target == 3 and source == 1:
                stage.receive(3, 1, message)
    for index in (4, 5, 6):
        batch = Batch(stamp, (stage.envelope("b", str(index)),))
        entry = stage.entry(1, index, b_prev, batch)
        b_prev = entry.header.hash()
        b_log.append(entry.header)
    assert stage.replicas[3].standing().prepared == 5
    assert stage.replicas[1].standing().prepared == 3
    return [stage.change(2, tuple(b_log))]


def enter_view_2(stage: Stage, changes: list[ViewChange]) -> None:
    """Members 1 and 2 go on with branch B, with the liar's help and without member 3."""
    stage.lost = lambda s, t, m: 3 in (s, t)
    stage.tell([1, 2], changes[0])
    for _ in range(100):
        if stage.replicas[2].standing().view == 2 and stage.replicas[2].standing().active:
            break
        stage.wait(50)
    first = stage.replicas[1]._core.log.slot(7)
    assert first is not None
    help_with(stage, first.header)


def help_with(stage: Stage, header: Header) -> None:
    """The liar votes for what members 1 and 2 propose, so that it is final and checkpointed."""
    signer = stage.signers[0]
    sig = signer.sign(vote_signing_bytes(stage.scope, "prepare", header))
    stage.tell([1, 2], Prepare(header, 0, sig))
    stage.deliver()
    stage.tell([1, 2], stage.commit(header))
    stage.deliver()
    assert stage.replicas[2].standing().final == 7


def test_views_that_fail_do_not_push_the_log_out_of_its_window() -> None:
    """Every view adds its first entry. When several in a row fail (votes are lost for a while),
    first entries come to lie above the high water mark; votes for them are refused for ever,
    and nothing below can become final either, so that the mark never moves. No liar is needed.
    """
    talk = Lossy(interval=4)
    talk.submit(0, "a", "1")
    talk.losing = (Prepare, Commit)
    for _ in range(60):
        talk.wait(5000)
        if talk.replicas[1].standing().last > 10:
            break
    talk.losing = ()
    assert goes_on(talk, [0, 1, 2, 3], 300_000)


def test_many_views_in_an_idle_cluster() -> None:
    """An honest log names one election certificate for each view in it, above the last stable
    checkpoint. An idle cluster whose primary changes 65 times (restarts will do) within one
    checkpoint interval can not change its view once more: every VIEW-CHANGE of every member names
    more than ELECTIONS_MAX certificates and is refused as "size". No liar is needed.
    """
    talk = Conversation()
    for view in range(1, 80):
        talk.hand_over((view - 1) % 4)
        talk.deliver()
        talk.wait(50)
    assert goes_on(talk, [0, 1, 2, 3])
