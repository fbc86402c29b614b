"""Points that an older Davy has stored, a row each, are all there after the upgrade, and nothing else is."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from curves_kit import put_points
from databases import ON_POSTGRES, open_at, url_of
from davy.schema import MIGRATIONS
from davy.schema.tables import latest_metrics, metric_chunks
from davy.tracking.history import metric_history, metric_keys
from davy.tracking.runs import get_run

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[int, int, float, bool]
ONE, TWO = "a" * 32, "b" * 32


def _curves() -> dict[tuple[str, str], list[Row]]:
    """Curves of every length that matters, in the order in which they came."""
    rng = random.Random(5)
    values = (0.0, -1.5, math.inf, -math.inf, 2.5, 1e-300)

    def rows(count: int, nan: float) -> list[Row]:
        found: dict[Row, None] = {}
        while len(found) < count:
            missing = rng.random() < nan
            value = 0.0 if missing else rng.choice(values) if rng.random() < 0.2 else rng.random()
            found[rng.randrange(-count, count), rng.randrange(0, 5), value, missing] = None
        return list(found)

    return {(ONE, "loss"): rows(2500, 0.1), (ONE, "exact"): rows(1000, 0.0), (ONE, "one more"): rows(1001, 0.0), (TWO, "loss"): rows(1, 0.0),
            (TWO, "none"): rows(3, 1.0), (TWO, "step zero"): [(0, time, 0.5, False) for time in range(-50, 0)]}


def _old(path: Path, curves: dict[tuple[str, str], list[Row]]) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    url = sa.make_url(url_of(path, empty=True))
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg") if ON_POSTGRES else url)
    names = ("run_id", "key", "step", "timestamp", "value", "is_nan")
    metrics, latest = (sa.table(name, *map(sa.column, names)) for name in ("metrics", "latest_metrics"))
    runs = sa.table("runs", *map(sa.column, ("run_id", "experiment_id", "name", "user_id", "status", "start_time", "lifecycle_stage", "artifact_uri")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for run_id in (ONE, TWO):
            connection.execute(sa.insert(runs).values((run_id, 0, "r", "ada", "FINISHED", 1, "active", "mlflow-artifacts:/0")))
        for (run_id, key), rows in curves.items():
            connection.execute(sa.insert(metrics), [dict(zip(names, (run_id, key, *row), strict=True)) for row in rows])
            connection.execute(sa.insert(latest).values((run_id, key, *max(rows))))
    engine.dispose()


def _told(rows: list[Row]) -> dict[str, Any]:
    numbers = [value for _, _, value, missing in rows if not missing]
    step, timestamp, value, is_nan = max(rows)
    return {"step": step, "timestamp": timestamp, "value": value, "is_nan": is_nan, "lowest": min(numbers, default=None),
            "highest": max(numbers, default=None), "last": value, "last_is_nan": is_nan, "newest": max(time for _, time, _, _ in rows), "count": len(rows)}


def test_an_upgrade_loses_no_point(tmp_path: Path) -> None:
    curves = _curves()
    _old(tmp_path / "old.db", curves)
    database = open_at(tmp_path / "old.db")
    with database.read() as connection:
        for (run_id, key), rows in curves.items():
            found = metric_history(connection, run_id, key)
            plain = [(step, time // 1000, 0.0 if value != value else value, value != value)
                     for step, time, value in zip(found.steps, found.times, found.values, strict=True)]
            assert plain == sorted(rows)
            row = connection.execute(sa.select(latest_metrics).where(latest_metrics.c.run_id == run_id, latest_metrics.c.key == key)).one()
            assert _told(rows).items() <= row._mapping.items()
        assert metric_keys(connection, TWO) == {"loss": 1, "none": 3, "step zero": 50}
        assert get_run(connection, ONE).metrics["exact"] == max(curves[ONE, "exact"])[2]
    database.close()


def test_curves_go_on_after_an_upgrade(tmp_path: Path) -> None:
    curves = _curves()
    _old(tmp_path / "old.db", curves)
    database = open_at(tmp_path / "old.db")
    for (run_id, key), rows in curves.items():
        again = [(key, math.nan if missing else value, step, time) for step, time, value, missing in rows]
        for step in (5000, 5001):
            with database.begin() as connection:
                put_points(connection, run_id, [*again, (key, -7.0, step, 9)])
    with database.read() as connection:
        for (run_id, key), rows in curves.items():
            assert metric_keys(connection, run_id)[key] == len(rows) + 2
            assert metric_history(connection, run_id, key).total == len(rows) + 2
            counts = connection.scalars(sa.select(metric_chunks.c.count).where(metric_chunks.c.run_id == run_id, metric_chunks.c.key == key)).all()
            assert sum(counts) == len(rows) + 2
    database.close()
