"""Runs as a data frame: one row each, a column for every metric, param and tag that any of them has.

The columns are `run_id`, `name`, `status`, `experiment`, `user`, `started` and `ended` (UTC), then `metrics.x` (the latest
value, NaN as itself), `params.y` and `tags.z`, each kind by name; what a run lacks is null.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl
import sqlalchemy as sa

from davy.schema.tables import experiments, latest_metrics, params, runs, tags
from davy.tracking.search import MOST, search_run_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BATCH = 5_000
_LOOKUP = 500
_HEAD: dict[str, Any] = {"run_id": pl.String, "name": pl.String, "status": pl.String, "experiment": pl.String, "user": pl.String,
         "started": pl.Datetime("us", "UTC"), "ended": pl.Datetime("us", "UTC")}


def runs_frame(connection: sa.Connection, *, experiments: Sequence[str | int] | None = None, filter: str = "", order_by: Sequence[str] = (),
               limit: int | None = None) -> pl.DataFrame:
    """All runs that match, in one frame; arguments as for `search_runs`."""
    batches = list(frames(connection, experiments=experiments, filter=filter, order_by=order_by, limit=limit, batch=MOST))
    return _arranged(pl.concat(batches, how="diagonal", rechunk=True) if len(batches) > 1 else batches[0])


def write_runs(connection: sa.Connection, path: Path, folder: Path, *, csv: bool, **asked: Any) -> int:
    """Write all runs that match to a CSV or Parquet file, a batch in memory at a time; returns how many there are.

    Args:
        folder: an empty one for what is needed meanwhile.
    """
    count, parts = 0, []
    for number, frame in enumerate(frames(connection, batch=BATCH, **asked)):
        count += frame.height
        part = folder / f"{number:06}.parquet"
        frame.write_parquet(part)
        parts.append(pl.scan_parquet(part))
    whole = pl.concat(parts, how="diagonal")
    whole = whole.select(_columns(whole.collect_schema().names()))
    if csv:
        whole.sink_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ")
    else:
        whole.sink_parquet(path)
    return count


def frames(connection: sa.Connection, *, experiments: Sequence[str | int] | None, filter: str, order_by: Sequence[str], limit: int | None,
           batch: int) -> Iterator[pl.DataFrame]:
    """The runs that match, a batch at a time; at least one frame, which may be empty."""
    after, left = None, math.inf if limit is None else limit
    while True:
        page = search_run_ids(connection, experiments=experiments, filter=filter, order_by=order_by, limit=int(min(batch, left)), after=after)
        yield _frame(connection, page.ids)
        after, left = page.next, left - len(page.ids)
        if after is None or left <= 0:
            return


def _frame(connection: sa.Connection, ids: Sequence[str]) -> pl.DataFrame:
    heads: list[Any] = [None] * len(ids)
    place = {run_id: index for index, run_id in enumerate(ids)}
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(ids), _LOOKUP):
        some = ids[start:start + _LOOKUP]
        head = sa.select(runs.c.run_id, runs.c.name, runs.c.status, experiments.c.name.label("experiment"), runs.c.user_id, runs.c.start_time * 1000,
                         runs.c.end_time * 1000).join(experiments).where(runs.c.run_id.in_(some))
        for row in connection.execute(head):
            heads[place[row[0]]] = row
        number = sa.case((latest_metrics.c.is_nan, None), else_=latest_metrics.c.value)
        for kind, table, value in (("metrics", latest_metrics, number), ("params", params, params.c.value), ("tags", tags, tags.c.value)):
            rows = connection.execute(sa.select(table.c.run_id, table.c.key, value).where(table.c.run_id.in_(some)))
            for run_id, key, found in rows:
                name = f"{kind}.{key}"
                column = columns.get(name)
                if column is None:
                    column = columns[name] = [None] * len(ids)
                column[place[run_id]] = math.nan if found is None else found
    facts = dict(zip(_HEAD, zip(*heads, strict=True), strict=True)) if heads else dict.fromkeys(_HEAD, ())
    made = [pl.Series(name, facts[name], dtype=kind) for name, kind in _HEAD.items()]
    made += [pl.Series(name, values, dtype=pl.Float64 if name.startswith("metrics.") else pl.String) for name, values in columns.items()]
    return pl.DataFrame(made)


def _arranged(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(_columns(frame.columns))


def _columns(names: Sequence[str]) -> list[str]:
    return [*_HEAD, *sorted(name for name in names if name not in _HEAD)]
