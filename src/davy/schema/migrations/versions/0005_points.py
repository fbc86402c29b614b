"""Points of metrics move from a row each into packed chunks, and each curve gets its lowest, highest and last value."""

from __future__ import annotations

import math
import struct
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CHUNK, _BATCH = 1000, 200
_POINT = struct.Struct("<qqd")
_CHUNKS = ("run_id", "key", "number", "count", "first_step", "last_step", "first_time", "last_time", "data")
_CURVES = ("run_id", "key", "step", "timestamp", "value", "is_nan", "lowest", "highest", "last", "last_is_nan", "newest", "count", "chunk", "filled")


def upgrade() -> None:
    """Make the new tables, fill them from the points in one pass, and drop the old ones."""
    connection = op.get_bind()
    op.drop_table("latest_metrics")
    _make()
    old = sa.table("metrics", *(sa.column(name) for name in ("run_id", "key", "step", "timestamp", "value", "is_nan")))
    chunks, curves = sa.table("metric_chunks", *map(sa.column, _CHUNKS)), sa.table("latest_metrics", *map(sa.column, _CURVES))
    query = sa.select(*old.c).order_by(old.c.run_id, old.c.key, old.c.step, old.c.timestamp, old.c.value, old.c.is_nan)
    rows = connection.execute(query.execution_options(stream_results=True, yield_per=10_000))
    waiting: list[dict[str, Any]] = []
    for (run_id, key), points in groupby(rows, lambda row: (row[0], row[1])):
        curve: dict[str, Any] = {}
        for number, chunk in enumerate(_chunks(points)):
            waiting.append(_chunk(run_id, key, number, chunk))
            _extend(curve, number, chunk)
            if len(waiting) == _BATCH:
                connection.execute(sa.insert(chunks), waiting)
                waiting = []
        connection.execute(sa.insert(curves), {"run_id": run_id, "key": key, **curve})
    rows.close()
    if waiting:
        connection.execute(sa.insert(chunks), waiting)
    op.drop_table("metrics")


def _chunks(rows: Iterable[Any]) -> Iterator[list[tuple[int, int, float]]]:
    chunk: list[tuple[int, int, float]] = []
    for _, _, step, timestamp, value, is_nan in rows:
        chunk.append((step, timestamp, math.nan if is_nan else value + 0.0))
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _chunk(run_id: str, key: str, number: int, points: list[tuple[int, int, float]]) -> dict[str, Any]:
    times = [time for _, time, _ in points]
    return {"run_id": run_id, "key": key, "number": number, "count": len(points), "first_step": points[0][0], "last_step": points[-1][0],
            "first_time": min(times), "last_time": max(times), "data": b"".join(_POINT.pack(*point) for point in points)}


def _extend(curve: dict[str, Any], number: int, points: list[tuple[int, int, float]]) -> None:
    """Take a further chunk into the row of its curve; the points come in the order by which the latest is the last."""
    step, time, value = points[-1]
    shown, is_nan = (0.0, True) if math.isnan(value) else (value, False)
    numbers = [value for _, _, value in points if not math.isnan(value)]
    for name, choose in (("lowest", min), ("highest", max)):
        known = curve.get(name)
        curve[name] = choose(numbers if known is None else [*numbers, known], default=None)
    curve |= {"step": step, "timestamp": time, "value": shown, "is_nan": is_nan, "last": shown, "last_is_nan": is_nan,
              "newest": max(curve.get("newest", time), *(time for _, time, _ in points)), "count": curve.get("count", 0) + len(points),
              "chunk": number, "filled": len(points)}


def _make() -> None:
    op.create_table(
        "metric_chunks",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("first_time", sa.BigInteger(), nullable=False),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_metric_chunks_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", "number", name=op.f("pk_metric_chunks")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "latest_metrics",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("is_nan", sa.Boolean(), nullable=False),
        sa.Column("lowest", sa.Float(precision=53), nullable=True),
        sa.Column("highest", sa.Float(precision=53), nullable=True),
        sa.Column("last", sa.Float(precision=53), nullable=False),
        sa.Column("last_is_nan", sa.Boolean(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("filled", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_latest_metrics_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("pk_latest_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_latest_metrics_order", "latest_metrics", ["key", "value", "run_id"], unique=False)
    op.create_index("ix_latest_metrics_lowest", "latest_metrics", ["key", "lowest", "run_id"], unique=False)
    op.create_index("ix_latest_metrics_highest", "latest_metrics", ["key", "highest", "run_id"], unique=False)
    op.create_index("ix_latest_metrics_last", "latest_metrics", ["key", "last_is_nan", "last", "run_id"], unique=False)
