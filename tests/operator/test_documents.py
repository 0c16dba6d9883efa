"""What the resource says of documents, as members hold it."""

from __future__ import annotations

import pytest

from dwcp.wire.strategies import Ranked, StrategyRule
from dwcp_operator.manifest import ManifestError, load_manifest
from dwcp_operator.rules import forbidden_changes

MANIFEST = """
apiVersion: dwcp.dev/v1alpha1
kind: DWCPCluster
metadata: {name: demo}
spec: {documents: %s}
"""


def rules(documents: str) -> tuple[StrategyRule, ...]:
    found = load_manifest(MANIFEST % documents).spec.documents
    assert found is not None
    return found.settings().rules


def test_strategies_by_document_prefix_path_and_for_all() -> None:
    assert rules(
        """{strategies: [
          {strategy: MultiValue},
          {prefix: notes/, strategy: Manual},
          {document: plan, path: [title], strategy: Custom, resolver: longest},
          {document: plan, strategy: Custom, expression: 'values[0]'},
          {prefix: n, path: [a, b], strategy: Priority, priorities: [{client: ann, priority: 2}]}
        ]}"""
    ) == (
        StrategyRule("", "Prefix", (), "MultiValue"),
        StrategyRule("notes/", "Prefix", (), "Manual"),
        StrategyRule("plan", "Name", ("title",), "Custom", "longest"),
        StrategyRule("plan", "Name", (), "Custom", "", "values[0]"),
        StrategyRule("n", "Prefix", ("a", "b"), "Priority", "", "", (Ranked("ann", 2),)),
    )


def test_absent_means_that_the_resource_says_nothing_and_empty_that_there_are_none() -> None:
    assert load_manifest(MANIFEST % "null").spec.documents is None
    assert rules("{}") == ()


def test_edits_are_kept_for_ever_unless_days_are_named() -> None:
    for text, seconds in (("{}", 0), ("{keepEditsDays: 30}", 30 * 86_400)):
        found = load_manifest(MANIFEST % text).spec.documents
        assert found is not None
        assert found.settings().retention_s == seconds


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("{strategy: Vote}", "strategy"),
        ("{strategy: Custom}", "either a resolver"),
        ("{strategy: Custom, resolver: a, expression: b}", "either a resolver"),
        ("{strategy: Manual, resolver: a}", "use Custom"),
        ("{strategy: Priority}", "needs priorities"),
        ("{document: a, prefix: b, strategy: Manual}", "one document or a prefix"),
        ("{strategy: Manual}, {strategy: MultiValue}", "same documents"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(strategy: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        rules(f"{{strategies: [{strategy}]}}")


def test_strategies_may_change_and_other_manifests_stay_as_they_were() -> None:
    old = load_manifest(MANIFEST % "null").spec.manifest()
    new = load_manifest(MANIFEST % "{strategies: [{strategy: Manual}]}").spec.manifest()
    assert "documents" not in old
    assert forbidden_changes(old, new) == ()
