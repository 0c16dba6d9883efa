"""Strategies for documents' conflicts as replicated state: who may set them, and which."""

from __future__ import annotations

import pytest

from dwcp.wire.operations import Access, AccessSetRequest, Failure
from dwcp.wire.strategies import (
    RULES_BYTES_MAX,
    DocumentSettings,
    Ranked,
    StrategiesGetRequest,
    StrategiesResponse,
    StrategiesSetRequest,
    StrategyRule,
)
from dwcp_replica.store import KeyStore
from dwcp_replica.store.records import MemoryRecords

ADMIN, USER = bytes([1]) * 32, bytes([2]) * 32
MANUAL = StrategyRule("notes", "Name", ("title",), "Manual")
ALL = StrategyRule("", "Prefix", (), "MultiValue")


def setting(*rules: StrategyRule) -> StrategiesSetRequest:
    return StrategiesSetRequest(DocumentSettings(rules))


def test_rules_hold_until_others_are_set_and_take_no_revision() -> None:
    records = MemoryRecords()
    store = KeyStore(records)
    before, revision = records.digest(), store.revision
    for rules in ((), (MANUAL, ALL), (ALL,)):
        answer, _ = store.execute(setting(*rules), 1000, ADMIN)
        assert answer == StrategiesResponse(DocumentSettings(rules))
        assert store.execute(StrategiesGetRequest(), 1000, USER)[0] == StrategiesResponse(
            DocumentSettings(rules)
        )
    assert KeyStore(records).strategies.settings.rules == (ALL,)
    store.execute(setting(), 1000, ADMIN)
    assert store.revision == revision
    assert records.digest() == before


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((StrategyRule("a", "Name", (), "Custom"),), "either a resolver"),
        ((StrategyRule("a", "Name", (), "Custom", "one", "values[0]"),), "either a resolver"),
        ((StrategyRule("a", "Name", (), "Manual", "one"),), "use Custom"),
        ((StrategyRule("a", "Name", (), "Priority"),), "needs priorities"),
        ((StrategyRule("a", "Name", (), "Manual", "", "", (Ranked("ann", 1),)),), "use Priority"),
        ((StrategyRule("", "Name", (), "Manual"),), "without a document"),
        ((MANUAL, MANUAL), "the same documents"),
        (
            tuple(
                StrategyRule(f"{n}", "Name", (), "Custom", "", "x" * 4096)
                for n in range(RULES_BYTES_MAX // 4096)
            ),
            "bytes of rules",
        ),
    ],
)
def test_rules_without_sense_change_nothing(rules: tuple[StrategyRule, ...], message: str) -> None:
    store = KeyStore(MemoryRecords())
    store.execute(setting(ALL), 1000, ADMIN)
    answer, _ = store.execute(setting(ALL, *rules), 1000, ADMIN)
    assert isinstance(answer, Failure)
    assert message in answer.message
    assert store.strategies.settings.rules == (ALL,)


def test_only_administrators_set_rules_and_all_may_ask() -> None:
    store = KeyStore(MemoryRecords())
    store.execute(AccessSetRequest(USER, Access()), 1000, ADMIN)
    answer, _ = store.execute(setting(ALL), 1000, USER)
    assert isinstance(answer, Failure)
    assert answer.code == 7
    assert store.execute(StrategiesGetRequest(), 1000, USER)[0] == StrategiesResponse()
