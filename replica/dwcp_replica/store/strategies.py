"""Which strategies show conflicts of documents: replicated state, changed by administrators.

One record holds all rules. What they show is no part of the state: see dwcp.wire.strategies.
"""

from __future__ import annotations

from dwcp.wire.operations import Failure
from dwcp.wire.strategies import (
    RULES_BYTES_MAX,
    DocumentSettings,
    StrategiesResponse,
    StrategiesSetRequest,
    rule_problem,
)
from dwcp_replica.store.layout import STRATEGIES, decoder, encode
from dwcp_replica.store.undo import UndoRecords

_decode = decoder(DocumentSettings)


class StrategyTable:
    """The settings, as of the last entry executed."""

    def __init__(self, records: UndoRecords) -> None:
        self._records = records

    @property
    def version(self) -> bytes | None:
        """The record's bytes; None while nobody has set any."""
        return self._records.get(STRATEGIES)

    @property
    def settings(self) -> DocumentSettings:
        """What holds now."""
        data = self.version
        return DocumentSettings() if data is None else _decode(data)

    def set(self, request: StrategiesSetRequest) -> StrategiesResponse | Failure:
        """Let these settings hold, all or none of them."""
        rules = request.settings.rules
        for rule in rules:
            if (problem := rule_problem(rule)) is not None:
                return Failure(3, problem)
        places = {(rule.document, rule.match, rule.path) for rule in rules}
        if len(places) < len(rules):
            return Failure(3, "two rules are for the same documents and path: keep one")
        data = encode(request.settings)
        if len(data) > RULES_BYTES_MAX:
            return Failure(3, f"{len(data)} bytes of rules, at most {RULES_BYTES_MAX}: use fewer")
        if request.settings == DocumentSettings():
            self._records.remove(STRATEGIES)
        else:
            self._records.set(STRATEGIES, data)
        return StrategiesResponse(request.settings)

    def get(self) -> StrategiesResponse:
        """Show what holds."""
        return StrategiesResponse(self.settings)
