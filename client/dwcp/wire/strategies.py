"""Which strategy shows which conflicts of documents: agreed through the log, outside every digest.

What is agreed is the choice; what a strategy makes of concurrent values is a view that every member
and client computes for itself (dwcp.crdt.conflicts).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from dwcp.wire.documents import Key

RULES_MAX: Final = 256
AUTHORS_MAX: Final = 64
EXPRESSION_MAX: Final = 4096
RULES_BYTES_MAX: Final = 32_768
"""Of all rules, encoded: an answer to an envelope of questions about them stays bounded."""

StrategyName = Literal[
    "LastWriteWins", "MultiValue", "ThreeWayMerge", "Priority", "Manual", "Custom"
]


class Ranked(Struct, frozen=True, array_like=True):
    """An author by its client's name in the epoch record, and how high its values rank."""

    client: Annotated[str, Meta(min_length=1, max_length=63)]
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31)]


class StrategyRule(Struct, frozen=True, array_like=True):
    """One choice: for the documents of this name (Prefix: whose names begin so), below `path`.

    Custom names an entry point (`resolver`) or holds a CEL expression; Priority ranks authors.
    """

    document: Annotated[str, Meta(max_length=256)]
    match: Literal["Name", "Prefix"]
    path: Annotated[tuple[Key, ...], Meta(max_length=32)]
    strategy: StrategyName
    resolver: Annotated[str, Meta(max_length=128)] = ""
    expression: Annotated[str, Meta(max_length=EXPRESSION_MAX)] = ""
    priorities: Annotated[tuple[Ranked, ...], Meta(max_length=AUTHORS_MAX)] = ()


Rules = Annotated[tuple[StrategyRule, ...], Meta(max_length=RULES_MAX)]


class DocumentSettings(Struct, frozen=True, array_like=True):
    """What holds for documents: the rules, and after how many seconds edits may be forgotten.

    `retention_s` 0: never. What is forgotten are edits, not what they made of the document.
    """

    rules: Rules = ()
    retention_s: Annotated[int, Meta(ge=0, le=10 * 365 * 86_400)] = 0


class StrategiesSetRequest(Struct, frozen=True, array_like=True, tag="strategies_set"):
    """From here on in the log these settings hold, and no others. For administrators."""

    settings: DocumentSettings


class StrategiesGetRequest(Struct, frozen=True, array_like=True, tag="strategies_get"):
    """Ask which settings hold. Anybody may."""


class StrategiesResponse(Struct, frozen=True, array_like=True, tag="strategies"):
    """The settings that hold now."""

    settings: DocumentSettings = DocumentSettings()


def rule_problem(rule: StrategyRule) -> str | None:
    """Why this rule makes no sense, as a sentence; None when it does."""
    if rule.strategy == "Custom":
        if bool(rule.resolver) == bool(rule.expression):
            return "Custom needs either a resolver (an entry point's name) or a CEL expression"
    elif rule.resolver or rule.expression:
        return f"{rule.strategy} takes no resolver and no expression: use Custom"
    if rule.priorities and rule.strategy != "Priority":
        return f"{rule.strategy} takes no priorities: use Priority"
    if rule.strategy == "Priority" and not rule.priorities:
        return "Priority needs priorities: name clients, and how high they rank"
    if not rule.document and rule.match == "Name":
        return "a rule without a document is a prefix: it is for all of them"
    return None
