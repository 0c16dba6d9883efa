"""Which strategies show conflicts of documents: replicated state, changed by administrators.

One record holds all rules. What they show is no part of the state: see dwcp.wire.strategies.
"""

from __future__ import annotations

from dwcp.wire.operations import Failure
from dwcp.wire.strategies import (
    RULES_BYTES_MAX,
    StrategiesResponse,
    StrategiesSetRequest,
    StrategyRule,
    rule_problem,
)
from dwcp_replica.store.layout import STRATEGIES, decoder, encode
from dwcp_replica.store.undo import UndoRecords

_decode = decoder(tuple[StrategyRule, ...])


class StrategyTable:
    """The rules, as of the last entry executed."""

    def __init__(self, records: UndoRecords) -> None:
        self._records = records

    @property
    def version(self) -> bytes | None:
        """The record's bytes; None while nobody has set rules."""
        return self._records.get(STRATEGIES)

    @property
    def rules(self) -> tuple[StrategyRule, ...]:
        """The rules that hold."""
        data = self.version
        return () if data is None else _decode(data)

    def set(self, request: StrategiesSetRequest) -> StrategiesResponse | Failure:
        """Let these rules hold, all or none of them."""
        for rule in request.rules:
            if (problem := rule_problem(rule)) is not None:
                return Failure(3, problem)
        places = {(rule.document, rule.match, rule.path) for rule in request.rules}
        if len(places) < len(request.rules):
            return Failure(3, "two rules are for the same documents and path: keep one")
        data = encode(request.rules)
        if len(data) > RULES_BYTES_MAX:
            return Failure(3, f"{len(data)} bytes of rules, at most {RULES_BYTES_MAX}: use fewer")
        if request.rules:
            self._records.set(STRATEGIES, data)
        else:
            self._records.remove(STRATEGIES)
        return StrategiesResponse(request.rules)

    def get(self) -> StrategiesResponse:
        """Show the rules."""
        return StrategiesResponse(self.rules)
