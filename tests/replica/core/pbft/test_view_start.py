"""What one liar can put into the start of a view, and what honest members must make of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dwcp.wire.envelope import Batch, Envelope, batch_digest
from dwcp.wire.peer import (
    Bodies,
    Commit,
    Election,
    Entries,
    Entry,
    Fetch,
    FetchBodies,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from dwcp_replica.core.effects import Submit, Tick
from replica.core.conversation import WALL_MS, Conversation

Hear = Callable[[int, PeerMessage], None]


class Stage(Conversation):
    """A conversation in which one member says only what the test has it say."""

    def __init__(self, liar: int, interval: int = 100, timeout_ms: int = 400) -> None:
        super().__init__(interval=interval, timeout_ms=timeout_ms)
        self.liar = liar
        self.down.add(liar)
        self.scope = scope_of(self.genesis, self.genesis)
        self.heard: list[tuple[int, PeerMessage]] = []
        self.bodies: dict[bytes, bytes] = {}
        self.lost: Callable[[int, int, PeerMessage], bool] = lambda s, t, m: False

    @property
    def honest(self) -> list[int]:
        return [m for m in range(self.n) if m != self.liar]

    def deliver_once(self) -> None:
        for source, target, message in self.step():
            if self.lost(source, target, message):
                continue
            if target == self.liar:
                self.heard.append((source, message))
                if isinstance(message, FetchBodies):
                    held = [self.bodies[b] for b in set(message.batches) if b in self.bodies]
                    if held:
                        self.receive(source, self.liar, Bodies(tuple(held)))
            elif (source, target) not in self.cut and not self.down & {source, target}:
                self.receive(target, source, message)

    def entry(self, term: int, index: int, prev: bytes, batch: Batch) -> Entry:
        """An entry signed by the liar, its body ready for whoever asks."""
        body = msgspec.msgpack.encode(batch)
        self.bodies[batch_digest(body)] = body
        header = Header(0, term, index, batch_digest(body), prev, bytes(64))
        sig = self.signers[self.liar].sign(header.signing_bytes(self.scope))
        return Entry(msgspec.structs.replace(header, sig=sig), body)

    def change(self, view: int, log: tuple[Header, ...]) -> ViewChange:
        """The liar's VIEW-CHANGE."""
        change = ViewChange(0, view, None, log, None, (), (), self.liar, bytes(64))
        sig = self.signers[self.liar].sign(change.signing_bytes(self.scope))
        return msgspec.structs.replace(change, sig=sig)

    def log_of(self, member: int) -> tuple[Header, ...]:
        return tuple(slot.header for slot in self.replicas[member]._core.log.slots(0))

    def changes(self, view: int) -> dict[int, ViewChange]:
        """What the liar heard of others' VIEW-CHANGEs for a view."""
        return {m.member: m for _, m in self.heard if isinstance(m, ViewChange) and m.view == view}

    def tell(self, targets: list[int], message: PeerMessage) -> None:
        for target in targets:
            self.receive(target, self.liar, message)

    def commit(self, header: Header) -> Commit:
        sig = self.signers[self.liar].sign(vote_signing_bytes(self.scope, "commit", header))
        return Commit(header, self.liar, sig)

    def goes_on(self, within_ms: int = 30_000) -> bool:
        """True when a request that every honest member has is executed by all of them."""
        envelope: Envelope = self.envelope("later", "later")
        for member in self.honest:
            if member not in self.down:
                self._act(member, Submit(envelope))
        up = [m for m in self.honest if m not in self.down]
        for _ in range(0, within_ms, 500):
            self.wait(500)
            if all(b"later" in self.values(m) for m in up):
                return True
        return False


def test_a_chain_longer_than_the_window_does_not_stop_the_cluster() -> None:
    """The liar, once primary of view 1, shows a chain of empty entries of its own beyond the high
    water mark. It is adopted as the start; the view's first entry then lies above `high`, so that
    every vote for it is refused as "watermark", in this view and in every later one, for ever.
    """
    stage = Stage(liar=0, interval=4)
    empty = Batch(WALL_MS, ())
    headers: list[Header] = []
    prev = stage.genesis.start_hash
    for index in range(1, 41):
        headers.append(stage.entry(1, index, prev, empty).header)
        prev = headers[-1].hash()
    stage.tell(stage.honest, stage.change(2, tuple(headers)))
    assert stage.goes_on()


def test_a_stamp_from_the_far_future_in_a_view_change_does_not_stop_the_cluster() -> None:
    """A proposal stamped far ahead is refused as "skew", but the same entry in the liar's
    VIEW-CHANGE becomes the start of view 2 unchecked. From then on every new primary must stamp
    its first entry as late, and every backup refuses that NEW-VIEW as "skew", for ever. (Were it
    accepted, agreed time would jump: every session expires and none can be opened again.)
    """
    stage = Stage(liar=0)
    late = stage.entry(1, 1, stage.genesis.start_hash, Batch(2**62, ()))
    stage.tell(stage.honest, stage.change(2, (late.header,)))
    assert stage.goes_on()


def test_a_first_entry_stamped_in_the_past_does_not_stop_the_cluster() -> None:
    """first_entry() does not ask that a new view's stamp is at least its predecessor's. Members
    that entered hold such an entry; a member that did not finds it "worthless" in adopt(), whose
    rule is stricter, and refuses every later view that inherits it, for ever.
    """
    stage = Stage(liar=1)
    stage.submit(0, "a", "1")
    stage.deliver()
    assert stage.values(2) == [b"1"]
    stage.hand_over(0)
    stage.deliver()
    changes = {**stage.changes(2), 1: stage.change(2, stage.log_of(0))}
    election = Election(0, 2, tuple(changes[m] for m in (0, 1, 2)))
    first = stage.entry(2, 2, stage.log_of(0)[-1].hash(), Batch(1, ()))
    stage.tell([0, 3], NewView(election, first))
    stage.lost = lambda s, t, m: isinstance(m, NewView) and m.election.view == 2
    assert stage.goes_on(60_000)


def test_a_body_too_large_to_be_given_on_does_not_stop_the_cluster() -> None:
    """acceptable() bounds the number of envelopes in a batch, not the bytes. A batch over 8 MiB
    (old envelopes of a client will do) fits a PRE-PREPARE, but on_fetch_bodies never gives such
    a body on: a member that the liar left out can never adopt a start that holds it.
    """
    stage = Stage(liar=0)
    envelopes = tuple(stage.envelope("big", "x" * 1_000_000) for _ in range(10))
    batch = Batch(WALL_MS + stage.now_ms, envelopes)
    entry = stage.entry(1, 1, stage.genesis.start_hash, batch)
    stage.bodies.clear()
    stage.tell([1, 3], PrePrepare(entry))
    stage.deliver()
    assert stage.goes_on()


def two_starts(stage: Stage) -> tuple[NewView, NewView]:
    """Two NEW-VIEWs for view 2, both valid: one from a short start, one from a longer."""
    stage.submit(0, "a", "1")
    stage.deliver()
    for key in "bcd":
        stage.submit(0, key, key)
    stage.step()  # these three proposals are lost
    stage.hand_over(0)
    stage.deliver()
    short, long = stage.log_of(2), stage.log_of(0)
    assert (len(short), len(long)) == (1, 4)
    changes = {**stage.changes(2), 1: stage.change(2, short)}
    news = []
    for members, log in (((1, 2, 3), short), ((0, 1, 2), long)):
        election = Election(0, 2, tuple(changes[m] for m in members))
        batch = Batch(WALL_MS + stage.now_ms, ())
        news.append(NewView(election, stage.entry(2, len(log) + 1, log[-1].hash(), batch)))
    return news[0], news[1]


def final_among_2_and_3(stage: Stage, new_view: NewView) -> None:
    """Members 2 and 3 enter, and the view's first entry is final there."""
    stage.tell([2, 3], new_view)
    stage.deliver()
    stage.tell([2, 3], stage.commit(new_view.first.header))
    stage.deliver()
    assert stage.replicas[2].standing().final == 2


def catch_up(stage: Stage) -> None:
    """Member 0 fetches what is final from member 2; once more when it first left its view."""
    stage.step()
    for _ in range(20):
        stage.now_ms += 50
        stage._act(0, Tick(stage.now_ms, WALL_MS + stage.now_ms))
    stage.step()
    for _ in range(2):
        if stage.replicas[0].standing().final < 2:
            stage.receive(0, 2, Status(0, 2, active=True, last=2, prepared=2, final=2, stable=0))
            fetch = next(m for s, t, m in stage.step() if (s, t) == (0, 2) and isinstance(m, Fetch))
            stage.receive(2, 0, fetch)
            answers = [m for s, t, m in stage.step() if (s, t) == (2, 0) and isinstance(m, Entries)]
            stage.receive(0, 2, answers[0])
    assert stage.replicas[0].standing().final == 2


def test_a_second_new_view_halts_nobody() -> None:
    """The primary of view 2 shows two valid NEW-VIEWs with starts of different length. A member
    that learned by catch-up what is final under the first is shown the second: adopt() calls
    halt(), though only one member lied. (epochs.md: comparing by index misses this liar.)
    """
    stage = Stage(liar=1, timeout_ms=4000)
    short, long = two_starts(stage)
    stage.lost = lambda s, t, m: 0 in (s, t)
    final_among_2_and_3(stage, short)
    catch_up(stage)
    stage.receive(0, 1, long)
    assert stage.replicas[0].standing().halted is None


def test_an_honest_member_is_not_made_to_vote_twice() -> None:
    """A member enters view 2 by the second NEW-VIEW and votes for its first entry; catch-up then
    swaps its log for what is final under the first, and it goes on voting in the same view: two
    prepares for one (view, index), so that it is convicted (epochs.md: in one term strict
    extension only; own acks of a term form one growing chain).
    """
    stage = Stage(liar=1, timeout_ms=4000)
    short, long = two_starts(stage)
    prepares: dict[tuple[int, int], set[bytes]] = {}

    def watch(source: int, _target: int, message: PeerMessage) -> bool:
        if source == 0 and isinstance(message, Prepare):
            h = message.header
            prepares.setdefault((h.term, h.index), set()).add(h.hash())
        return False

    stage.lost = watch
    stage.receive(0, 1, long)
    stage.deliver()
    final_among_2_and_3(stage, short)
    catch_up(stage)
    prev = short.first.header.hash()
    for index in range(3, 6):
        batch = Batch(WALL_MS + stage.now_ms, (stage.envelope("k", str(index)),))
        entry = stage.entry(2, index, prev, batch)
        prev = entry.header.hash()
        stage.tell([0, 2, 3], PrePrepare(entry))
        stage.deliver()
        stage.tell([2, 3], stage.commit(entry.header))
        stage.deliver()
    assert all(len(hashes) == 1 for hashes in prepares.values()), "two prepares for one place"
    for member in (0, 2, 3):
        found = [e.member for e in stage.replicas[member].standing().evidence]
        assert found in ([], [1]), f"member {member} convicted {found}"


def test_an_empty_answer_starts_no_storm() -> None:
    """Every BODIES frame, even an empty or unasked one, makes a member that waits for bodies ask
    everybody again at once: a liar that answers each question with nothing keeps the member, and
    all whom it asks, busy at the speed of the network.
    """
    stage = Stage(liar=0, timeout_ms=4000)
    entry = stage.entry(1, 1, stage.genesis.start_hash, Batch(WALL_MS, ()))
    stage.bodies.clear()  # nobody can give this body
    stage.tell(stage.honest, stage.change(2, (entry.header,)))
    stage.hand_over(0)
    for _ in range(100):
        if any(isinstance(m, FetchBodies) for _, m in stage.heard):
            break
        stage.wait(100)
    asked = 0
    for _ in range(50):
        stage.receive(1, 0, Bodies(()))
        asked += sum(isinstance(m, FetchBodies) for _, _, m in stage.step())
    assert asked <= stage.n - 1, f"{asked} questions because of 50 empty answers"
