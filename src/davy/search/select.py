"""A page of whatever has a language and fits one query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from davy.search.compiler import Compiler
from davy.search.order import Part, binding, check_limit, decode, make_order, page_of
from davy.search.tree import And, Condition, Not, Or

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from davy.search.language import Language, SortKey
    from davy.search.tree import Node


class Selection(NamedTuple):
    """What is searched.

    Attributes:
        source: the table.
        ties: the parts that end every order, the identity among them.
        identity: the columns to return.
    """

    language: Language
    source: sa.FromClause
    ties: tuple[Part, ...]
    identity: tuple[sa.ColumnElement[Any], ...]


def select_page(connection: sa.Connection, selection: Selection, *, text: str, tree: Node | None, keys: Sequence[SortKey], limit: int, most: int,
                after: str | None, where: Sequence[sa.ColumnElement[bool]] = (), bound: Sequence[Any] = ()) -> tuple[list[tuple[Any, ...]], str | None]:
    """The identities of a page's rows, and the token of the next page.

    Args:
        where: further conditions on the row.
        bound: what else than the filter the token belongs to.
    """
    check_limit(limit, most)
    dialect = connection.dialect.name
    order = make_order(keys, selection.ties, dialect)
    conditions = list(where)
    if tree is not None:
        conditions.append(Compiler(selection.language, text, dialect).where(tree))
    tied = binding(str(selection.source.description), text, *bound)
    if after is not None:
        conditions.append(order.beyond(decode(after, tied, [part.kind for part in order.parts])))
    query = sa.select(*(part.column for part in order.parts), *selection.identity).select_from(order.joined(selection.source)).where(*conditions)
    rows = connection.execute(query.order_by(*order.sorting()).limit(limit + 1)).all()
    page, following = page_of(rows, limit, tied, len(order.parts))
    return [tuple(row[len(order.parts):]) for row in page], following


def written(numbers: Sequence[int]) -> sa.BindParameter[int]:
    """Numbers for IN as part of the statement, of which there may be more than parameters."""
    return sa.bindparam("numbers", numbers, sa.BigInteger, expanding=True, literal_execute=True, unique=True)


def conditions(node: Node | None) -> Iterator[Condition]:
    """All conditions of a tree."""
    if isinstance(node, Condition):
        yield node
    elif isinstance(node, Not):
        yield from conditions(node.item)
    elif isinstance(node, And | Or):
        for item in node.items:
            yield from conditions(item)
