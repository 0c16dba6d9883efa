"""Any number of liars, for as long as they like: the honest are equal once they have talked.

Liars hold valid keys. They fork their own past, send each operation to whom they please, forge,
mutate and invent, and answer anti-entropy with false summaries. Replay one campaign:
pytest tests/client/crdt/test_liars.py -k '[SEED]'.
"""

from __future__ import annotations

import os
from random import Random

import msgspec
import pytest

from client.crdt.people import GENESIS, document, rules, signers
from client.crdt.test_frontier import random_edit
from dwcp.crdt import Document
from dwcp.crdt.held import HELD_PER_AUTHOR_MAX
from dwcp.crdt.sync import SyncState, decode, encode, generate, receive
from dwcp.wire.documents import (
    Assign,
    Filter,
    Increment,
    Insert,
    Operation,
    OperationBody,
    Summary,
    SyncMessage,
    operation_signing_bytes,
)

CAMPAIGNS = int(os.environ.get("DWCP_CRDT_EXAMPLES", "8"))
HONEST, LIARS = 3, 4


class Campaign:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.honest = [document() for _ in range(HONEST)]
        self.lying = [document() for _ in range(LIARS)]
        self.dumps = [replica.dump() for replica in self.lying]
        self.kept: list[Operation] = []
        self.tricks = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            number = self.random.randrange(HONEST)
            random_edit(self.honest[number], number, self.random)
            if self.random.random() < 0.5:
                self.sync(*self.random.sample(self.honest, 2), rounds=2)
            for liar in range(LIARS):
                trick = self.random.choice(
                    [self.listen, self.fork, self.withhold, self.forge, self.lie_in_sync]
                )
                trick(liar)

    def settle(self) -> None:
        """The honest talk to each other until nobody has anything to say."""
        for _ in range(4):
            for one in self.honest:
                for other in self.honest:
                    if one is not other:
                        self.sync(one, other, rounds=12)

    def sync(self, one: Document, other: Document, rounds: int) -> None:
        states = SyncState(), SyncState()
        for _ in range(rounds):
            for source, target, mine, theirs in (
                (one, other, *states),
                (other, one, *reversed(states)),
            ):
                if (message := generate(source, mine)) is not None:
                    receive(target, theirs, decode(encode(message)))

    # what liars do

    def victim(self) -> Document:
        return self.random.choice(self.honest)

    def listen(self, liar: int) -> None:
        self.sync(self.lying[liar], self.victim(), rounds=2)

    def fork(self, liar: int) -> None:
        """Go on from an older state of its own: two operations under one counter."""
        if self.random.random() < 0.5:
            self.dumps[liar] = self.lying[liar].dump()
        else:
            self.lying[liar] = Document.restore(self.dumps[liar], rules())
        operation = random_edit(self.lying[liar], HONEST + liar, self.random)
        self.kept.append(operation)
        self.victim().receive(operation)

    def withhold(self, liar: int) -> None:
        """Several operations in a row, of which only some are sent, to somebody."""
        made = [
            random_edit(self.lying[liar], HONEST + liar, self.random)
            for _ in range(self.random.randint(2, 4))
        ]
        self.kept += made
        for operation in self.random.sample(made, len(made) - 1):
            self.victim().receive(operation)

    def forge(self, liar: int) -> None:
        """Invented operations: bad links, bad names, stolen bodies, mutated bytes."""
        past = tuple(self.random.choice(self.kept).hash() for _ in range(2)) if self.kept else ()
        names = (self.random.randbytes(32),) if self.random.random() < 0.5 else ()
        edit = self.random.choice(
            [
                Increment(("deep", "count"), "g-counter", self.random.randint(-1, 1)),
                Assign(("mv",), "mv", 1, (self.random.randint(0, 3),)),
                Insert(("text",), "text", (self.random.randint(0, 2), 0), right=True, content="L"),
            ]
        )
        number = self.random.randint(1, 3)
        heads = tuple(dict.fromkeys(past))
        body = OperationBody("notes", 0, number, number, 0, heads, names, (edit,))
        data = bytearray(msgspec.msgpack.encode(body))
        if self.kept and self.random.random() < 0.5:
            data = bytearray(self.random.choice(self.kept).body)
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        signer = signers(8)[HONEST + liar]
        sig = signer.sign(operation_signing_bytes(GENESIS, bytes(data)))
        operation = Operation(signer.public_key, bytes(data), sig)
        if self.random.random() < 0.2:
            operation = msgspec.structs.replace(operation, author=signers(8)[0].public_key)
        self.tricks += self.victim().receive(operation).outcome == "refused"

    def lie_in_sync(self, liar: int) -> None:
        """Real operations under a false summary, in the middle of an exchange."""
        victim, state = self.victim(), SyncState()
        known = [operation.hash() for operation in self.kept] or [bytes(32)]
        false = Summary(
            self.random.randbytes(32),
            (*self.random.choices(known, k=3), self.random.randbytes(32)),
            tuple(self.random.choices(known, k=2)),
            Filter(self.random.randbytes(40), self.random.randint(1, 16), 5),
            (self.random.choice(known), self.random.randbytes(32)),
            victim.graph.state(),
            retry=bool(self.random.getrandbits(1)),
        )
        some = tuple(self.random.sample(self.kept, min(2, len(self.kept))))
        for _ in range(2):
            receive(victim, state, SyncMessage("notes", false, some))
            generate(victim, state)


@pytest.mark.parametrize("seed", range(CAMPAIGNS))
def test_honest_replicas_are_equal_in_the_end(seed: int) -> None:
    campaign = Campaign(seed)
    campaign.run(steps=12)
    campaign.settle()
    first, *others = campaign.honest
    for other in others:
        assert other.heads == first.heads
        assert other.view() == first.view()
        assert other.graph.equivocations.keys() == first.graph.equivocations.keys()
    for replica in campaign.honest:
        assert len(replica.held) <= HELD_PER_AUTHOR_MAX * LIARS
        assert replica.heads == Document.restore(replica.dump(), rules()).heads


def test_the_liars_do_lie() -> None:
    """Or the campaigns would show nothing."""
    campaigns = [Campaign(seed) for seed in range(5)]
    for campaign in campaigns:
        campaign.run(steps=12)
        campaign.settle()
    assert sum(campaign.tricks for campaign in campaigns) > 20
    assert sum(len(campaign.honest[0].graph.equivocations) for campaign in campaigns) > 5
    assert any(len(campaign.honest[0].held) for campaign in campaigns)
