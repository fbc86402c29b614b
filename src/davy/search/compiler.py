"""From a tree to SQL, the same for SQLite and PostgreSQL.

Every condition is true or false, never unknown: of a row that lacks the field each is false (but IS NULL), and NOT is the
plain complement. So `params.model != 'lr'` leaves out runs without that param, and `NOT params.model = 'lr'` has them.
NaN is equal to no number, so that only `!=`, NOT IN and NOT BETWEEN hold of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from davy.search.fields import Attribute, Keyed, Linked
from davy.search.tree import And, Not, Or

if TYPE_CHECKING:
    from davy.search.language import Check, Language
    from davy.search.tree import Node

_NEGATED = ("!=", "NOT IN", "NOT BETWEEN")
_GLOB = re.compile(r"[*?\[]")


class Compiler:
    """Makes SQL of the filters of one language, for one database's dialect."""

    def __init__(self, language: Language, text: str, dialect: str) -> None:
        self.language, self.text, self.dialect = language, text, dialect

    def where(self, node: Node) -> sa.ColumnElement[bool]:
        """The condition on the row; never null."""
        if isinstance(node, And):
            return sa.and_(*(self.where(item) for item in node.items))
        if isinstance(node, Or):
            return sa.or_(*(self.where(item) for item in node.items))
        if isinstance(node, Not):
            return sa.not_(self.where(node.item).self_group())
        return self.condition(self.language.check(self.text, node))

    def condition(self, check: Check) -> sa.ColumnElement[bool]:
        """The SQL of a checked condition."""
        field = check.target.field
        if isinstance(field, Linked):
            held = field.exists(self.compare(field.column, check)) if check.op not in ("IS NULL", "IS NOT NULL") else field.exists(sa.true())
            return sa.not_(held) if check.op == "IS NULL" else held  # type: ignore[no-any-return]
        if isinstance(field, Attribute):
            if field.under is not None:
                return self.keyed(check, *field.under)
            if check.op in ("IS NULL", "IS NOT NULL"):
                return field.column.is_(None) if check.op == "IS NULL" else field.column.is_not(None)
            held = self.compare(field.column, check)
            return sa.and_(field.column.is_not(None), held) if field.nullable else held
        return self.keyed(check, field, check.target.key)

    def keyed(self, check: Check, field: Keyed, key: str) -> sa.ColumnElement[bool]:
        """EXISTS by the keyed table's primary key."""
        rows = field.table.alias()
        held = self.within(rows, check, field, key)
        found = sa.exists().where(*(rows.c[name] == column for name, column in zip(field.owner, field.owned, strict=True)), held)
        if check.op == "IS NULL":
            return sa.not_(found)
        if key in field.absent and check.op != "IS NOT NULL":
            here = sa.exists().where(*(rows.c[name] == column for name, column in zip(field.owner, field.owned, strict=True)), rows.c[field.key] == key)
            return sa.or_(found, sa.and_(sa.not_(here), self.compare(sa.literal(field.absent[key]), check)))
        return found

    def within(self, rows: sa.FromClause, check: Check, field: Keyed, key: str) -> sa.ColumnElement[bool]:
        """What is true of the keyed table's row that makes the condition hold."""
        parts = [rows.c[field.key] == key]
        if field.restrict is not None:
            parts.append(field.restrict(rows))
        if check.op in ("IS NULL", "IS NOT NULL"):
            return sa.and_(*parts)
        if field.nan is None:
            return sa.and_(*parts, self.compare(rows.c[field.value], check))
        value, nan, number = value_and_nan(rows, field, check.target.function)
        if check.op in _NEGATED:
            return sa.and_(*parts, sa.or_(nan, self.compare(value, check)))
        return sa.and_(*parts, number, self.compare(value, check))

    def compare(self, column: sa.ColumnElement[Any], check: Check) -> sa.ColumnElement[bool]:
        """The comparison itself, of a value that is there."""
        op = check.op
        if op in ("IN", "NOT IN"):
            listed = _listed(check.values)
            return column.in_(listed) if op == "IN" else column.not_in(listed)
        values = [bound(value) for value in check.values]
        if op in ("BETWEEN", "NOT BETWEEN"):
            held = sa.and_(column >= values[0], column <= values[1])
            return held if op == "BETWEEN" else sa.not_(held)
        if op.endswith("LIKE"):
            held = self.like(column, check.values[0], check.escape, op.endswith("ILIKE"))
            return sa.not_(held.self_group()) if op.startswith("NOT") else held
        return _COMPARE[op](column, values[0])  # type: ignore[no-any-return]

    def like(self, column: sa.ColumnElement[Any], pattern: str, escape: str | None, folded: bool) -> sa.ColumnElement[bool]:
        """LIKE tells upper from lower case, ILIKE does not; no character escapes unless ESCAPE names one.

        SQLite's LIKE folds case, so that a LIKE is a GLOB there.
        """
        if self.dialect != "sqlite":
            return column.ilike(pattern, escape=escape or "") if folded else column.like(pattern, escape=escape or "")
        if folded:
            return column.like(pattern, escape=escape)
        return column.bool_op("GLOB")(glob(pattern, escape))


_COMPARE: dict[str, Any] = {
    "=": lambda column, value: column == value, "!=": lambda column, value: column != value, "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value, ">": lambda column, value: column > value, ">=": lambda column, value: column >= value,
}


def bound(value: Any) -> Any:
    """The value as a parameter that is not narrowed to the column's type."""
    if isinstance(value, float):
        return sa.literal(value, sa.Float(53))
    return sa.literal(value, sa.BigInteger) if isinstance(value, int) else value


def _listed(values: tuple[Any, ...]) -> sa.BindParameter[Any]:
    if isinstance(values[0], str):
        return sa.bindparam("values", values, sa.Text, expanding=True, unique=True)
    if all(isinstance(value, int) for value in values):
        return sa.bindparam("values", values, sa.BigInteger, expanding=True, unique=True)
    return sa.bindparam("values", [float(value) for value in values], sa.Float(53), expanding=True, unique=True)


def value_and_nan(rows: sa.FromClause, field: Keyed, function: str) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """The column of a metric's value, or of its `max` and the like; whether it is NaN; and whether it is a number."""
    if not function:
        nan = rows.c[str(field.nan)]
        return rows.c[field.value], nan == sa.true(), nan == sa.false()
    name, flag = field.functions[function]
    value = rows.c[name]
    if flag is None:
        return value, value.is_(None), value.is_not(None)
    return value, rows.c[flag] == sa.true(), rows.c[flag] == sa.false()


def glob(pattern: str, escape: str | None = None) -> str:
    """The GLOB that matches what the LIKE pattern matches.

    >>> glob("a%_[*")
    'a*?[[][*]'
    """
    made, characters = [], iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, "")
            made.append(_GLOB.sub(r"[\g<0>]", following))
        else:
            made.append({"%": "*", "_": "?"}.get(character) or _GLOB.sub(r"[\g<0>]", character))
    return "".join(made)
