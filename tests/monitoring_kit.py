"""A home in which a model without views has been trained, so that tests say themselves what was served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.core.clock import new_id
from davy.core.fields import Time
from davy.features.define import Resolver, Stream, View, agg, derive
from davy.features.definition import FeatureSet
from davy.monitoring.collect import Collector
from davy.monitoring.references import from_rows, put_reference
from davy.registry.definitions import TrainingSetRecord, put_feature_set, put_training_set
from davy.registry.models import register, store_files
from davy.registry.signature import Output, Signature
from davy.serving.predictions import PredictionLog, PredictionRecord, flush_predictions, folder_of
from events_kit import HOUR, NOON, SECOND, driven_home

if TYPE_CHECKING:
    from pathlib import Path

    from davy.features.kpi import Kpi
    from davy.project import Project

MINUTE, DAY = 60 * SECOND, 24 * HOUR
SHOPS = ("books", "food", "shoes")
NAME = "fraud"


payments = Stream("payments", time="at", fields={"card": str, "amount": float})


class Card(View):
    stream, entity = payments, "card"
    n_1h = agg.count(window="1h")


@derive
def hour(asked):  # type: ignore[no-untyped-def]
    return asked.hour("UTC")


def feature_set() -> FeatureSet:
    request: dict[str, Any] = {"amount": float, "items": int, "shop": str, "asked": Time}
    return Resolver([Card], [hour]).feature_set([Card, "amount", "items", "shop", hour, "card"], entities=["card"], request=request)


def vectors(count: int, seed: int = 0, *, shift: float = 0.0, start: int = NOON, pace: int = MINUTE) -> pl.DataFrame:
    """What was asked: columns of the feature set's outputs, and `time`."""
    random = np.random.default_rng(seed)
    times = start + np.arange(count) * pace
    return pl.DataFrame({"n_1h": np.zeros(count, dtype=np.int64), "amount": random.normal(size=count) + shift,
                         "items": random.poisson(2, count), "shop": [SHOPS[i] for i in random.integers(0, 3, count)],
                         "hour": (times // HOUR % 24).astype(np.int64), "card": [f"c{i}" for i in random.integers(0, 40, count)], "time": times})


class Served:
    """A home with a model of two versions, both trained on three weeks before noon."""

    def __init__(self, root: Path, *, output: Output = "probability", training_rows: int = 20_000) -> None:
        self.home = driven_home(root)
        self.features = feature_set()
        self.log = PredictionLog(folder_of(self.home))
        self.collector = Collector(self.home)
        span = 21 * DAY
        trained = vectors(training_rows, 99, start=NOON - span, pace=span // training_rows)
        digest = "sha256:" + "7" * 64
        names = {"shop": SHOPS, "card": sorted(f"c{i}" for i in range(40))}
        signature = Signature.of(self.features.outputs, self.features.kinds, names, output=output, classes=(0, 1) if output == "probability" else ())
        for _ in range(2):
            files = store_files(self.home.blobs, {"model.txt": b"a tree"})
            with self.home.database.begin() as connection:
                put_feature_set(connection, self.features, clock=self.home.clock)
                put_training_set(connection, TrainingSetRecord(digest, self.features.digest, training_rows, {}), clock=self.home.clock)
                register(connection, clock=self.home.clock, actor="tester", name=NAME, format="lightgbm", files=files, signature=signature,
                         feature_set=self.features, training_set=digest)
        put_reference(self.home, from_rows(trained, self.features, digest))

    def serve(self, frame: pl.DataFrame, *, version: int = 1, arm: str = "stable", outputs: Any = None, **changes: Any) -> list[PredictionRecord]:
        """Log an answer for each row."""
        records = []
        for index, row in enumerate(frame.iter_rows(named=True)):
            self.home.clock.set(row["time"])  # type: ignore[attr-defined]
            values = [row[name] for name in self.features.outputs]
            request = {"amount": row["amount"], "items": row["items"], "shop": row["shop"], "asked": row["time"]}
            output = 0.25 if outputs is None else outputs[index]
            record = PredictionRecord(new_id(self.home.clock), row["time"], row["time"] + 900, NAME, version, arm, False, row["card"] or "",
                                      self.features.digest, {"card": row["card"]}, request, {}, values, output, 900, 80, 200, "k")
            records.append(msgspec.structs.replace(record, **changes))
        self.log.append(records)
        return records

    def collect(self) -> int:
        """Count what is new."""
        return self.collector.collect().rows

    def settle(self) -> None:
        """Everything is in its table."""
        flush_predictions(self.home)

    def close(self) -> None:
        self.log.close()
        self.home.close()


def project_with(root: Path, features: FeatureSet, kpis: tuple[Kpi, ...] = ()) -> Project:
    """The project that declares the model, with an outcome that is true above 15 and final after two hours."""
    from davy.features.define import Model, Outcome
    from davy.features.definition import ModelSpec
    from davy.project import ModelDefinition, Project

    outcome = Outcome("delay", label=lambda delay: delay > 15, matures_after="2h")
    declared = Model(lambda data: data, entities=["card"], features=[], outcome=outcome, request={}, spine=None, kpis=kpis)
    return Project(root, models={NAME: ModelDefinition(ModelSpec(NAME, features, outcome.spec), declared)})
