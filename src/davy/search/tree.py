"""What a filter reads as. `at` is where a part begins in the text, counted from 0."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["field", "name", "string", "double", "backtick", "number"]


class Term(msgspec.Struct, frozen=True):
    """A name or a value as it is written, quotes included. `function` is `max` in `max(metrics.loss)`."""

    kind: Kind
    text: str
    at: int
    function: str = ""


class Condition(msgspec.Struct, frozen=True):
    """`left op right`; `op` in upper case, `at` where it stands; `escape` is LIKE's."""

    left: Term
    op: str
    right: tuple[Term, ...]
    at: int
    escape: Term | None = None


class Not(msgspec.Struct, frozen=True):
    """What the item is not true of."""

    item: Node


class And(msgspec.Struct, frozen=True):
    """What all items are true of."""

    items: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True):
    """What any item is true of."""

    items: tuple[Node, ...]


Node = Condition | Not | And | Or


class Ordering(msgspec.Struct, frozen=True):
    """One item of an order."""

    term: Term
    down: bool
    text: str


def conjuncts(node: Node | None) -> tuple[Node, ...]:
    """What must all be true."""
    if node is None:
        return ()
    return node.items if isinstance(node, And) else (node,)
