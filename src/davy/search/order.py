"""Sorting, and pages that go on from the last row's sort keys.

A page's token holds those keys, so that turning pages costs the same at the end as at the beginning, and rows that are
added, removed or moved meanwhile make no other row come twice or be skipped. Missing values come last in both directions,
NaN before them. The last key is always the row's identity, so that the order is total.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from davy.core.digest import digest_json
from davy.errors import InvalidInput
from davy.search.compiler import bound, value_and_nan
from davy.search.fields import Attribute, Keyed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.search.language import SortKey

Kind = Literal["integer", "float", "text"]
_DEFAULTS: dict[Kind, Any] = {"integer": 0, "float": 0.0, "text": ""}


class Part(NamedTuple):
    """One column that rows are sorted by; never null."""

    column: sa.ColumnElement[Any]
    down: bool
    kind: Kind


class Joined(NamedTuple):
    """A keyed table to be outer-joined for its values."""

    rows: sa.FromClause
    on: sa.ColumnElement[bool]


class Order(NamedTuple):
    """The parts that rows are sorted by, the last one their identity, and the tables that they need."""

    parts: tuple[Part, ...]
    joins: tuple[Joined, ...]

    def sorting(self) -> list[sa.ColumnElement[Any]]:
        """For ORDER BY."""
        return [part.column.desc() if part.down else part.column.asc() for part in self.parts]

    def joined(self, source: sa.FromClause) -> sa.FromClause:
        """The source with the joins."""
        for join in self.joins:
            source = source.outerjoin(join.rows, join.on)
        return source

    def beyond(self, last: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Rows that sort strictly behind `last`. Its first conjunct alone is a range that an index can walk."""
        found: sa.ColumnElement[bool] = sa.false()
        for part, value in reversed(list(zip(self.parts, last, strict=True))):
            given = bound(value)
            behind = part.column < given if part.down else part.column > given
            if part is self.parts[-1]:
                found = behind
            else:
                found = sa.and_(part.column <= given if part.down else part.column >= given, sa.or_(behind, found))
        return found


def make_order(keys: Sequence[SortKey], ties: Sequence[Part], dialect: str) -> Order:
    """The order of these keys; `ties` decide among equals, and the last of them always ends the order."""
    parts: list[Part] = []
    joins: list[Joined] = []
    for key in keys:
        field = key.target.field
        if isinstance(field, Attribute):
            parts += _attribute(field, key.down, dialect)
        elif isinstance(field, Keyed):
            rows, on = keyed_rows(field, key.target.key)
            joins.append(Joined(rows, on))
            parts += _keyed(rows, field, key, dialect)
    taken = [part.column for part in parts]
    parts += [collated(part, dialect) for part in ties if part is ties[-1] or not any(part.column is column for column in taken)]
    return Order(tuple(parts), tuple(joins))


def keyed_rows(field: Keyed, key: str) -> Joined:
    """The rows of one key, to be joined to their owners."""
    rows = field.table.alias()
    on = [rows.c[name] == column for name, column in zip(field.owner, field.owned, strict=True)]
    if field.restrict is not None:
        on.append(field.restrict(rows))
    return Joined(rows, sa.and_(*on, rows.c[field.key] == key))


def collated(part: Part, dialect: str) -> Part:
    """The part; a text is sorted by its code points, whatever the database's locale."""
    if part.kind == "text" and dialect != "sqlite":
        return part._replace(column=sa.collate(part.column, "C"))
    return part


def _attribute(field: Attribute, down: bool, dialect: str) -> list[Part]:
    kind: Kind = "text" if field.kind == "text" else "integer"
    if not field.nullable:
        return [collated(Part(field.column, down, kind), dialect)]
    rank = sa.case((field.column.is_(None), 1), else_=0)
    return [Part(rank, False, "integer"), collated(Part(sa.func.coalesce(field.column, _DEFAULTS[kind]), down, kind), dialect)]


def _keyed(rows: sa.FromClause, field: Keyed, key: SortKey, dialect: str) -> list[Part]:
    owner = rows.c[field.owner[0]]
    if field.nan is None:
        rank = sa.case((owner.is_(None), 2), else_=0)
        return [Part(rank, False, "integer"), collated(Part(sa.func.coalesce(rows.c[field.value], ""), key.down, "text"), dialect)]
    value, nan, _ = value_and_nan(rows, field, key.target.function)
    rank = sa.case((owner.is_(None), 2), (nan, 1), else_=0)
    return [Part(rank, False, "integer"), Part(sa.case((owner.is_(None), 0.0), (nan, 0.0), else_=value), key.down, "float")]


def binding(*asked: Any) -> str:
    """What ties a token to its search."""
    return digest_json(asked)[7:23]


def encode(tied: str, last: Sequence[Any]) -> str:
    """The token that goes on behind a row with these sort keys."""
    parts = [value.hex() if isinstance(value, float) else value for value in last]
    return base64.urlsafe_b64encode(msgspec.json.encode([tied, *parts])).decode()


def decode(token: str, tied: str, kinds: Sequence[Kind]) -> list[Any]:
    """The sort keys in a token.

    Raises:
        InvalidInput: it is no token, or another search's.
    """
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token), type=list[Any])
        if len(found) != len(kinds) + 1 or found[0] != tied:
            raise ValueError
        values = [float.fromhex(value) if kind == "float" else value for value, kind in zip(found[1:], kinds, strict=True)]
        if not all(_sound(value, kind) for value, kind in zip(values, kinds, strict=True)):
            raise ValueError
        return values
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidInput(f"Invalid page token {token[:60]!r}: it is not a page of this search.", "A page's token fits the search that gave it, unchanged.",
                           "Start again without a token.") from error


def _sound(value: Any, kind: Kind) -> bool:
    """Whether any database takes it."""
    if kind == "text":
        return isinstance(value, str) and "\0" not in value
    if kind == "float":
        return isinstance(value, float) and not math.isnan(value)
    return type(value) is int and abs(value) < 2**63


def page_of(rows: Sequence[Any], limit: int, tied: str, parts: int) -> tuple[Sequence[Any], str | None]:
    """The first `limit` of `limit + 1` rows, and the token of what follows. A row's first columns are its sort keys."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(tied, rows[limit - 1][:parts])


def check_limit(limit: int, most: int) -> None:
    """Refuse a page of no size, or a larger one than is given out at once."""
    if not 1 <= limit <= most:
        raise InvalidInput(f"limit={limit} was asked for.", f"A page has 1 to {most:,} rows.", "Turn pages with after=page.next.")
