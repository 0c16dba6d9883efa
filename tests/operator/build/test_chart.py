"""The chart's copy of the definition is the generated one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import yaml

from dwcp_operator import chart as cluster_chart
from dwcp_operator.build.storage import AccessMode
from dwcp_operator.crds import backup_definition, render
from dwcp_operator.resources import ClusterSpec

CHARTS = Path(__file__).resolve().parents[3] / "charts"


def test_the_charts_definition_is_up_to_date() -> None:
    files = CHARTS / "dwcp-crds" / "files"
    for name, text in (("dwcpclusters", render()), ("dwcpbackups", render(backup_definition()))):
        assert (files / f"{name}.yaml").read_text() == text, "stale: run  make generate"


def test_the_charts_values_meet_their_schema_keys() -> None:
    for chart in ("dwcp-crds", "dwcp-cluster", "dwcp-operator"):
        values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
        schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
        assert values.keys() <= schema["properties"].keys()
    assert set(schema["properties"]["volumeAccessMode"]["enum"]) == set(get_args(AccessMode))


def test_the_clusters_values_are_the_fields_of_spec() -> None:
    path = CHARTS / "dwcp-cluster" / "values.schema.json"
    assert path.read_text() == cluster_chart.render(), (
        f"stale: run  python -m dwcp_operator.chart > {path.relative_to(CHARTS.parent)}"
    )
    properties = cluster_chart.values_schema()["properties"]
    fields = {field.alias or name for name, field in ClusterSpec.model_fields.items()}
    assert properties.keys() == fields | {"name", "annotations", "labels", "global"}
    assert properties["replicas"]["enum"][:3] == [4, 7, 10]
    assert "x-kubernetes" not in path.read_text()


def test_every_chart_has_the_same_version() -> None:
    charts = [yaml.safe_load(path.read_text()) for path in sorted(CHARTS.glob("*/Chart.yaml"))]
    assert len(charts) == 3
    assert len({(c["version"], c["appVersion"], c["kubeVersion"]) for c in charts}) == 1
