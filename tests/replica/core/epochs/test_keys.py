"""A member's key changes with an epoch: it stays who it was, and nothing is laundered."""

from __future__ import annotations

from random import Random

import pytest

from dwcp.wire.records import Protocol
from dwcp.wire.signing import digest
from dwcp_replica.core.epochs.keys import ERASED, ErasedKey, Keys
from replica.core.conversation import Conversation
from replica.core.epochs.test_switching import equivocation

SAME = [0, 1, 2, 3]


def served(protocol: Protocol = "pbft") -> Conversation:
    talk = Conversation(protocol=protocol)
    talk.wait(1000)
    for value in range(3):
        talk.submit(0, "a", str(value))
        talk.wait(100)
    return talk


def rekeyed(talk: Conversation, member: int) -> None:
    """One more epoch, with another key for a member."""
    key = talk.rekey(member).public_key
    talk.order(SAME, to=(member + 1) % 4)
    talk.wait(1000)
    for replica in talk.replicas:
        if replica is not talk.replicas[member] or member not in talk.down:
            assert replica.standing().record.members[member].identity == key


def goes_on(talk: Conversation, value: str) -> None:
    """Something new is executed by everybody who is up."""
    up = [i for i in range(4) if i not in talk.down]
    talk.submit(up[0], "a", value)
    talk.wait(1000)
    assert all(talk.values(i)[-1] == value.encode() for i in up)


@pytest.mark.parametrize("protocol", ["pbft", "raft"])
def test_a_member_votes_on_with_its_new_key(protocol: Protocol) -> None:
    talk = served(protocol)
    for round_ in range(2):
        rekeyed(talk, 1)
        talk.keys[1].adopted()
        standing = talk.replicas[1].standing()
        assert (standing.me, standing.mute, standing.waiting) == (1, None, False)
        goes_on(talk, f"round {round_}")
    talk.down.add(3)
    goes_on(talk, "with its vote")


def test_its_log_is_read_again_when_its_old_key_is_erased() -> None:
    talk = served()
    old = talk.signers[1].public_key
    rekeyed(talk, 1)
    goes_on(talk, "in the new epoch")
    talk.crash(1)
    talk.keys[1] = Keys(talk.signers[1], [old])
    talk.restart(1)
    standing = talk.replicas[1].standing()
    assert (standing.epoch, standing.me, standing.mute) == (1, 1, None)
    talk.wait(500)
    talk.down.add(3)
    goes_on(talk, "with its vote")


def test_one_that_was_down_finds_its_next_key_named() -> None:
    talk = served()
    following = talk.rekey(1)
    talk.crash(1)
    talk.order(SAME, to=0)
    talk.wait(1000)
    goes_on(talk, "without it")
    talk.restart(1)
    talk.wait(1500)
    standing = talk.replicas[1].standing()
    assert (standing.epoch, standing.me, standing.mute) == (1, 1, None)
    assert standing.record.members[1].identity == following.public_key
    talk.down.add(3)
    goes_on(talk, "with its vote")


def test_a_key_that_no_record_names_changes_nothing() -> None:
    talk = served()
    talk.keys[1].expect(talk.signers[0])
    assert talk.keys[1].of(talk.genesis)[1] == 0, "the newest of its keys counts"
    talk.keys[1].expect(type(talk.client)(digest("unnamed")))
    assert talk.keys[1].of(talk.genesis)[1] == 1
    goes_on(talk, "as before")


def test_a_new_key_hides_no_liar() -> None:
    """Who is proven to have lied stays barred, and stays proven, under whatever key."""
    talk = served()
    talk.receive(2, 3, equivocation(talk))
    talk.wait(1000)
    rekeyed(talk, 0)
    record = talk.replicas[1].standing().record
    assert (record.epoch, record.barred) == (2, (0,))
    assert [one.member for one in talk.replicas[1].standing().evidence] == [0]


def test_a_replica_is_mute_in_an_epoch_whose_key_it_erased() -> None:
    talk = served()
    gone = talk.signers[1].public_key
    talk.keys[1] = Keys(talk.client, [gone])
    talk.crash(1)
    talk.restart(1)
    assert talk.replicas[1].standing().mute == ERASED
    assert isinstance(talk.keys[1].of(talk.genesis)[0], ErasedKey)
    talk.wait(1000)
    goes_on(talk, "it learns, and says nothing")


def adopt_where_settled(talk: Conversation) -> None:
    """Erase the old key of whoever is known by its next one, once a quorum is in that epoch."""
    for member, replica in enumerate(talk.replicas):
        standing = replica.standing()
        following = talk.keys[member].following
        there = [r.standing() for i, r in enumerate(talk.replicas) if i not in talk.down]
        ready = sum(s.epoch >= standing.epoch and not s.waiting for s in there)
        if following is None or member in talk.down or ready < 3:
            continue
        if standing.record.member_with(following.public_key) is not None:
            talk.keys[member].adopted()


@pytest.mark.parametrize("seed", range(12))
def test_keys_change_while_members_crash_and_come_back(seed: int) -> None:
    """Whenever one of them is down: nothing is repeated, all agree, and everybody votes again."""
    dice = Random(f"keys {seed}")
    talk = Conversation(interval=5, protocol=dice.choice(["pbft", "raft"]))
    talk.wait(1000)
    sent: list[bytes] = []
    for turn in range(12):
        up = [i for i in range(4) if i not in talk.down]
        member = dice.choice(up)
        match dice.randrange(4):
            case 0 if not talk.down:
                talk.crash(member)
            case 1 if talk.down:
                talk.restart(min(talk.down))
            case 2 if all(keys.following is None for keys in talk.keys):  # one at a time
                talk.rekey(member)
                talk.order(SAME, to=dice.choice(up))
            case _:
                sent.append(b"%d" % turn)
                talk.submit(member, "a", str(turn))
        talk.wait(dice.choice([0, 50, 100, 400, 1500]))
        adopt_where_settled(talk)
    for member in list(talk.down):
        talk.restart(member)
    for _ in range(4):  # as the admin does: until whatever key was made last is named
        talk.wait(4000)
        adopt_where_settled(talk)
        if all(keys.following is None for keys in talk.keys):
            break
        talk.order(SAME)
    standings = [replica.standing() for replica in talk.replicas]
    assert {(s.me, s.mute) for s in standings} == {(i, None) for i in range(4)}
    assert len({s.record.hash() for s in standings}) == 1
    assert all(keys.following is None for keys in talk.keys)
    assert len({tuple(talk.values(i)) for i in range(4)}) == 1
    values = talk.values(0)
    assert len(set(values)) == len(values), "nothing twice"
    assert set(values) <= set(sent), "what a member had that crashed at once may be lost"
