"""What the resource says of documents: strategies that show conflicts; members hold rules."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from dwcp.wire.strategies import (
    EXPRESSION_MAX,
    DocumentSettings,
    Ranked,
    StrategyName,
    StrategyRule,
    rule_problem,
)
from dwcp_operator.fields import Label, Model, refuse

STRATEGIES_MAX: Final = 64
DAY_S: Final = 86_400

_COHERENT: Final[list[JsonValue]] = [
    {
        "rule": "self.strategy != 'Custom' || has(self.resolver) != has(self.expression)",
        "message": "Custom needs either a resolver (an entry point's name) or a CEL expression",
    },
    {
        "rule": "self.strategy == 'Custom' || (!has(self.resolver) && !has(self.expression))",
        "message": "only Custom takes a resolver or an expression",
    },
    {
        "rule": "(self.strategy == 'Priority') == has(self.priorities)",
        "message": "Priority needs priorities, and nothing else takes them",
    },
    {
        "rule": "!has(self.document) || !has(self.prefix)",
        "message": "name either one document or a prefix of names",
    },
]


class AuthorPriority(Model):
    """How high one client's values rank."""

    client: Label
    """Name of the client, as in spec.clients."""
    priority: Annotated[int, Field(ge=-1000, le=1000)]
    """The highest wins; a client that is not listed has 0; among equals the last write wins."""


class ConflictStrategy(Model):
    """Which strategy shows the conflicts of some documents. The longest match wins."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _COHERENT})

    document: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Name of one document; with neither document nor prefix the strategy is for all of them."""
    prefix: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """For the documents whose names begin so."""
    path: Annotated[tuple[str, ...], Field(strict=False, max_length=32)] = ()
    """Only below these keys of the document."""
    strategy: StrategyName
    """What is shown for concurrent values: the last write, all of them, objects merged key by key,
    the value of the author ranked highest, the last write until people have settled it, or what a
    resolver of your own makes of them."""
    resolver: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """For Custom: an entry point of the group dwcp.resolvers that is installed in the image."""
    expression: Annotated[str, Field(min_length=1, max_length=EXPRESSION_MAX)] | None = None
    """For Custom: a CEL expression over `values`, bounded by steps."""
    priorities: (
        Annotated[tuple[AuthorPriority, ...], Field(strict=False, min_length=1, max_length=64)]
        | None
    ) = None
    """For Priority."""

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.document is not None and self.prefix is not None:
            refuse("name either one document or a prefix of names")
        refuse(rule_problem(self.rule()))
        return self

    def rule(self) -> StrategyRule:
        """As members hold it."""
        return StrategyRule(
            document=self.document or self.prefix or "",
            match="Prefix" if self.document is None else "Name",
            path=self.path,
            strategy=self.strategy,
            resolver=self.resolver or "",
            expression=self.expression or "",
            priorities=tuple(Ranked(p.client, p.priority) for p in self.priorities or ()),
        )


class Documents(Model):
    """How documents are handled; it may change at any time."""

    strategies: Annotated[
        tuple[ConflictStrategy, ...], Field(strict=False, max_length=STRATEGIES_MAX)
    ] = ()
    """Which strategies show conflicts; where none matches, the last write is shown. They are set
    through the log, in place of all that were set before."""

    keep_edits_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """After so many days members agree to forget edits, and keep what they made of the document;
    who edited offline for longer has edits made again on the present version. Absent: never."""

    @model_validator(mode="after")
    def _says_each_place_once(self) -> Self:
        places = [(s.document, s.prefix, s.path) for s in self.strategies]
        if len(set(places)) < len(places):
            refuse("has two strategies for the same documents and path: keep one")
        return self

    def settings(self) -> DocumentSettings:
        """As members hold them."""
        days = self.keep_edits_days
        rules = tuple(strategy.rule() for strategy in self.strategies)
        return DocumentSettings(rules, 0 if days is None else days * DAY_S)
