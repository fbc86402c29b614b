"""The fields that a filter and an order speak of: columns of the row itself, and values that stand under keys in a table beside it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

Kind = Literal["text", "number", "identity"]
Comparing = ("!=", "<", "<=", "=", ">", ">=")
NUMBER_OPS = (*Comparing, "BETWEEN", "IN", "IS NOT NULL", "IS NULL", "NOT BETWEEN", "NOT IN")
TEXT_OPS = ("!=", "=", "ILIKE", "IN", "IS NOT NULL", "IS NULL", "LIKE", "NOT ILIKE", "NOT IN", "NOT LIKE")
IDENTITY_OPS = ("!=", "=", "IN", "NOT IN")


class Attribute(NamedTuple):
    """A column of the row.

    Attributes:
        kind: an `identity` is a number that is written as text.
        under: the keyed table and key that a filter looks in instead of the column.
        upper: values are compared in upper case.
    """

    column: sa.ColumnElement[Any]
    kind: Kind = "text"
    nullable: bool = False
    under: tuple[Keyed, str] | None = None
    upper: bool = False
    quoted: bool = False
    """Whether a number may also come as text in quotes."""


class Keyed(NamedTuple):
    """Values under keys: params, tags, metrics.

    Attributes:
        owner: the table's columns that name the row, in the order of `owned`.
        owned: the row's columns that they equal.
        nan: the column that says that a value is NaN; None for texts.
        functions: the columns of `max(...)` and the like, and where their NaN stands (None: where they are null).
        unique: whether a row has at most one value of a key.
        absent: per key, the value that stands for none.
    """

    table: sa.FromClause
    owner: tuple[str, ...]
    owned: tuple[sa.ColumnElement[Any], ...]
    key: str = "key"
    value: str = "value"
    nan: str | None = None
    functions: dict[str, tuple[str, str | None]] = {}
    absent: dict[str, str] = {}
    restrict: Any = None
    """From the table's alias, a further condition on its rows."""

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "text" if self.nan is None else "number"


class Linked(NamedTuple):
    """Texts of rows that are linked, any number of them: a run's datasets. A condition holds when it holds of one of them.

    Attributes:
        exists: from a condition on `column` to the condition on the row.
    """

    column: sa.ColumnElement[Any]
    exists: Any


class Target(NamedTuple):
    """A field, found: what it is, its key, and the function asked of it."""

    entity: str
    key: str
    field: Attribute | Keyed | Linked
    function: str = ""

    @property
    def kind(self) -> Kind:
        """What it is compared with."""
        return "text" if isinstance(self.field, Linked) else self.field.kind
