from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

from dwcp_replica.core.effects import Ready
from dwcp_replica.node.phases import PhaseClock
from replica.core.conversation import Conversation


class Spy(PhaseClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.now_s = 0.0
        seconds = Histogram("phase_seconds", "", ("phase",), registry=self.registry)
        super().__init__(seconds, lambda: self.now_s)

    def sum_s(self, phase: str) -> float:
        return self.registry.get_sample_value("phase_seconds_sum", {"phase": phase}) or 0.0

    def count(self, phase: str) -> float:
        return self.registry.get_sample_value("phase_seconds_count", {"phase": phase}) or 0.0


def spied(talk: Conversation, member: int, spy: Spy) -> None:
    step = talk.replicas[member].step

    def noted(event: object) -> Ready:
        ready = step(event)  # type: ignore[arg-type]
        spy.note(ready)
        return ready

    talk.replicas[member].step = noted  # type: ignore[method-assign, assignment]


def test_each_phase_is_timed_once_an_entry() -> None:
    talk, spy = Conversation(), Spy()
    spied(talk, 1, spy)
    talk.submit(0, "a", "1")
    for _ in range(4):
        talk.deliver_once()
        spy.now_s += 1.0
    assert talk.values(1) == [b"1"]
    assert (spy.count("prepare"), spy.sum_s("prepare")) == (1, 1.0)
    assert (spy.count("commit"), spy.sum_s("commit")) == (1, 1.0)


def test_what_catch_up_brought_has_no_phases() -> None:
    talk, spy = Conversation(), Spy()
    spied(talk, 3, spy)
    talk.isolate(3)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.cut.clear()
    talk.wait(700)
    assert talk.values(3) == [b"1"]
    assert spy.count("prepare") == spy.count("commit") == 0
