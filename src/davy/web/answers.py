"""What the versions of a model have answered lately, from the log of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.serving.predictions import read_predictions

if TYPE_CHECKING:
    from davy.home import Home

PERIOD = 24 * 3_600_000_000
NEWEST = 20


def requests(home: Home, model: str, start: int) -> dict[int, dict[str, Any]]:
    """Per version that has answered since `start`: how many, latencies in microseconds, the newest prediction's time and id."""
    frames = read_predictions(home, model, start=start)
    if not frames:
        return {}
    import polars as pl

    columns = ["version", "time", "prediction", "latency_us"]
    joined = pl.concat([frame.select(columns) for frame in frames.values()]).sort("time", "prediction")
    summed = joined.group_by("version").agg(
        pl.len().alias("count"), pl.col("latency_us").quantile(0.5).alias("p50"), pl.col("latency_us").quantile(0.99).alias("p99"),
        pl.col("time").last().dt.epoch("us").alias("newest"), pl.col("prediction").last().alias("newest_id"))
    return {row.pop("version"): row for row in summed.to_dicts()}


def newest_predictions(home: Home, name: str, now: int, version: int | None = None) -> list[dict[str, Any]]:
    """The last predictions of the last day, or of the last 30 days when that had none; the newest first."""
    for days in (1, 30):
        frames = read_predictions(home, name, start=now - days * PERIOD, version=version)
        if frames:
            import polars as pl

            columns = ["prediction", "time", "version", "arm", "output", "output_json", "latency_us"]
            joined = pl.concat([frame.select(columns) for frame in frames.values()]).sort("time", "prediction", descending=True).head(NEWEST)
            return joined.with_columns(pl.col("time").dt.epoch("us")).to_dicts()
    return []
