"""Resources from the definition's own schema: what it allows, nearly allows, and does not."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from dwcp_operator import crds

Schema = dict[str, Any]
SPEC: Schema = crds.schema()["properties"]["spec"]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70), st.floats(allow_nan=False, width=16),
    st.text(alphabet="a1-Z. é\n", max_size=8), st.just([]), st.just({}),
)  # fmt: skip


GOOD: dict[str, list[Any]] = {
    "replicas": [4, 7, 10],
    "mode": ["Auto", "Internet"],
    "trust": ["Byzantine"],
    "requestTimeout": ["2s", "500ms"],
    "stepDeadline": ["60s", "3600s"],
    "settleTime": ["0s", "600s"],
    "replaceAfter": ["0s", "30s", "1800s"],
    "start": ["02:00", "23:59"],
    "size": ["1Gi", "500M"],
    "checkpointInterval": [10, 1000],
    "clients": [["app"], ["a", "b"]],
    "access": [[], [{"client": "nobody"}], [{"client": "default", "admin": True}]],
    "gateway": [{}, {"replicas": 1, "tls": {"secretName": "given"}}, {"anonymous": True}],
    "tls": [{}, {"secretName": "given"}],
    "bootstrap": [
        {
            "adopt": {
                "clusterId": "0" * 32,
                "volumes": [{"member": f"demo-{i}", "claim": f"old-{i}"} for i in range(4)],
            }
        },
        {"backup": {"claim": "backups", "file": "demo.dwcpbackup", "genesisHash": "0" * 64}},
    ],
}
"""Values that hold, of fields for which the schema alone seldom finds one."""


def values(schema: Schema, name: str = "") -> st.SearchStrategy[Any]:
    """Mostly what holds or what the schema allows; now and then anything."""
    good = st.sampled_from(GOOD[name]) if name in GOOD else allowed(schema)
    return st.one_of(*[good] * 10, allowed(schema), scalars)


def allowed(schema: Schema) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "x-kubernetes-int-or-string" in schema:
        return st.sampled_from([1, 9, -1, "1Gi", "500m", "1Gb", "0.5", "-1"])
    if "pattern" in schema:
        return st.from_regex(re.compile(schema["pattern"].replace("$", r"\Z")))
    match schema["type"]:
        case "integer":
            low, high = schema.get("minimum", 1), schema.get("maximum", 31)
            return st.one_of(st.sampled_from([4, 7, 10]), st.integers(low - 1, high + 1))
        case "string":
            return st.text(alphabet="abc-./:1", min_size=0, max_size=12)
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(values(schema["items"]), max_size=5)
        case "object":
            return objects(schema)
    raise AssertionError(f"no strategy for {schema}")


def objects(schema: Schema, fields_max: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """The fields that are required and a few of the others."""
    if "properties" not in schema:
        key = st.sampled_from(["cpu", "memory", "disk"])
        return st.dictionaries(key, values(schema["additionalProperties"]), max_size=2)
    required = set(schema.get("required", ()))
    fields = {name: values(child, name) for name, child in schema["properties"].items()}
    others = st.lists(
        st.sampled_from(sorted(fields.keys() - required) or sorted(fields)),
        max_size=fields_max, unique=True,
    )  # fmt: skip

    @st.composite
    def written(draw: st.DrawFn) -> dict[str, Any]:
        return {name: draw(fields[name]) for name in sorted(required | set(draw(others)))}

    return written()


specs = objects(SPEC)
names = st.one_of(
    *[st.sampled_from(["demo", "a", "x" * 52])] * 5,
    st.text(alphabet="ab-1A.", min_size=1, max_size=60),
)
