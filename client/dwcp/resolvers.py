"""Users' conflict resolvers: Python entry points, and CEL expressions bounded by steps.

An installed distribution offers a function under the entry point group `dwcp.resolvers`; its name
there is the strategy's name. A CEL expression sees `values`, the concurrent values in the
document's order, and gives the one to show. Either way the result is a view: it is never stored,
and replicas need not agree on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from dwcp.crdt import BadValue, Custom
from dwcp.crdt.values import Value

GROUP: Final = "dwcp.resolvers"
STEPS_MAX: Final = 2_000
EXPRESSION_BYTES_MAX: Final = 4096


class ResolverError(ValueError):
    """A resolver can not be used; the message says what to do."""


def load_resolvers(found: Sequence[EntryPoint] | None = None) -> dict[str, Custom]:
    """Every installed resolver by name. Raises ResolverError for one that does not load."""
    points = list(entry_points(group=GROUP)) if found is None else list(found)
    resolvers: dict[str, Custom] = {}
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        if point.name in resolvers:
            raise ResolverError(f"two distributions offer the resolver {point.name!r}: remove one")
        try:
            function = point.load()
        except (ImportError, AttributeError) as error:
            raise ResolverError(f"resolver {point.name!r} ({point.value}): {error}") from None
        if not callable(function):
            raise ResolverError(f"resolver {point.name!r} ({point.value}) is not a function")
        resolvers[point.name] = Custom(point.name, function)
    return resolvers


def cel_resolver(name: str, expression: str, steps_max: int = STEPS_MAX) -> Custom:
    """A resolver from a CEL expression; more than `steps_max` evaluation steps are a failure.

    A step is one visit of a node of the expression, so that the bound is the same on every machine.
    Needs the package `cel-python`. Raises ResolverError when it is missing, or for bad syntax.
    """
    try:
        import celpy
        from celpy.adapter import CELJSONEncoder, json_to_cel
        from celpy.celparser import CELParseError
        from celpy.evaluation import CELEvalError, Evaluator
    except ImportError:
        raise ResolverError("CEL resolvers need cel-python: pip install cel-python") from None
    if len(expression.encode()) > EXPRESSION_BYTES_MAX:
        raise ResolverError(f"a CEL expression has at most {EXPRESSION_BYTES_MAX} bytes")
    environment = celpy.Environment()
    try:
        tree = environment.compile(expression)
    except CELParseError as error:
        raise ResolverError(f"CEL expression {expression!r}: {error}") from None

    class Bounded(Evaluator):  # type: ignore[misc, valid-type, unused-ignore]
        """Counts visits, over all nested evaluators of one evaluation."""

        def __init__(self, ast: Any, activation: Any, steps: list[int]) -> None:
            super().__init__(ast, activation=activation)
            self.steps = steps

        def visit(self, tree: Any) -> Any:
            self.steps[0] -= 1
            if self.steps[0] < 0:
                raise _StepsExceeded
            return super().visit(tree)

        def sub_evaluator(self, ast: Any) -> Evaluator:
            return Bounded(ast, self.activation, self.steps)

    def resolve(values: Sequence[Value]) -> Value:
        activation = environment.program(tree).new_activation()
        context = {"values": json_to_cel(list(values))}
        try:
            result = Bounded(tree, activation, [steps_max]).evaluate(context)
        except _StepsExceeded:
            raise BadValue(f"the expression needs more than {steps_max} steps") from None
        except CELEvalError as error:
            raise BadValue(f"the expression failed: {error}") from None
        return json.loads(json.dumps(result, cls=CELJSONEncoder))

    return Custom(name, resolve)


class _StepsExceeded(BaseException):
    """Not an Exception: CEL's own error handling must not take it for a value that failed."""
