"""The checkers are proved: each bug planted in the engine must be caught within its seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dwcp.wire.peer import VoteSig
from dwcp_replica.core import elections
from dwcp_replica.core.certificates import Membership, VoteBook
from dwcp_replica.core.chain import Branch
from dwcp_replica.core.recover import Statement
from dwcp_replica.sim.checks import Violation
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.run import simulate

Plant = Callable[[pytest.MonkeyPatch], None]


def quorum_2f(patch: pytest.MonkeyPatch) -> None:
    """Two quorums then share only f members, all of which may lie."""
    patch.setattr(Membership, "quorum", property(lambda self: 2 * ((self.n - 1) // 3)))


def votes_without_digest(patch: pytest.MonkeyPatch) -> None:
    """Votes at one place add up whatever they are for."""

    def matching(self: VoteBook, index: int, _said: tuple[bytes, bytes]) -> list[VoteSig]:
        return [VoteSig(m, v.sig) for m, v in sorted(self.votes.get(index, {}).items())]

    patch.setattr(VoteBook, "matching", matching)


def skipped_fsync(patch: pytest.MonkeyPatch) -> None:
    """A crash loses records on which messages had been sent."""
    crash = Host.crash

    def forgetful(self: Host) -> None:
        lost = self.world.random.randint(0, 30)
        del self.records[len(self.records) - lost :]
        crash(self)

    patch.setattr(Host, "crash", forgetful)


def new_view_from_the_shortest_log(patch: pytest.MonkeyPatch) -> None:
    """The new view drops what had been prepared."""

    def shortest(statements: list[Statement]) -> Branch:
        return min((s.log for s in statements), key=lambda b: (b.tip.index, b.tip.hash))

    patch.setattr(elections, "recover", shortest)


@pytest.mark.parametrize(
    ("plant", "seeds"),
    [
        (quorum_2f, 100),
        pytest.param(votes_without_digest, 100, marks=pytest.mark.slow),
        pytest.param(skipped_fsync, 400, marks=pytest.mark.slow),
        (new_view_from_the_shortest_log, 100),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_bug_is_caught(plant: Plant, seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(1, seeds + 1):
        try:
            simulate(seed)
        except (Violation, AssertionError) as caught:
            print(f"{plant.__name__}: caught at seed {seed}: {type(caught).__name__}: {caught}")
            return
    pytest.fail(f"{plant.__name__} was not caught in {seeds} seeds: the checkers are blind to it")
