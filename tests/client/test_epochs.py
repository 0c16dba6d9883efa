"""The chain of epoch records, verified without trust in any replica."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dwcp.epochs import RecordChain, read_records, records_file, sign_anchor, successor_fault
from dwcp.wire.epochs import CertifiedRecord, Records
from dwcp.wire.records import EpochRecord
from replica.core.conversation import Conversation

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def talk() -> Conversation:
    """Three epochs of a cluster."""
    talk = Conversation()
    talk.wait(200)
    for _ in range(2):
        talk.order([0, 1, 2, 3])
        talk.wait(400)
    return talk


def chain_of(talk: Conversation) -> RecordChain:
    chain = RecordChain(talk.genesis, talk.verifier)
    assert chain.extend(talk.replicas[1].certified) is None
    return chain


def test_a_genuine_chain_holds(talk: Conversation) -> None:
    chain = chain_of(talk)
    assert [record.epoch for record in chain.records] == [0, 1, 2]
    assert chain.extend(talk.replicas[1].certified) is None, "what is known is passed over"


def test_a_file_keeps_more_records_than_a_message_may_carry(talk: Conversation) -> None:
    many = talk.replicas[1].certified * 200
    assert read_records(records_file(many)) == tuple(many)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(records_file(many), type=Records)


def changed(one: CertifiedRecord, **fields: object) -> CertifiedRecord:
    return replace(one, record=replace(one.record, **fields))


FORGERIES: dict[str, Callable[[CertifiedRecord], CertifiedRecord]] = {
    "another leader": lambda c: changed(c, leader=(c.record.leader + 1) % 4),
    "another start": lambda c: changed(c, start_hash=bytes(32)),
    "fewer members": lambda c: changed(c, members=c.record.members[:1]),
    "too few votes": lambda c: replace(c, votes=c.votes[:2]),
    "one vote twice": lambda c: replace(c, votes=(c.votes[0], *c.votes[:2])),
    "a stranger's vote": lambda c: replace(c, votes=(replace(c.votes[0], member=9), *c.votes[1:])),
    "a broken signature": lambda c: replace(
        c, votes=(replace(c.votes[0], sig=bytes(64)), *c.votes[1:])
    ),
    "another view": lambda c: replace(c, view=c.view + 1),
    "a later epoch": lambda c: changed(c, epoch=5),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_record_is_refused_and_changes_nothing(talk: Conversation, case: str) -> None:
    chain = RecordChain(talk.genesis, talk.verifier)
    forged = FORGERIES[case](talk.replicas[1].certified[0])
    assert chain.extend([forged]) is not None
    assert chain.current == talk.genesis


def test_records_do_not_follow_what_they_skip(talk: Conversation) -> None:
    second = talk.replicas[1].certified[1]
    assert successor_fault(talk.genesis, talk.genesis, second, talk.verifier) is not None


def test_stolen_old_keys_make_a_chain_that_only_the_anchor_refuses(talk: Conversation) -> None:
    """A quorum of former members' keys decides another future for their epoch."""
    chain = chain_of(talk)
    anchor = sign_anchor(talk.genesis, chain.current, talk.admin)
    assert chain.anchor_fault(anchor) is None
    fork = RecordChain(talk.genesis, talk.verifier)
    genuine = talk.replicas[1].certified
    assert fork.extend(genuine[:1]) is None
    fork.add(signed_by_old_keys(talk, fork.current, replace(genuine[1].record, leader=3)))
    assert fork.current != chain.current
    assert fork.anchor_fault(anchor) is not None
    forged = replace(anchor, sig=talk.client.sign(anchor.signing_bytes(talk.genesis.hash())))
    assert chain.anchor_fault(forged) is not None, "only the admin signs anchors"


def signed_by_old_keys(
    talk: Conversation, previous: EpochRecord, record: EpochRecord
) -> CertifiedRecord:
    from dwcp.wire.chain import VoteSig
    from dwcp.wire.epochs import slot_signing_bytes
    from dwcp.wire.records import scope_of

    signed = slot_signing_bytes(
        scope_of(talk.genesis, previous), "slot-commit", previous.epoch, 0, record.hash()
    )
    votes = tuple(VoteSig(m, talk.signers[m].sign(signed)) for m in range(3))
    certified = CertifiedRecord(record, 0, votes)
    assert successor_fault(talk.genesis, previous, certified, talk.verifier) is None
    return certified
