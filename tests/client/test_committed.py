"""Under Crash trust one reply is enough, with the certificate of a majority for its entry."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dwcp.matching import Collector, ReplyChecker
from dwcp.wire.committed import Committed
from dwcp.wire.envelope import Reply, reply_signing_bytes
from dwcp.wire.operations import PutResponse
from dwcp.wire.peer import Certificate, VoteSig
from dwcp.wire.records import scope_of
from replica.core.conversation import Conversation

RESULTS = msgspec.msgpack.encode((PutResponse(),))


class Cluster:
    """Three members that have executed two entries, and how they answer."""

    def __init__(self) -> None:
        self.talk = Conversation(n=3, protocol="raft", trust="Crash")
        self.request = self.talk.submit(0, "a", "1")
        self.talk.deliver()
        self.talk.submit(0, "b", "2")
        self.talk.deliver()
        self.scope = scope_of(self.talk.genesis, self.talk.genesis)
        self.checker = ReplyChecker(self.talk.genesis, self.talk.verifier)

    def reply(self, member: int = 1, index: int = 1) -> Reply:
        unsigned = Reply(self.request.digest(), index, 2, RESULTS, 0, 1, member, bytes(64))
        sig = self.talk.signers[member].sign(reply_signing_bytes(self.scope, unsigned))
        return msgspec.structs.replace(unsigned, sig=sig)

    def answer(self, member: int = 1, index: int = 1) -> Committed:
        proof = self.talk.replicas[member].proof_of(index)
        assert proof is not None
        return Committed(self.reply(member, index), *proof)

    def collector(self) -> Collector:
        return Collector(self.checker, self.request.digest(), bytes(64), read_only=False)


def test_one_proven_reply_is_believed() -> None:
    cluster = Cluster()
    answer = cluster.answer()
    assert [header.index for header in answer.headers] == [1, 2], "covered by the newest CC"
    collector = cluster.collector()
    assert collector.add(1, answer).refused is None
    assert collector.answer is not None
    assert (collector.answer.index, collector.answer.results) == (1, RESULTS)


def test_a_reply_without_its_proof_is_not() -> None:
    cluster = Cluster()
    collector = cluster.collector()
    for member in range(3):
        assert collector.add(member, cluster.reply(member)).refused == "unproven"
    assert collector.answer is None


def replaced(answer: Committed, **changes: object) -> Committed:
    certificate = msgspec.structs.replace(answer.certificate, **changes)  # type: ignore[arg-type]
    return msgspec.structs.replace(answer, certificate=certificate)


def lone(answer: Committed) -> tuple[VoteSig, ...]:
    return answer.certificate.votes[:0]


FORGERIES: dict[str, Callable[[Committed], Committed]] = {
    "no votes": lambda a: replaced(a, votes=lone(a)),
    "a forged vote": lambda a: replaced(a, votes=(VoteSig(2, bytes(64)),)),
    "a stranger's vote": lambda a: replaced(a, votes=(VoteSig(7, bytes(64)),)),
    "one vote twice": lambda a: replaced(a, votes=a.certificate.votes * 2),
    "another kind": lambda a: replaced(a, kind="commit"),
    "no way there": lambda a: msgspec.structs.replace(a, headers=()),
    "a gap": lambda a: msgspec.structs.replace(a, headers=(a.headers[0],)),
    "from elsewhere": lambda a: msgspec.structs.replace(a, headers=a.headers[1:]),
    "an unsigned header": lambda a: replaced(
        a, header=msgspec.structs.replace(a.certificate.header, sig=bytes(64))
    ),
    "another epoch": lambda a: replaced(
        a, header=msgspec.structs.replace(a.certificate.header, epoch=1)
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_proof_that_does_not_hold_proves_nothing(how: str) -> None:
    cluster = Cluster()
    collector = cluster.collector()
    assert collector.add(1, FORGERIES[how](cluster.answer())).refused == "unproven"
    assert collector.answer is None


def test_among_liars_a_proof_does_not_replace_the_other_replies() -> None:
    cluster = Cluster()
    byzantine = Conversation(n=4, protocol="raft")
    checker = ReplyChecker(byzantine.genesis, byzantine.verifier)
    collector = Collector(checker, cluster.request.digest(), bytes(64), read_only=False)
    assert collector.add(1, cluster.answer()).refused == "unproven"


def test_below_a_stable_checkpoint_it_is_the_proof() -> None:
    talk = Conversation(n=3, interval=2, protocol="raft", trust="Crash")
    for key in "ab":
        talk.submit(0, key, "1")
        talk.deliver()
    proof = talk.replicas[1].proof_of(1)
    assert proof is not None
    headers, certificate = proof
    assert (certificate.kind, certificate.header.index) == ("checkpoint", 2)
    assert isinstance(certificate, Certificate)
    assert [header.index for header in headers] == [1, 2]
