"""Features on a share of the members: who has what, and that nothing else changes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dwcp_operator.features import Features
from dwcp_operator.manifest import load_manifest
from dwcp_operator.rules import forbidden_changes
from dwcp_replica.node.config import USUAL, Feature

MANIFEST = """
apiVersion: dwcp.dev/v1alpha1
kind: DWCPCluster
metadata: {name: demo}
spec: {features: %s}
"""


@pytest.mark.parametrize(
    ("percent", "n", "on"),
    [
        (0, 4, 0),
        (1, 4, 1),
        (10, 4, 1),
        (25, 4, 1),
        (26, 4, 2),
        (50, 4, 2),
        (50, 7, 4),
        (100, 13, 13),
    ],
)
def test_a_share_of_the_members_has_a_feature_the_first_ones_first(
    percent: int, n: int, on: int
) -> None:
    features = Features(reporting=percent)
    assert ["report" in features.words(place, n) for place in range(n)] == [
        place < on for place in range(n)
    ]
    assert all("measure" in features.words(place, n) for place in range(n))
    assert ("report" in features.words(n, n)) is (percent > 100), "who joins comes last"


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (Features(), []),
        (Features(switching=0), ["--features", "measure,report,place"]),
        (Features(measuring=0, reporting=0, switching=0, placing=0), ["--features", "none"]),
        (
            Features(first_protocol=True),
            ["--features", "measure,report,switch,place,first-protocol"],
        ),
    ],
)
def test_the_replica_understands_what_it_is_told(features: Features, said: list[str]) -> None:
    arguments = features.arguments(0, 4)
    assert arguments == said
    expected = USUAL if not said else {Feature(word) for word in features.words(0, 4)}
    assert Feature.parse(arguments[1]) == expected if arguments else expected == USUAL


def test_words_that_are_no_features_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="'fly' is no feature: use some of measure, report"):
        Feature.parse("measure,fly")
    with pytest.raises(ValidationError):
        Features(reporting=101)


def test_features_can_be_changed_at_any_time_and_name_another_template() -> None:
    plain, shadow = (load_manifest(MANIFEST % f) for f in ("{}", "{switching: 25}"))
    assert forbidden_changes(plain.spec.manifest(), shadow.spec.manifest()) == ()
    assert plain.template.revision != shadow.template.revision
