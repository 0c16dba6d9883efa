"""Conflicts as views: strategies, history, the queue, and a check of users' resolvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.crdt.people import document, signers
from dwcp.crdt import (
    Conflict,
    Custom,
    Document,
    LastWriteWins,
    Manual,
    MultiValue,
    Priority,
    Resolutions,
    Strategies,
    ThreeWayMerge,
    check_resolver,
    conflict_at,
    conflicts,
    settle,
)
from dwcp.crdt.history import HISTORY_MAX, QUEUE_MAX, answer_of
from dwcp.crdt.merge3 import merge3
from dwcp.crdt.values import canonical

PATH = ("settings", "limits")


def write(replica: Document, author: int, value: Any, path: tuple[str, ...] = PATH) -> None:
    with replica.edit(signers(8)[author], epoch=0) as transaction:
        transaction.set(path, value)


def concurrent(*values: Any, base: Any = None) -> list[Document]:
    """Replicas that all hold the same values, each written without seeing the others."""
    first = document()
    if base is not None:
        write(first, 7, base)
    replicas = [document() for _ in values]
    for number, (replica, value) in enumerate(zip(replicas, values, strict=True)):
        for operation in first.operations():
            replica.receive(operation)
        write(replica, number, value)
    for source in replicas:
        for operation in list(source.operations()):
            for target in replicas:
                target.receive(operation)
    return replicas


def the_conflict(replica: Document) -> Conflict:
    (found,) = conflicts(replica)
    assert conflict_at(replica, found.path) == found
    return found


class TestStrategies:
    def test_concurrent_means_neither_saw_the_other(self) -> None:
        a, b = document(), document()
        write(a, 0, 1)
        for operation in a.operations():
            b.receive(operation)
        write(b, 1, 2)
        assert list(conflicts(b)) == []
        assert conflict_at(b, PATH) is None

    def test_every_replica_sees_the_same_conflict(self) -> None:
        one, *others = (the_conflict(replica) for replica in concurrent(1, 2, 3))
        assert all(other == one for other in others)
        assert sorted(candidate.value for candidate in one.candidates) == [1, 2, 3]

    def test_last_write_wins_is_what_the_register_shows(self) -> None:
        replica = concurrent("a", "b", "c")[0]
        assert LastWriteWins().resolve(the_conflict(replica)) == replica.get(PATH, "lww")

    def test_multi_value_shows_all(self) -> None:
        conflict = the_conflict(concurrent("a", "b")[0])
        assert sorted(MultiValue().resolve(conflict)) == ["a", "b"]

    def test_priority_goes_by_author(self) -> None:
        conflict = the_conflict(concurrent("low", "high", "mid")[0])
        ranks = {signers(8)[1].public_key: 2, signers(8)[2].public_key: 1}
        assert Priority(ranks).resolve(conflict) == "high"
        assert Priority({}).resolve(conflict) == LastWriteWins().resolve(conflict)

    def test_three_way_merge_takes_both_changes(self) -> None:
        base = {"cpu": 1, "mem": 1, "disk": {"size": 1, "kind": "ssd"}, "old": True}
        left = {"cpu": 2, "mem": 1, "disk": {"size": 1, "kind": "hdd"}, "old": True}
        right = {"cpu": 1, "mem": 1, "disk": {"size": 9, "kind": "ssd"}, "new": 1}
        conflict = the_conflict(concurrent(left, right, base=base)[0])
        assert conflict.base == base
        assert ThreeWayMerge().resolve(conflict) == {
            "cpu": 2,
            "mem": 1,
            "disk": {"size": 9, "kind": "hdd"},
            "new": 1,
        }

    def test_the_base_is_the_newest_value_that_all_replaced(self) -> None:
        a = document()
        for value in ("first", "second"):
            write(a, 0, value)
        b = document()
        for operation in a.operations():
            b.receive(operation)
        write(a, 0, "more")
        write(a, 0, "left")
        write(b, 1, "right")
        for operation in list(b.operations()):
            a.receive(operation)
        assert the_conflict(a).base == "second"

    def test_a_custom_function_sees_copies_and_gives_json(self) -> None:
        def biggest(values: Sequence[Any]) -> Any:
            values[0].append("scribble")
            return max(values, key=len)

        replica = concurrent([1], [1, 2, 3])[0]
        conflict = the_conflict(replica)
        assert len(Custom("biggest", biggest).resolve(conflict)) >= 2
        assert the_conflict(replica) == conflict

    def test_the_longest_prefix_decides_and_a_document_goes_first(self) -> None:
        cluster, prefix, own, deep = (Custom(name, min) for name in ("c", "p", "o", "d"))
        chosen = Strategies(
            cluster, {("", PATH[:1]): prefix, ("notes", ()): own, ("notes", PATH): deep}
        )
        assert chosen.of("other", ("x",)) is cluster
        assert chosen.of("other", PATH) is prefix
        assert chosen.of("notes", ("x",)) is own
        assert chosen.of("notes", PATH) is deep

    def test_a_write_over_all_values_settles_it(self) -> None:
        a, b = concurrent("x", "y")
        with a.edit(signers(8)[3], epoch=0) as transaction:
            settle(transaction, the_conflict(a), "decided")
        for operation in a.operations():
            b.receive(operation)
        for replica in (a, b):
            assert list(conflicts(replica)) == []
            assert replica.get(PATH, "lww") == "decided"

    def test_views_change_no_digest(self) -> None:
        a, b = concurrent({"x": 1}, {"y": 2})
        one = Resolutions(Strategies(ThreeWayMerge()))
        other = Resolutions(Strategies(Manual()))
        before = a.dump()
        assert one.resolve(the_conflict(a), 0) == {"x": 1, "y": 2}
        other.resolve(the_conflict(b), 0)
        assert a.dump() == before
        assert a.heads == b.heads
        assert a.view() == b.view()


class TestHistory:
    def test_outcomes_latency_and_effectiveness(self) -> None:
        def failing(values: Sequence[Any]) -> Any:
            return values[99]

        conflict = the_conflict(concurrent(1, 2)[0])
        for strategy, outcome in (
            (MultiValue(), "resolved"),
            (Manual(), "waiting"),
            (Custom("mine", failing), "failed"),
            (Custom("not-json", lambda values: {1, 2}), "failed"),
        ):
            kept = Resolutions(Strategies(strategy))
            shown = kept.resolve(conflict, now_ms=100)
            if outcome != "resolved":
                assert shown == LastWriteWins().resolve(conflict)
            (resolution,) = kept.history
            assert (resolution.strategy, resolution.outcome) == (strategy.name, outcome)
            assert (resolution.values, resolution.latency_ms) == (2, 0)
            assert kept.effects[strategy.name].effectiveness == (outcome == "resolved")
            assert kept.conflict_count == 1

    def test_latency_counts_from_first_sight(self) -> None:
        two, three = the_conflict(concurrent(1, 2)[0]), the_conflict(concurrent(1, 2, 3)[0])
        kept = Resolutions(Strategies(Manual()))
        kept.resolve(two, now_ms=1_000)
        kept.strategies = Strategies(MultiValue())
        kept.resolve(three, now_ms=3_500)
        assert kept.history[-1].latency_ms == 2_500
        assert kept.effects["MultiValue"].latency_ms_mean == 2_500

    def test_looking_twice_counts_once(self) -> None:
        conflict = the_conflict(concurrent(1, 2)[0])
        kept = Resolutions()
        for now_ms in range(10):
            kept.resolve(conflict, now_ms)
        assert kept.conflict_count == 1
        assert len(kept.history) == 1

    def test_people_find_what_waits_and_settle_it(self) -> None:
        replica = concurrent("x", "y")[0]
        kept = Resolutions(Strategies(Manual()))
        kept.resolve(the_conflict(replica), 0)
        (waiting,) = kept.waiting()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            settle(transaction, waiting, "y")
        kept.settled(replica.name, waiting.path)
        assert kept.waiting() == []

    def test_history_and_queue_are_bounded(self) -> None:
        conflict = the_conflict(concurrent(1, 2)[0])
        kept = Resolutions(Strategies(Manual()))
        for number in range(HISTORY_MAX + QUEUE_MAX):
            changed = Conflict(f"{number}", PATH, conflict.candidates)
            kept.resolve(changed, number)
        assert len(kept.history) == HISTORY_MAX
        assert len(kept.queue) == QUEUE_MAX
        assert kept.queue_dropped == HISTORY_MAX
        assert kept.conflict_count == HISTORY_MAX + QUEUE_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


class TestMerge3:
    @given(JSON, JSON, JSON)
    @settings(deadline=None, derandomize=True, max_examples=100)
    def test_sides_do_not_matter_and_one_change_is_taken(
        self, base: Any, left: Any, right: Any
    ) -> None:
        assert canonical(merge3(base, left, right)) == canonical(merge3(base, right, left))
        assert canonical(merge3(base, left, base)) == canonical(left)
        assert canonical(merge3(base, left, left)) == canonical(left)

    @pytest.mark.parametrize(
        ("base", "left", "right", "merged"),
        [
            ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1, "b": 2, "c": 3}),
            ({"a": 1}, {}, {"a": 1, "c": 3}, {"c": 3}),
            ({"a": 1}, {}, {"a": 2}, {"a": 2}),
            ({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 1, "y": 1}}, {"a": {"x": 2, "y": 1}}),
            (None, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}),
            ({"a": 1}, {"a": 1.0}, {"a": 1}, {"a": 1.0}),
            ([1], [1, 2], [1], [1, 2]),
        ],
    )
    def test_cases(self, base: Any, left: Any, right: Any, merged: Any) -> None:
        assert canonical(merge3(base, left, right)) == canonical(merged)


class TestCheckResolver:
    SAMPLES = (0, 1, 2, 5, -3)

    def laws(self, resolver: Any, samples: Sequence[Any] = SAMPLES) -> set[str]:
        return {violation.law for violation in check_resolver(resolver, samples)}

    def test_maximum_is_fit(self) -> None:
        assert check_resolver(max, self.SAMPLES) == []

    def test_set_union_is_fit(self) -> None:
        union = lambda values: sorted({item for value in values for item in value})  # noqa: E731
        assert check_resolver(union, [[], [1], [1, 2], [3]]) == []

    def test_the_first_value_depends_on_order(self) -> None:
        assert self.laws(lambda values: values[0]) == {"commutative"}

    def test_a_sum_counts_twice(self) -> None:
        assert self.laws(sum) == {"idempotent"}

    def test_a_mean_depends_on_grouping(self) -> None:
        assert self.laws(lambda values: sum(values) / len(values), [0.0, 1.0, 4.0]) == {
            "associative"
        }

    def test_a_resolver_that_fails_or_gives_no_json_is_not_total(self) -> None:
        assert "total" in self.laws(lambda values: values[1])
        assert self.laws(set) == {"total"}

    def test_a_violation_shows_values_and_results(self) -> None:
        (violation,) = check_resolver(lambda values: values[0], [1, 2])
        assert violation.results[0] == violation.values[0]
        assert violation.results[0] != violation.results[1]

    def test_last_write_wins_by_value_is_fit_for_the_document(self) -> None:
        fit = Custom("maximum", max)
        views = {Resolutions(Strategies(fit)).resolve(the_conflict(r), 0) for r in concurrent(3, 9)}
        assert views == {9}


def test_a_users_function_is_asked_once_for_the_same_values() -> None:
    """It may take long: members ask it on a thread, before they show the document."""
    asked: list[int] = []

    def largest(values: Sequence[Any]) -> Any:
        asked.append(len(values))
        return max(values)

    one, *_ = concurrent(3, 9)
    kept = Resolutions(Strategies(Custom("largest", largest)))
    ((strategy, conflict),) = kept.due(one)
    kept.know(strategy, conflict, answer_of(strategy, conflict))
    assert not kept.due(one)
    assert [kept.resolve(conflict, now) for now in (0, 1)] == [9, 9]
    assert asked == [2]
    kept.follow(Strategies(Custom("largest", largest)))
    kept.know(strategy, conflict, answer_of(strategy, conflict))
    assert len(kept.due(one)) == 1, "an answer of a strategy that was replaced does not count"
