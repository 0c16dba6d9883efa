from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dwcp_operator import crds, reference, rules
from dwcp_operator.resources import CONDITION_TYPES, ClusterSpec

ROOT = Path(__file__).parents[2]


def spec_schema() -> dict[str, Any]:
    schema: dict[str, Any] = crds.schema()["properties"]["spec"]
    return schema


def test_the_definition_is_not_stale() -> None:
    path = ROOT / "crds" / "dwcpclusters.yaml"
    assert path.read_text() == crds.render(), (
        "repeat: python -m dwcp_operator.crds > crds/dwcpclusters.yaml"
    )


def test_the_reference_page_is_not_stale() -> None:
    path = ROOT / "docs" / "reference" / "dwcpcluster.md"
    assert path.read_text() == reference.render(), (
        "repeat: python -m dwcp_operator.reference > docs/reference/dwcpcluster.md"
    )


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


def test_the_schema_is_structural() -> None:
    """Each node has a type, no reference or null remains, and users find a description."""
    for path, node in nodes(crds.schema()):
        assert "type" in node or "x-kubernetes-int-or-string" in node, path
        assert not {"$ref", "$defs", "title", "const"} & set(node), path
        if path.startswith((".spec.", ".status.")) and not path.endswith("[]"):
            assert node.get("description"), f"{path} has no description"


def test_defaults_are_those_of_the_models() -> None:
    properties = spec_schema()["properties"]
    assert {k: v["default"] for k, v in properties.items() if "default" in v} == {
        **ClusterSpec().manifest(),
        **{
            key: {}
            for key in ("modes", "features", "storage", "placement", "upgrade", "monitoring")
        },
    }
    storage = properties["storage"]["properties"]
    assert {k: v["default"] for k, v in storage.items() if "default" in v} == {
        "size": "1Gi",
        "reclaim": "Retain",
    }


def test_subresources_and_columns() -> None:
    (version,) = crds.definition()["spec"]["versions"]
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert version["subresources"]["status"] == {}
    names = [c["name"] for c in version["additionalPrinterColumns"]]
    assert names == ["Ready", "Mode", "Epoch", "View", "Primary", "Age"]
    conditions = crds.schema()["properties"]["status"]["properties"]["conditions"]
    assert tuple(conditions["items"]["properties"]["type"]["enum"]) == CONDITION_TYPES
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_each_refused_count_has_its_literal_sentence() -> None:
    rule = spec_schema()["x-kubernetes-validations"][0]
    assert (
        "self.replicas == 5 ? 'spec.replicas=5 is not 3f+1: use 4 or 7'"
        in (rule["messageExpression"])
    )
    assert "string(" not in rule["messageExpression"], "string() costs more than is allowed"
    assert (
        f"self.replicas > {rules.REPLICAS_MAX} ? 'spec.replicas is more than the"
        in (rule["messageExpression"])
    )
    assert {"minimum", "maximum"}.isdisjoint(spec_schema()["properties"]["replicas"])
    for n in range(1, rules.REPLICAS_MAX + 1):
        refused = f"'spec.replicas={n} " in rule["messageExpression"]
        assert refused == (rules.replicas_problem(n) is not None)


def test_fixed_fields_are_compared_on_their_parent_with_has() -> None:
    texts = [r["rule"] for r in spec_schema()["x-kubernetes-validations"]]
    for fixed in rules.FIXED:
        path = ".".join(fixed.path)
        assert any(f"has(self.{path}) == has(oldSelf.{path})" in text for text in texts)
    for path, node in nodes(crds.schema()):
        if path not in ("", ".spec"):
            for rule in node.get("x-kubernetes-validations", []):
                assert "oldSelf" not in rule["rule"], f"bypassed by removing {path}"


def test_a_growth_that_was_refused_can_be_taken_back() -> None:
    """Else a class that does not expand would leave the resource degraded for ever."""
    rules_of_root = crds.schema()["x-kubernetes-validations"]
    (growth,) = [r for r in rules_of_root if "oldSelf" in r["rule"]]
    assert "oldSelf.status.storageSize" in growth["rule"]
    assert growth["message"] == rules.SHRINKS


def test_the_file_is_yaml_for_kubectl() -> None:
    loaded = yaml.safe_load(crds.render())
    assert loaded == crds.definition()
    assert loaded["metadata"]["name"] == "dwcpclusters.dwcp.dev"
