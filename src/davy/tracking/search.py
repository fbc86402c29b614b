"""Finding runs: by experiment, status and tag, in the order of a metric or of time, page by page.

A page's token holds the last row's sort keys, so that turning pages costs the same at the end as at the
beginning and skips nothing when runs are added meanwhile.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.digest import digest_json
from davy.errors import InvalidInput
from davy.schema.tables import experiments, latest_metrics, runs, tags
from davy.tracking.records import RunRecord, Status
from davy.tracking.runs import read_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 50_000


class RunPage(msgspec.Struct, frozen=True):
    """Some runs, and the token of the next page (None: this was the last)."""

    runs: list[RunRecord]
    next: str | None


def search_runs(connection: sa.Connection, *, experiment: str | Sequence[str] | None = None, status: Status | None = None,
                with_tags: Mapping[str, str] | None = None, order: str | None = None, ascending: bool = False, deleted: bool = False,
                limit: int = 100, after: str | None = None) -> RunPage:
    """A page of runs.

    Args:
        experiment: the name, or names, of experiments (default: all that are active).
        with_tags: only runs that have all these tags.
        order: a metric's key; runs without it come last, those with NaN before them. Default: by start, the newest first.
        ascending: lowest value, or oldest, first.
        deleted: the deleted runs instead of the active ones.
        after: the token of the page before.
    """
    if not 1 <= limit <= MOST:
        raise InvalidInput(f"limit={limit} was asked for.", f"A page has 1 to {MOST} runs.", "Turn pages with after=page.next.")
    query, keys = _ordered(order, ascending)
    query = query.where(runs.c.lifecycle_stage == ("deleted" if deleted else "active"))
    names = [experiment] if isinstance(experiment, str) else experiment
    if names is not None:
        query = query.where(runs.c.experiment_id.in_(sa.select(experiments.c.experiment_id).where(experiments.c.name.in_(names))))
    if status is not None:
        query = query.where(runs.c.status == status)
    for key, value in (with_tags or {}).items():
        query = query.where(sa.exists().where(tags.c.run_id == runs.c.run_id, tags.c.key == key, tags.c.value == value))
    bound = digest_json([names, status, dict(with_tags or {}), order, ascending, deleted])[7:23]
    if after is not None:
        query = query.where(_beyond(keys, _read_token(after, bound, len(keys))))
    rows = connection.execute(query.order_by(*(key.desc() if down else key.asc() for key, down in keys)).limit(limit + 1)).all()
    page = rows[:limit]
    following = _token(bound, page[-1][:-1]) if len(rows) > limit else None
    return RunPage(read_runs(connection, [row.run_id for row in page]), following)


def children(connection: sa.Connection, run_id: str) -> list[RunRecord]:
    """The active runs nested in this one, the oldest first."""
    from davy.tracking.records import PARENT

    query = sa.select(runs.c.run_id).join(tags, tags.c.run_id == runs.c.run_id).where(
        tags.c.key == PARENT, tags.c.value == run_id, runs.c.lifecycle_stage == "active").order_by(runs.c.start_time, runs.c.run_id)
    return read_runs(connection, connection.scalars(query).all())


def _ordered(order: str | None, ascending: bool) -> tuple[sa.Select[Any], list[tuple[sa.ColumnElement[Any], bool]]]:
    """The query, its sort keys first and the run's id last; each key never null, with whether it descends."""
    newest: list[tuple[sa.ColumnElement[Any], bool]] = [(runs.c.start_time, not (ascending and order is None)), (runs.c.run_id, False)]
    if order is None:
        return sa.select(runs.c.start_time, runs.c.run_id.label("tie"), runs.c.run_id), newest
    metric = latest_metrics.alias()
    source = runs.outerjoin(metric, sa.and_(metric.c.run_id == runs.c.run_id, metric.c.key == order))
    rank = sa.case((metric.c.is_nan.is_(None), 2), (metric.c.is_nan.is_(True), 1), else_=0)
    value = sa.func.coalesce(metric.c.value, 0.0)
    columns = sa.select(rank.label("rank"), value.label("sorted"), runs.c.start_time, runs.c.run_id.label("tie"), runs.c.run_id).select_from(source)
    return columns, [(rank, False), (value, not ascending), *newest]


def _beyond(keys: list[tuple[sa.ColumnElement[Any], bool]], last: list[Any]) -> sa.ColumnElement[bool]:
    """Rows that sort strictly behind `last`."""
    options = []
    for index, (key, down) in enumerate(keys):
        same = [earlier == value for (earlier, _), value in zip(keys[:index], last[:index], strict=True)]
        options.append(sa.and_(*same, key < last[index] if down else key > last[index]))
    return sa.or_(*options)


def _token(bound: str, last: Sequence[Any]) -> str:
    parts = [value.hex() if isinstance(value, float) else value for value in last]
    return base64.urlsafe_b64encode(msgspec.json.encode([bound, *parts])).decode()


def _read_token(token: str, bound: str, count: int) -> list[Any]:
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(token), type=list[Any])
        if len(found) != count + 1 or found[0] != bound:
            raise ValueError
        return [found[1], float.fromhex(found[2]), *found[3:]] if count == 4 else found[1:]
    except (ValueError, TypeError, binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidInput(f"{token[:60]!r} is not a page of this search.", "A page's token fits the search that gave it, unchanged.",
                           "Start again without `after`.") from error
