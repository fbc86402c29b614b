"""The nodes of a traced expression, and their JSON form.

The JSON form is a list of instructions, each `[operation, kind, [indexes of its operands], parameter]`; the
last one is the result. Equal subexpressions are one instruction, so a value used many times is computed once.
"""

from __future__ import annotations

import math
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from davy.core.time import MICROSECOND, to_micros
from davy.errors import DefinitionError

SMALLEST, LARGEST = -(2**63), 2**63 - 1
NUMBERS = ("int", "float")
NULL = "null"
_OURS = os.path.join(Path(__file__).parent, "")


class Node(msgspec.Struct, frozen=True, eq=False):
    """One operation on other nodes; `kind` is int, float, str, bool, time, or null for a bare None."""

    operation: str
    kind: str
    operands: tuple[Node, ...] = ()
    parameter: Any = None


class Traced:
    """Whatever holds a node: the base of symbols."""

    __slots__ = ("node",)
    __array_ufunc__ = None
    node: Node

    def __init__(self, node: Node) -> None:
        self.node = node

    def __repr__(self) -> str:
        return f"<symbol: {self.node.parameter if self.node.operation == 'input' else self.node.operation} ({self.node.kind})>"


class Instruction(NamedTuple):
    """A node of the JSON form: its operands are positions in the list."""

    operation: str
    kind: str
    operands: tuple[int, ...]
    parameter: Any

    @property
    def key(self) -> tuple[str, str, tuple[int, ...], str]:
        """Equal for equal computations; `repr` keeps 1, 1.0, True, and 0.0, -0.0 apart."""
        return self.operation, self.kind, self.operands, repr(self.parameter)


def here() -> str:
    """The file and line of the user's code that is being traced, such as `features.py:12`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and ours(frame.f_code.co_filename):
        frame = frame.f_back
    return place(frame.f_code.co_filename, frame.f_lineno)


def ours(path: str) -> bool:
    """Whether a file is one of Davy's own."""
    return path.startswith(_OURS)


def place(path: str, line: int | None) -> str:
    """`features.py:12`, from the working directory where the file lies below it."""
    return f"{path.removeprefix(os.path.join(os.getcwd(), ''))}:{line}"


def literal(value: object) -> Node:
    """The node of a plain Python value.

    Raises:
        DefinitionError: a value that an expression can't hold.
        InvalidTime: a datetime without a zone.
    """
    if value is None:
        return Node("literal", NULL)
    if isinstance(value, bool):
        return Node("literal", "bool", (), value)
    if isinstance(value, int):
        if not SMALLEST <= value <= LARGEST:
            raise _refused(value, "An int is 64 bits wide: -2^63 to 2^63-1.")
        return Node("literal", "int", (), int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(value, "NaN and infinity are no values of a feature; a missing value is None.")
        return Node("literal", "float", (), float(value))
    if isinstance(value, str):
        if not _storable(value):
            raise _refused(value, "A text is Unicode without lone surrogates.")
        return Node("literal", "str", (), str(value))
    if isinstance(value, timedelta):
        return Node("literal", "int", (), value // MICROSECOND)
    if isinstance(value, datetime):
        return Node("literal", "time", (), to_micros(value))
    raise _refused(value, "A constant is None, an int, float, bool, str, an aware datetime or a timedelta.")


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(value: object, allowed: str) -> DefinitionError:
    return DefinitionError(f"{here()} uses {value!r} ({type(value).__name__}) in an expression.", allowed,
                           "Write a plain value, or convert it before the expression, for example float(x).")


def widened(node: Node, kind: str) -> Node:
    """The node as `kind`: an int becomes a float, a bare None a null of that kind; others stay."""
    if node.kind == kind:
        return node
    if node.kind == NULL:
        return Node("literal", kind)
    if node.operation == "literal":
        return Node("literal", "float", (), None if node.parameter is None else float(node.parameter))
    return Node("cast", "float", (node,))


def to_json(root: Node) -> list[list[Any]]:
    """The instructions of a node and all below it, operands before their users.

    >>> one = literal(1)
    >>> to_json(Node("add", "int", (one, one)))
    [['literal', 'int', [], 1], ['add', 'int', [0, 0], None]]
    """
    positions: dict[int, int] = {}
    known: dict[tuple[Any, ...], int] = {}
    instructions: list[list[Any]] = []
    waiting = [root]
    while waiting:
        node = waiting[-1]
        missing = [] if id(node) in positions else [operand for operand in node.operands if id(operand) not in positions]
        if missing:
            waiting.extend(reversed(missing))
            continue
        waiting.pop()
        if id(node) in positions:
            continue
        instruction = Instruction(node.operation, node.kind, tuple(positions[id(operand)] for operand in node.operands), node.parameter)
        if instruction.key not in known:
            known[instruction.key] = len(instructions)
            instructions.append([node.operation, node.kind, list(instruction.operands), node.parameter])
        positions[id(node)] = known[instruction.key]
    return instructions


def from_json(expression: Any) -> list[Instruction]:
    """The instructions of a stored expression.

    Raises:
        DefinitionError: it isn't one.
    """
    instructions: list[Instruction] = []
    try:
        for operation, kind, operands, parameter in expression:
            if not all(0 <= operand < len(instructions) for operand in operands):
                raise ValueError("an operand that comes later")
            if kind == "float" and operation == "literal" and parameter is not None:
                parameter = float(parameter)
            instructions.append(Instruction(str(operation), str(kind), tuple(operands), parameter))
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"A stored expression can't be read: {error}.", "It is a list of [operation, kind, operands, parameter].",
                              "Trace the derived feature again.") from error
    if not instructions:
        raise DefinitionError("A stored expression is empty.", "Its last instruction is its result.", "Trace the derived feature again.")
    return instructions
