"""How a search of runs is carried out, so that a page costs about what it holds, among a million runs too.

An order by start or by a metric is an index that can be walked until the page is full. Walking is cheap when many runs
match and dear when few do; then the few are taken from the filter's own index (a metric's range, a param's or tag's value,
a small experiment) and sorted. Which of the two it will be is not known before, so the candidates are counted up to a
bound, and the walk is given up once it has cost as much as sorting them.
"""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from davy.schema.tables import SHORT, is_short, latest_metrics, runs
from davy.search.compiler import Compiler, value_and_nan
from davy.search.fields import Attribute, Keyed
from davy.search.joins import Walked
from davy.search.order import Order, Part, make_order
from davy.search.select import written
from davy.search.tree import Condition, conjuncts
from davy.tracking.languages import METRICS, RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from davy.search.language import Check, SortKey
    from davy.search.tree import Node

FEW_SCOPES, FEW_VALUES = 8, 100
TIES = (Part(runs.c.start_time, True, "integer"), Part(runs.c.run_id, False, "text"))
_RANGES = ("=", "<", "<=", ">", ">=", "IN", "BETWEEN")
_PRESENT = ("!=", "NOT IN", "NOT BETWEEN", "IS NOT NULL", *_RANGES)


class Limits(NamedTuple):
    """When to do what.

    Attributes:
        small: so few candidates are sorted at once.
        bound: how far candidates are counted.
        patience: how many entries of a metric's index are walked where there are more candidates, before sorting them after all.
        scattered: how many runs are read in the order of their start, one behind the other, while one candidate is read and sorted.
        stretch: how many entries the first stretch of a walk has at least.
    """

    small: int = 2_000
    bound: int = 10_000
    patience: int = 12_000
    scattered: int = 3
    stretch: int = 1_000


LIMITS = Limits()


class Scope(NamedTuple):
    """The experiments (None: all) and stages whose runs are asked for."""

    experiments: tuple[int, ...] | None
    stages: tuple[str, ...]

    def conditions(self, *, walked: bool = True) -> list[sa.ColumnElement[bool]]:
        """Of the row; not `walked`, SQLite does not think of their index."""
        found: list[sa.ColumnElement[bool]] = []
        if self.experiments is not None:
            column = runs.c.experiment_id if walked else runs.c.experiment_id + 0
            found.append(column == self.experiments[0] if len(self.experiments) == 1 else column.in_(written(self.experiments)))
        if len(self.stages) == 1:
            found.append(runs.c.lifecycle_stage == self.stages[0])
        return found


class Driver(NamedTuple):
    """Where candidates can be taken from: rows of another table, or the scope itself, and how many there are, up to the bound.

    Attributes:
        held: which of the filters is true of all of them.
    """

    rows: sa.FromClause | None
    where: tuple[sa.ColumnElement[bool], ...]
    size: int
    held: int | None = None


class Walk(NamedTuple):
    """An index to be walked: the first sort key's column of `table`, among the rows of `prefix`."""

    table: sa.FromClause
    prefix: tuple[sa.ColumnElement[bool], ...]
    column: sa.ColumnElement[Any]
    source: sa.FromClause
    where: tuple[sa.ColumnElement[bool], ...]


def _is_range(check: Check) -> bool:
    """Whether it is a small part of a metric's index; a long list is not, and would come twice."""
    return check.op in _RANGES and len(check.values) <= FEW_VALUES


def _is_short(check: Check) -> bool:
    """Whether the index of a param's or tag's values has all that it holds of."""
    return check.op in ("=", "IN") and len(check.values) <= FEW_VALUES and all(len(value) <= SHORT for value in check.values)


class Plan:
    """One search.

    Args:
        text, tree: the filter.
        keys: the order, without the ties that end it.
        more: further conditions on the run.
    """

    def __init__(self, connection: sa.Connection, scope: Scope, text: str, tree: Node | None, keys: Sequence[SortKey],
                 more: Sequence[sa.ColumnElement[bool]] = ()) -> None:
        self.connection, self.scope, self.text, self.tree, self.keys, self.more = connection, scope, text, tree, tuple(keys), tuple(more)
        self.dialect = connection.dialect.name
        compiler = Compiler(RUNS, text, self.dialect)
        self.compiler = compiler
        found = [RUNS.check(text, node) if isinstance(node, Condition) else None for node in conjuncts(tree)]
        self.checks = {place: check for place, check in enumerate(found) if check is not None}
        self.filters = [compiler.where(node) for node in conjuncts(tree)]
        self.order = make_order(self.keys, TIES, self.dialect)
        self.metric = bool(self.keys) and self.keys[0].target.field is METRICS

    def rows(self, count: int, last: Sequence[Any] | None) -> list[Any]:
        """The first `count` rows of sort keys behind `last`; a row's last key is the run's id."""
        if self.scope.experiments == ():
            return []
        drivers = list(self._drivers())
        driver = min(drivers, key=lambda found: found.size)
        starts = not self.keys or self.keys[0].target.field is RUNS.attributes["start_time"]
        if driver.size <= LIMITS.small or not (self.metric or starts):
            return self._sorted(driver, count, last)
        few = driver.size <= LIMITS.bound
        if self.metric:
            return self._by_metric(drivers, driver.size if few else LIMITS.patience, count, last)
        patience = driver.size if few else LIMITS.patience * LIMITS.scattered if len(drivers) > 1 else None
        return self._by_start(drivers, patience, count, last)

    def _drivers(self) -> Iterator[Driver]:
        yield Driver(None, (), self._count(runs, self.scope.conditions(), LIMITS.bound + 1))
        for place, check in self.checks.items():
            field, key = check.target.field, check.target.key
            if isinstance(field, Attribute) and field.under is not None:
                field, key = field.under
            if isinstance(field, Keyed) and (_is_range(check) if field is METRICS else _is_short(check)):
                rows = field.table.alias()
                where = (self.compiler.within(rows, check, field, key), *([] if field is METRICS else [is_short(rows.c.value)]))
                yield Driver(rows, where, self._count(rows, where, LIMITS.bound + 1), place)
            elif field is RUNS.attributes["run_id"] and check.op in ("=", "IN"):
                yield Driver(runs, (), len(check.values))

    def _cheapest(self, drivers: Sequence[Driver]) -> Driver:
        """The candidates that cost least to sort. Those of the scope, the first, lie side by side, the others anywhere."""
        scope = best = drivers[0]
        least: int | None = None
        for driver in drivers[1:]:
            most = None if least is None else least + 1
            size = driver.size if driver.rows is None or driver.size <= LIMITS.bound else self._count(driver.rows, driver.where, most)
            if least is None or size < least:
                best, least = driver, size
        if least is not None and self._count(runs, self.scope.conditions(), least * LIMITS.scattered) < least * LIMITS.scattered:
            return scope
        return best

    def _count(self, table: sa.FromClause, where: Sequence[sa.ColumnElement[bool]], most: int | None) -> int:
        some = sa.select(sa.literal_column("1")).select_from(table).where(*where).limit(most).subquery()
        return int(self.connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0)

    def _sorted(self, driver: Driver, count: int, last: Sequence[Any] | None) -> list[Any]:
        """Take all candidates and sort them."""
        source: sa.FromClause = runs
        where = [*self.scope.conditions(walked=driver.rows is None), *self.more, *(item for place, item in enumerate(self.filters) if place != driver.held)]
        if driver.rows is not None and driver.rows is not runs:
            candidates = self._candidates(driver.rows, driver.where)
            source = Walked(candidates, runs, candidates.c.run_id == runs.c.run_id)
        if last is not None:
            where.append(self.order.beyond(last))
        query = sa.select(*(part.column for part in self.order.parts)).select_from(self.order.joined(source)).where(*where)
        return list(self.connection.execute(query.order_by(*self.order.sorting()).limit(count)))

    def _candidates(self, rows: sa.FromClause, where: Sequence[sa.ColumnElement[bool]]) -> sa.FromClause:
        """The runs of these rows. SQLite gets them in the order of their ids, so that whatever is looked up of them is read from front to back."""
        query = sa.select(rows.c.run_id).where(*where)
        if self.dialect == "sqlite":
            query = query.order_by(rows.c.run_id).limit(-1)
        return query.subquery()

    def _by_start(self, drivers: Sequence[Driver], patience: int | None, count: int, last: Sequence[Any] | None) -> list[Any]:
        found: list[Any] = []
        scopes = list(itertools.product(self.scope.experiments or (None,), self.scope.stages))
        if self.scope.experiments is None or len(scopes) > FEW_SCOPES:
            walks = [Walk(runs, (), runs.c.start_time, runs, tuple(self.scope.conditions(walked=False)))]
        else:
            walks = [Walk(runs, (runs.c.experiment_id == experiment, runs.c.lifecycle_stage == stage), runs.c.start_time, runs, ())
                     for experiment, stage in scopes]
        for walk in walks:
            walked = self._walk(walk, self.order, (), patience, count, last)
            if walked is None:
                return self._sorted(self._cheapest(drivers), count, last)
            found += walked
        if len(walks) > 1:
            for index, part in reversed(list(enumerate(self.order.parts))):
                found.sort(key=itemgetter(index), reverse=part.down)
        return found[:count]

    def _by_metric(self, drivers: Sequence[Driver], patience: int, count: int, last: Sequence[Any] | None) -> list[Any]:
        """First the runs whose metric is a number, in its index's order; then those with NaN; then those without it."""
        key = self.keys[0]
        rest = make_order(self.keys[1:], TIES, self.dialect)
        same = [check for check in self.checks.values() if check.target == key.target]
        rank = 0 if last is None else last[0]
        absent = any(check.op == "IS NULL" for check in same)
        behind = None if last is None else last[2:]
        found: list[Any] = []
        rows = latest_metrics.alias()
        value, nan, number = value_and_nan(rows, METRICS, key.target.function)
        curve = rows.c.key == key.target.key
        if rank == 0 and not absent:
            prefix = (curve, number, *(self.compiler.compare(value, check) for check in same if _is_range(check)))
            walk = Walk(rows, prefix, value, Walked(rows, runs, rows.c.run_id == runs.c.run_id), tuple(self.scope.conditions(walked=False)))
            order = Order((Part(value, key.down, "float"), *rest.parts), rest.joins)
            walked = self._walk(walk, order, (0,), patience, count, last)
            if walked is None:
                return self._sorted(self._cheapest(drivers), count, last)
            found = walked
        if len(found) < count and rank <= 1 and not absent and not any(check.op in _RANGES for check in same):
            equals = self._rest()._sorted(Driver(rows, (curve, nan), 0), count - len(found), behind if rank == 1 else None)
            found += [(1, 0.0, *row) for row in equals]
        if len(found) < count and not any(check.op in _PRESENT for check in same):
            without = self._rest(sa.not_(sa.exists().where(rows.c.run_id == runs.c.run_id, curve)))
            found += [(2, 0.0, *row) for row in without.rows(count - len(found), behind if rank == 2 else None)]
        return found

    def _rest(self, *more: sa.ColumnElement[bool]) -> Plan:
        """The same search among runs that are equal in the first key."""
        return Plan(self.connection, self.scope, self.text, self.tree, self.keys[1:], [*self.more, *more])

    def _walk(self, walk: Walk, order: Order, lead: tuple[Any, ...], patience: int | None, count: int, last: Sequence[Any] | None) -> list[Any] | None:
        """Walk the index until `count` rows are found or it ends; None when patience did before.

        With patience it goes in stretches, each up to four times the one before and ending where the sort key's value changes.
        """
        where = [*walk.prefix, *walk.where, *self.filters, *self.more]
        if last is not None:
            where.append(order.beyond(last[len(lead):]))
        query = sa.select(*(part.column for part in order.parts)).select_from(order.joined(walk.source)).where(*where).order_by(*order.sorting())
        found: list[Any] = []
        down, column = order.parts[0].down, walk.column
        position: Any = None if last is None else last[len(lead)]
        begun, stretch, walked = False, max(4 * count, LIMITS.stretch), 0
        while True:
            edge = None if patience is None else self._edge(walk, down, position, begun, stretch)
            asked = query.limit(count - len(found))
            if begun:
                asked = asked.where(column < position if down else column > position)
            if edge is not None:
                asked = asked.where(column >= edge if down else column <= edge)
            found += ((*lead, *row) for row in self.connection.execute(asked))
            walked += stretch
            if len(found) >= count or edge is None:
                return found
            if patience is not None and walked >= patience:
                return None
            position, begun, stretch = edge, True, stretch * 4 if patience is None else min(stretch * 4, patience - walked)

    def _edge(self, walk: Walk, down: bool, position: Any, begun: bool, stretch: int) -> Any:
        """The sort key's value so many index entries on; None where fewer are left."""
        query = sa.select(walk.column).where(*walk.prefix).order_by(walk.column.desc() if down else walk.column.asc()).limit(1).offset(stretch)
        if position is not None:
            at = walk.column
            query = query.where((at < position if begun else at <= position) if down else (at > position if begun else at >= position))
        return self.connection.scalar(query)
