"""The values schema of the chart dwcp-cluster, generated: `python -m dwcp_operator.chart`.

Its values are the fields of spec, so that helm refuses what the API server would refuse.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dwcp_operator import crds, rules

Schema = dict[str, Any]

_OWN: Schema = {
    "name": {"type": "string", "maxLength": rules.NAME_LENGTH_MAX},
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "global": {"type": "object"},
}


def values_schema() -> Schema:
    """JSON schema (draft 7) of the values."""
    spec = _closed(crds.schema()["properties"]["spec"])
    counts = range(1, rules.REPLICAS_MAX + 1)
    spec["properties"]["replicas"]["enum"] = [
        n for n in counts if rules.replicas_problem(n) is None
    ]
    spec["properties"]["trust"]["enum"] = list(rules.TRUSTS_SUPPORTED)
    return {
        "$schema": "https://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {**_OWN, **spec["properties"]},
    }


def render() -> str:
    """The schema as it stands in the chart."""
    return json.dumps(values_schema(), indent=2) + "\n"


def _closed(node: Schema) -> Schema:
    """A node without Kubernetes' own words, in which unknown fields are refused."""
    out = {k: v for k, v in node.items() if not k.startswith("x-kubernetes") and k != "default"}
    if "properties" in node:
        out["properties"] = {name: _closed(child) for name, child in node["properties"].items()}
        out["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _closed(node["additionalProperties"])
    if "items" in node:
        out["items"] = _closed(node["items"])
    return out


if __name__ == "__main__":
    sys.stdout.write(render())
