"""The chart's copy of the definition is the generated one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import yaml

from dwcp_operator.build.storage import AccessMode
from dwcp_operator.crds import render

CHARTS = Path(__file__).resolve().parents[3] / "charts"


def test_the_charts_definition_is_up_to_date() -> None:
    copy = CHARTS / "dwcp-crds" / "files" / "dwcpclusters.yaml"
    assert copy.read_text() == render(), (
        "stale: run  python -m dwcp_operator.crds > charts/dwcp-crds/files/dwcpclusters.yaml"
    )


def test_the_charts_values_meet_their_schema_keys() -> None:
    for chart in ("dwcp-crds", "dwcp-operator"):
        values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
        schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
        assert values.keys() <= schema["properties"].keys()
    assert set(schema["properties"]["volumeAccessMode"]["enum"]) == set(get_args(AccessMode))
