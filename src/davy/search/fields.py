"""The fields that a filter and an order speak of: columns of the row itself, and values that stand under keys in a table beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import sqlalchemy as sa

Kind = Literal["text", "number", "identity"]
Comparing = ("!=", "<", "<=", "=", ">", ">=")
NUMBER_OPS = (*Comparing, "BETWEEN", "IN", "IS NOT NULL", "IS NULL", "NOT BETWEEN", "NOT IN")
TEXT_OPS = ("!=", "=", "ILIKE", "IN", "IS NOT NULL", "IS NULL", "LIKE", "NOT ILIKE", "NOT IN", "NOT LIKE")
IDENTITY_OPS = ("!=", "=", "IN", "NOT IN")


class Attribute(msgspec.Struct, frozen=True, eq=False):
    """A column of the row.

    Attributes:
        kind: an `identity` is a number that is written as text.
        under: the keyed table and key that a filter looks in instead of the column.
        quoted: a number may also come as text in quotes.
    """

    column: sa.ColumnElement[Any]
    kind: Kind = "text"
    nullable: bool = False
    under: tuple[Keyed, str] | None = None
    quoted: bool = False


class Keyed(msgspec.Struct, frozen=True, eq=False):
    """Values under keys: params, tags, metrics.

    Attributes:
        owner: the table's columns that name the row, in the order of `owned`.
        owned: the row's columns that they equal.
        nan: the column that says that a value is NaN; None for texts.
        functions: the columns of `max(...)` and the like, and where their NaN stands (None: where they are null).
        absent: per key, the value that stands for none.
        restrict: from the table's alias, a further condition on its rows.
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

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return "text" if self.nan is None else "number"


class Linked(msgspec.Struct, frozen=True, eq=False):
    """Texts of rows that are linked, any number of them: a run's datasets. A condition holds when it holds of one of them.

    Attributes:
        exists: from a condition on `column` to the condition on the row.
    """

    column: sa.ColumnElement[Any]
    exists: Any


class Target(msgspec.Struct, frozen=True):
    """A field, found: what it is, its key, and the function asked of it."""

    entity: str
    key: str
    field: Attribute | Keyed | Linked
    function: str = ""

    @property
    def kind(self) -> Kind:
        """What it is compared with."""
        return "text" if isinstance(self.field, Linked) else self.field.kind
