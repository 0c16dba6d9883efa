"""What an operation would cost: one-way delays added up along each protocol's rounds.

Every round waits for the vote that completes a quorum, so that a prediction is order statistics
over sums of delays. Times are milliseconds throughout. `delay_ms[i][j]` is the one-way delay
from i to j (0 on the diagonal); `costs` is what a replica spends in a round besides: a synced
write before it votes, and the handling of the messages.

    PBFT               client > primary > backups > prepares > commits > replies    5 delays
    Raft, Byzantine    client > leader > acks > CC > cert-acks > final > replies    7 delays
    Raft, Crash        client > leader > acks > reply                               4 delays
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dwcp_replica.core.quorum import faults, quorum

Matrix = Sequence[Sequence[float]]
Protocol = Literal["pbft", "raft"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What one round costs a replica besides the network, in milliseconds."""

    persist_ms: float = 0.0
    handle_ms: float = 0.0

    @property
    def vote_ms(self) -> float:
        """From a message to the vote that follows from it."""
        return self.persist_ms + self.handle_ms


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one operation costs under a protocol and a leader.

    commit_ms: from the leader's proposal until f+1 replicas (Crash trust: the leader) have
    executed it. answer_ms: from the client's request until it holds the answer that counts;
    None without a client.
    """

    protocol: Protocol
    leader: int
    commit_ms: float
    answer_ms: float | None


def kth(values: Sequence[float], k: int) -> float:
    """The k-th smallest value, k from 1."""
    return sorted(values)[k - 1]


def executed_ms(
    protocol: Protocol, leader: int, delay_ms: Matrix, trust: str, costs: Costs
) -> list[float]:
    """When each replica executes an entry that `leader` proposes at 0, by replica number."""
    n = len(delay_ms)
    q = quorum(n, trust)
    proposed = [0.0 if i == leader else delay_ms[leader][i] + costs.handle_ms for i in range(n)]
    if protocol == "pbft":
        return _two_rounds(proposed, leader, delay_ms, q, costs)
    acked = [at + costs.persist_ms for at in proposed]
    committed = kth([acked[i] + delay_ms[i][leader] for i in range(n)], q) + costs.handle_ms
    if trust == "Crash":
        return [committed + delay_ms[leader][i] for i in range(n)]
    certified = committed + costs.persist_ms
    cert_acked = [
        certified if i == leader else committed + delay_ms[leader][i] + costs.vote_ms
        for i in range(n)
    ]
    final = kth([cert_acked[i] + delay_ms[i][leader] for i in range(n)], q) + costs.handle_ms
    return [final + delay_ms[leader][i] for i in range(n)]


def _two_rounds(
    proposed: list[float], leader: int, delay_ms: Matrix, q: int, costs: Costs
) -> list[float]:
    """Prepare and commit, each from everyone to everyone."""
    n = len(proposed)
    voted = [at + costs.persist_ms for at in proposed]
    prepared = []
    for i in range(n):
        # the primary's signature on the proposal is its vote
        votes = [proposed[i] if j == leader else voted[j] + delay_ms[j][i] for j in range(n)]
        prepared.append(max(kth(votes, q), proposed[i]) + costs.vote_ms)
    return [
        max(kth([prepared[j] + delay_ms[j][i] for j in range(n)], q), prepared[i]) + costs.handle_ms
        for i in range(n)
    ]


def predict(
    protocol: Protocol,
    leader: int,
    delay_ms: Matrix,
    *,
    trust: str = "Byzantine",
    costs: Costs | None = None,
    client_ms: Sequence[float] | None = None,
) -> Prediction:
    """What an operation costs under `leader`; `client_ms` are the client's delays to each replica.

    Raises ValueError where a delay is missing or negative, and for PBFT under Crash trust.
    """
    n = len(delay_ms)
    check_matrix(delay_ms, client_ms)
    if protocol == "pbft" and trust != "Byzantine":
        raise ValueError("PBFT is for Byzantine trust: use raft, or trust Byzantine")
    executed = executed_ms(protocol, leader, delay_ms, trust, costs or Costs())
    # one answer that f liars can not have made up; under Crash trust the leader's own
    enough = 1 if trust == "Crash" else faults(n) + 1
    answering = [leader] if trust == "Crash" else range(n)
    commit_ms = kth([executed[i] for i in answering], enough)
    answer_ms = None
    if client_ms is not None:
        back = kth([executed[i] + client_ms[i] for i in answering], enough)
        answer_ms = client_ms[leader] + (costs or Costs()).handle_ms + back
    return Prediction(protocol, leader, commit_ms, answer_ms)


def check_matrix(delay_ms: Matrix, client_ms: Sequence[float] | None) -> None:
    """Raise ValueError, saying what is wrong, unless every delay is there and not negative."""
    n = len(delay_ms)
    if any(len(row) != n for row in delay_ms):
        raise ValueError(f"the delays of {n} replicas need {n} rows of {n} numbers")
    if any(value < 0 for row in delay_ms for value in row) or any(v < 0 for v in client_ms or ()):
        raise ValueError("a delay is negative: give milliseconds, 0 or more")
    if client_ms is not None and len(client_ms) != n:
        raise ValueError(f"the client has {len(client_ms)} delays for {n} replicas")


def ranking(
    protocol: Protocol,
    delay_ms: Matrix,
    *,
    trust: str = "Byzantine",
    costs: Costs | None = None,
    client_ms: Sequence[float] | None = None,
) -> list[Prediction]:
    """Every possible leader, the quickest first (by answer where a client is given, or commit)."""
    found = [
        predict(protocol, leader, delay_ms, trust=trust, costs=costs, client_ms=client_ms)
        for leader in range(len(delay_ms))
    ]
    return sorted(
        found,
        key=lambda p: (p.commit_ms if p.answer_ms is None else p.answer_ms, p.leader),
    )
