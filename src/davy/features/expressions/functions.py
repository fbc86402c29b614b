"""Functions over symbols: choices, null handling, mathematics."""

from __future__ import annotations

from typing import Any

from davy.errors import DefinitionError
from davy.features.calls import checked_call
from davy.features.expressions import build
from davy.features.expressions.nodes import Node, here
from davy.features.expressions.symbols import Symbol


@checked_call("davy.when")
def when(condition: Any, then: Any, otherwise: Any) -> Symbol:
    """`then` where the condition is true, `otherwise` where it is false or null. Both are computed for each row."""
    chosen = build.expect("when's condition", build.as_node(condition), "bool")
    first, second = build.unified("when", [then, otherwise])
    return Symbol(Node("when", first.kind, (chosen, first, second)))


def case(*branches: tuple[Any, Any], otherwise: Any = None) -> Symbol:
    """The value of the first (condition, value) whose condition is true, or `otherwise`."""
    for branch in branches:
        if not isinstance(branch, tuple) or len(branch) != 2:
            raise DefinitionError(f"{here()}: case got {branch!r}.", "Each branch is a pair (condition, value).",
                                  'Write davy.case((x < 25, "young"), (x < 60, "mid"), otherwise="old").')
    if not branches:
        raise DefinitionError(f"{here()}: case got no branch.", "It takes at least one pair (condition, value).", "Write davy.case((x > 1, 2), otherwise=3).")
    *values, result = build.unified("case", [*(value for _, value in branches), otherwise])
    for (condition, _), value in zip(reversed(branches), reversed(values), strict=True):
        result = Node("when", value.kind, (build.expect("case's condition", build.as_node(condition), "bool"), value, result))
    return Symbol(result)


def coalesce(first: Any, *others: Any) -> Symbol:
    """The first value that is not null."""
    *nodes, result = build.unified("coalesce", [first, *others])
    for node in reversed(nodes):
        result = Node("coalesce", node.kind, (node, result))
    return Symbol(result)


def is_null(value: Any) -> Symbol:
    """Whether it is null."""
    return Symbol(build.as_node(value)).is_null()


def minimum(first: Any, *others: Any) -> Symbol:
    """The smallest number, or the earliest time; null if one is null. Of equals (0.0 and -0.0) the first."""
    return _extreme("minimum", [first, *others])


def maximum(first: Any, *others: Any) -> Symbol:
    """The largest number, or the latest time; null if one is null. Of equals the first."""
    return _extreme("maximum", [first, *others])


def _extreme(name: str, values: list[Any]) -> Symbol:
    result, *others = build.unified(name, values)
    build.expect(name, result, "int", "float", "time")
    for other in others:
        result = Node(name, result.kind, (result, other))
    return Symbol(result)


def clip(value: Any, low: Any = None, high: Any = None) -> Symbol:
    """`low` where the value is below it, `high` where it is above, the value otherwise. A bound left out (None) does not bind.

    Raises:
        DefinitionError: no bound, or constant bounds in the wrong order.
    """
    bounds = [bound for bound in (low, high) if bound is not None]
    if not bounds:
        raise DefinitionError(f"{here()}: clip got no bound.", "It takes a low bound, a high bound or both.", "Write davy.clip(x, 0, 100).")
    if low is None or high is None:
        return minimum(value, high) if low is None else maximum(value, low)
    node, lowest, highest = build.unified("clip", [value, low, high])
    build.expect("clip", node, "int", "float", "time")
    if lowest.operation == highest.operation == "literal" and lowest.parameter > highest.parameter:
        raise DefinitionError(f"{here()}: clip got the bounds {low!r} and {high!r}.", "The low bound comes first.", f"Write davy.clip(x, {high!r}, {low!r}).")
    return Symbol(Node("clip", node.kind, (node, lowest, highest)))


def sqrt(value: Any) -> Symbol:
    """The square root; null below zero."""
    return _real("sqrt", value)


def log(value: Any) -> Symbol:
    """The natural logarithm; null at zero and below."""
    return _real("log", value)


def log1p(value: Any) -> Symbol:
    """log(1 + x), exact near zero; null at -1 and below."""
    return _real("log1p", value)


def exp(value: Any) -> Symbol:
    """e to the power x; null where that is beyond the range of a float."""
    return _real("exp", value)


def _real(name: str, value: Any) -> Symbol:
    return Symbol(Node(name, "float", (build.expect(name, build.as_node(value), "int", "float"),)))


def abs(value: Any) -> Symbol:  # noqa: A001 - named as the builtin that it stands for
    """The number without its sign."""
    return Symbol(build.as_node(value)).__abs__()


def floor(value: Any) -> Symbol:
    """The largest whole number not above it, of the same kind."""
    return Symbol(build.as_node(value)).__floor__()


def ceil(value: Any) -> Symbol:
    """The smallest whole number not below it, of the same kind."""
    return Symbol(build.as_node(value)).__ceil__()


def round(value: Any, digits: int = 0) -> Symbol:  # noqa: A001 - named as the builtin that it stands for
    """Rounded to `digits` decimals (0 to 15), halves to the even neighbour, of the same kind."""
    return Symbol(build.as_node(value)).__round__(digits)


def hash_bucket(text: Any, buckets: int) -> Symbol:
    """CRC-32 of the UTF-8 bytes modulo `buckets`, from 0."""
    return Symbol(build.as_node(text)).hash_bucket(buckets)
