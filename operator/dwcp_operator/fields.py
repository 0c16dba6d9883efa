"""What the models of custom resources are made of: their base and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from dwcp_operator import rules

EMPTY: Final[dict[str, JsonValue]] = {"default": {}}
"""The default of a field whose own fields all have defaults."""


def refuse(problem: str | None) -> None:
    """Refuse a value with a sentence that continues "spec.field=value ..."; None accepts it."""
    if problem is not None:
        raise PydanticCustomError("dwcp", "{problem}", {"problem": problem})


class Model(BaseModel):
    """A part of a resource: camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )


def _label(value: str) -> str:
    refuse(rules.label_problem(value))
    return value


def _quantity(value: str | int) -> str | int:
    refuse(rules.quantity_problem(str(value)))
    return value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        refuse("names something twice: name each once")
    return values


Label = Annotated[
    str,
    Field(min_length=1, max_length=63, json_schema_extra={"pattern": rules.LABEL_PATTERN}),
    AfterValidator(_label),
]
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": rules.QUANTITY_PATTERN,
            "minimum": 0,
        }
    ),
    AfterValidator(_quantity),
]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Unique = AfterValidator(_unique)
