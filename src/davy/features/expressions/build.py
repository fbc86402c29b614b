"""The rules of kinds: which operation takes what, and what comes out."""

from __future__ import annotations

from typing import Any

from davy.errors import DefinitionError
from davy.features.expressions.nodes import NULL, NUMBERS, Node, Traced, here, literal, widened

SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "floor_divide": "//", "modulo": "%", "power": "**", "equal": "==",
         "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "and": "&", "or": "|"}
LARGEST_EXPONENT = 63


def arithmetic(operation: str, left: Node, right: Node) -> Node:
    """`left operation right` on numbers; `+` also joins texts; times take ints of microseconds.

    Raises:
        DefinitionError: the kinds don't go together; says which came.
    """
    kinds = (left.kind, right.kind)
    if operation == "add" and kinds == ("str", "str"):
        return Node("add", "str", (left, right))
    if (operation == "add" and kinds in (("time", "int"), ("int", "time"))) or (operation == "subtract" and kinds == ("time", "int")):
        return Node(operation, "time", (left, right))
    if operation == "subtract" and kinds == ("time", "time"):
        return Node("subtract", "int", (left, right))
    if not set(kinds) <= set(NUMBERS):
        raise mismatch(SIGNS[operation], left, right)
    if operation == "power":
        return _power(left, right)
    if operation == "divide":
        return Node("divide", "float", (left, right))
    if kinds == ("int", "int"):
        return Node(operation, "int", (left, right))
    return Node(operation, "float", (_as_float(left), _as_float(right)))


def _as_float(node: Node) -> Node:
    return widened(node, "float") if node.operation == "literal" else node


def _power(left: Node, right: Node) -> Node:
    exponent = right.parameter if right.operation == "literal" else None
    if left.kind == right.kind == "int" and isinstance(exponent, int) and exponent >= 0:
        if exponent > LARGEST_EXPONENT:
            raise DefinitionError(f"{here()} raises an int to the power {exponent}.", f"An int's constant exponent is at most {LARGEST_EXPONENT}.",
                                  'Write x.cast("float") ** n for a float.')
        return Node("power_int", "int", (left,), exponent)
    return Node("power", "float", (left, right))


def comparison(operation: str, left: Node, right: Node) -> Node:
    """A bool: numbers with numbers, otherwise equal kinds; bools only by == and !=.

    Raises:
        DefinitionError: the kinds can't be compared.
    """
    if NULL in (left.kind, right.kind):
        raise DefinitionError(f"{here()} compares with None.", "A comparison with null is null, never true.", "Write x.is_null() or ~x.is_null().")
    numbers = left.kind in NUMBERS and right.kind in NUMBERS
    if not numbers and (left.kind != right.kind or (left.kind == "bool" and operation not in ("equal", "not_equal"))):
        raise mismatch(SIGNS[operation], left, right)
    return Node(operation, "bool", (left, right))


def logic(operation: str, left: Node, right: Node) -> Node:
    """`&` or `|` of two bools, three-valued.

    Raises:
        DefinitionError: an operand is no bool, most often because a comparison beside it lacks parentheses.
    """
    if left.kind != "bool" or right.kind != "bool":
        raise mismatch(SIGNS[operation], left, right, "& and | join bools, and bind tighter than comparisons.", "Write (a > 1) & (b > 2).")
    return Node(operation, "bool", (left, right))


def mismatch(sign: str, left: Node, right: Node, allowed: str = "", fix: str = "") -> DefinitionError:
    """The error for operands whose kinds don't go together."""
    if not fix and "bool" in (left.kind, right.kind):
        fix = 'Write flag.cast("int") to count with it, or davy.when(flag, a, b).'
    if not fix and NULL in (left.kind, right.kind):
        fix = "Write x.fill_null(value) or davy.when(condition, x, None)."
    if not fix and {"time", "str"} == {left.kind, right.kind}:
        fix = "Write a moment as an aware datetime, for example datetime(2013, 5, 1, tzinfo=UTC)."
    return DefinitionError(f"{here()}: {sign!r} got {left.kind} and {right.kind}.",
                           allowed or "Both sides are numbers, or of one kind; a time takes + and - with int microseconds or a timedelta.",
                           fix or 'Convert one side, for example x.cast("float"), or compare what is alike.')


def expect(name: str, node: Node, *kinds: str) -> Node:
    """The node, if it is of one of these kinds.

    Raises:
        DefinitionError: it is of another.
    """
    if node.kind not in kinds:
        raise DefinitionError(f"{here()}: {name} got {node.kind}.", f"It takes {' or '.join(kinds)}.", "Check the kind of the value, or cast it first.")
    return node


def constant(name: str, value: Any, kind: type, allowed: str) -> Any:
    """A parameter that must be a plain Python value of a type.

    Raises:
        DefinitionError: it is something else.
    """
    if type(value) is not kind:
        raise DefinitionError(f"{here()}: {name} got {value!r}.", allowed, "Write it as a constant.")
    return value


def unified(name: str, values: list[Any]) -> list[Node]:
    """The values as nodes of one kind: ints beside floats become floats, None takes the others' kind.

    Raises:
        DefinitionError: they don't share a kind, or all are None.
    """
    nodes = [as_node(value) for value in values]
    kinds = {node.kind for node in nodes} - {NULL}
    if kinds == set(NUMBERS):
        kinds = {"float"}
    if len(kinds) != 1:
        raise DefinitionError(f"{here()}: {name} got {', '.join(node.kind for node in nodes)}.",
                              "All its values are of one kind; ints beside floats become floats.",
                              "Give at least one value that is not None." if not kinds else 'Convert them, for example x.cast("float").')
    kind = kinds.pop()
    return [widened(node, kind) for node in nodes]


def as_node(value: Any) -> Node:
    """The node behind a symbol, or of a plain value."""
    return value.node if isinstance(value, Traced) else literal(value)
