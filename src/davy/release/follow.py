"""Following the prediction log of one release: first what is there, then what comes, each record once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from davy.release.evidence import Past, thresholds
from davy.serving.predictions import (
    ERROR,
    OK,
    TIMEOUT,
    PredictionRecord,
    decode,
    feature_sets_of,
    flush_predictions,
    flushing,
    folder_of,
    logs_of,
    moved_of,
    table_name,
)
from davy.store.wal import Tail

if TYPE_CHECKING:
    import polars as pl

    from davy.home import Home

MOST_PAST, LEAST_PAST = 20_000, 200
_WANTED = ("prediction", "time", "logged_time", "version", "arm", "pinned", "routing_key", "latency_us", "features_us", "model_us", "share", "status",
           "release", "answered")


class Follower:
    """The records of one release as they are logged.

    Args:
        model, release: whose.
    """

    def __init__(self, home: Home, model: str, release: str) -> None:
        self._home, self._model, self._release = home, model, release
        self._mark = release.encode()
        self._tails: dict[str, Tail] = {}

    def begin(self) -> list[PredictionRecord]:
        """All that has been logged so far, in the order of logging. Nothing is moved into tables meanwhile."""
        folder = folder_of(self._home)
        folder.mkdir(parents=True, exist_ok=True)
        with flushing(folder):
            self._tails = {directory.name: Tail(directory, moved_of(directory)) for directory in logs_of(self._home)}
            fresh = self.poll()
            stored = [record for digest in feature_sets_of(self._home, self._model) for record in self._stored(digest)]
        known = {record.id for record in stored}
        return sorted([*stored, *(record for record in fresh if record.id not in known)], key=lambda record: (record.logged, record.id))

    def poll(self) -> list[PredictionRecord]:
        """What has come since the last call."""
        present = {}
        with suppress(FileNotFoundError):
            present = {directory.name: directory for directory in logs_of(self._home)}
        for name, directory in present.items():
            if name not in self._tails:
                self._tails[name] = Tail(directory)  # from its first record on: what was moved already hasn't been read
        found = []
        for name, tail in list(self._tails.items()):
            found += [decode(payload, name) for _, payload in tail.read() if self._mark in payload]
            if name not in present:
                tail.close()
                del self._tails[name]
        return [record for record in found if record.release == self._release and record.model == self._model]

    @property
    def missed(self) -> bool:
        """Whether records were moved into tables before they were read, so that one must begin anew."""
        return any(tail.missed for tail in self._tails.values())

    def close(self) -> None:
        """Let go of the files."""
        for tail in self._tails.values():
            tail.close()

    def _stored(self, digest: str) -> list[PredictionRecord]:
        import polars as pl

        frame = _select(self._home, self._model, digest, pl.col("release") == self._release)
        if frame is None:
            return []
        return [PredictionRecord(row["prediction"], row["time"], row["logged_time"], self._model, row["version"], row["arm"], row["pinned"],
                                 row["routing_key"], digest, {}, {}, {}, [], None, row["latency_us"], row["features_us"], row["model_us"], "", row["share"],
                                 row["status"], row["release"], row["answered"]) for row in frame.iter_rows(named=True)]


def past_of(home: Home, model: str, version: int) -> Past:
    """What the last requests of this version say, when there are enough; they are moved into tables first."""
    import polars as pl

    flush_predictions(home)
    own = (pl.col("version") == version) & ~pl.col("pinned") & pl.col("status").is_in([OK, ERROR, TIMEOUT]) & (pl.col("arm") != "shadow")
    frames = [frame for digest in feature_sets_of(home, model) if (frame := _select(home, model, digest, own)) is not None]
    if not frames:
        return Past()
    recent = pl.concat(frames).sort("logged_time", "prediction").tail(MOST_PAST)
    answered = recent.filter(pl.col("status") == OK)
    taken = (answered["features_us"] + answered["model_us"]).to_list()
    return Past(recent.height, recent.height - answered.height, thresholds(taken) if len(taken) >= LEAST_PAST else ())


def _select(home: Home, model: str, digest: str, wanted: pl.Expr) -> pl.DataFrame | None:
    """The plain columns of these rows, times as microseconds; None where nobody knows of releases yet."""
    import polars as pl

    table = home.table(table_name(model, digest))
    if not table.exists():
        return None
    defaults: dict[str, Any] = {"share": 1.0, "status": OK, "release": "", "answered": ""}
    known = table.schema
    lazy = table.scan().with_columns(
        (pl.col(name).fill_null(value) if name in known else pl.lit(value)).alias(name) for name, value in defaults.items())
    return table.collect(lazy.filter(wanted).select(_WANTED).with_columns(pl.col("time", "logged_time").dt.epoch("us")))
