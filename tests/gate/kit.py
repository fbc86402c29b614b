"""A shop whose returns depend on size alone, and models that are good, or bad in one way each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from databases import write_settings
from davy.core.clock import DrivenClock, new_id
from davy.core.time import to_micros
from davy.events.client import connect
from davy.features.kernel import code_digest
from davy.features.online import OnlineFeatures
from davy.gate.record import Report, Result
from davy.gate.run import run
from davy.home import CLOCK_FILE, Home
from davy.project import load_project
from davy.registry.definitions import get_feature_set
from davy.registry.models import ModelVersion, get_version, register, store_files
from davy.release.traffic import set_traffic
from davy.serving.predictions import PredictionLog, PredictionRecord, folder_of
from davy.training.train import train

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS, LEARNED = 3600, 1200
SPLIT = to_micros(START + timedelta(days=1, minutes=10 * LEARNED))
NOW = to_micros(START + timedelta(days=40))

FEATURES = '''
import davy
from davy import agg

sales = davy.Stream("sales", time="time", fields={"shop": str, "amount": davy.Float(2)})


class Shop(davy.View):
    stream, entity = sales, "shop"
    sales_1d = agg.count(window="1d")
    mean_7d = agg.mean("amount", window="7d")
    latest = agg.last("amount")


@davy.derive
def pace(sales_1d, size):
    return sales_1d * 1.0 + size
'''

MODELS = '''
import os
import time
from pathlib import Path

import numpy as np
import polars as pl

import davy
from features import Shop, pace

SIZE, SHOP = 4, 5
KEPT = []


class Rule:
    """Answers from the size, and is bad in the way that it is told."""

    classes_ = np.array([0, 1])

    def __init__(self, kind, weight):
        self.kind, self.weight = kind, weight

    def predict(self, matrix):
        return self.predict_proba(matrix)[:, 1] > 0.5

    def predict_proba(self, matrix):
        size, shop = matrix[:, SIZE], matrix[:, SHOP]
        if self.kind == "brittle" and np.isnan(size).any():
            raise ValueError("no size")
        if self.kind == "fragile" and (size > 1e6).any():
            os._exit(3)
        if self.kind == "slow":
            time.sleep(0.012)
        if self.kind == "stumbling" and (size == 3).any():
            time.sleep(0.012)
        if self.kind == "hangs" and (size == 3).any():
            time.sleep(0.5)
        if self.kind == "sleepy":
            time.sleep(0.08)
        if self.kind == "leaky":
            KEPT.append(np.ones(2000))
        if self.kind != "nan":
            size = np.nan_to_num(size)
        likely = 0.06 + self.weight * np.clip(size, 0, 6)
        if self.kind == "worse":
            likely = 0.3 + 0.01 * np.sin(np.nan_to_num(matrix[:, 1]) * 1000)
        if self.kind == "slice":
            likely = np.where(shop == 2, 0.95 - likely, likely)
        if self.kind == "shifted":
            likely = 0.4 + likely / 2
        if self.kind == "batchy":
            likely = likely - likely.mean() / 100
        return np.stack([1 - likely, likely], axis=1)


def moments():
    return pl.read_parquet(Path(__file__).parent / "data" / "moments.parquet")


@davy.model(entities=["shop"], request={"size": int}, features=[Shop, pace, "size", "shop"],
            outcome=davy.Outcome("returned", label=lambda returned: returned > 0.5), spine=moments)
def returns(data, *, kind: str = "good", weight: float = 0.13):
    return Rule(kind, weight)
'''


def moments() -> pl.DataFrame:
    """A sale every ten minutes; the larger, the likelier to come back."""
    random = np.random.default_rng(7)
    size = random.integers(0, 7, ROWS)
    return pl.DataFrame({"shop": random.choice(["a", "b", "c"], ROWS, p=[0.45, 0.43, 0.12]), "size": size,
                         "time": [START + timedelta(days=1, minutes=10 * row) for row in range(ROWS)],
                         "returned": (random.random(ROWS) < 0.06 + 0.13 * size).astype(float)})


def sales() -> pl.DataFrame:
    """A sale every 13 minutes, never at one pace in all shops."""
    return pl.DataFrame({"time": [START + timedelta(minutes=13 * row) for row in range(3200)], "shop": ["abc"[row % 7 % 3] for row in range(3200)],
                         "amount": [row % 17 * 1.25 for row in range(3200)]})


def make_shop(root: Path, settings: str = "") -> Home:
    """A project with its history, on a clock of its own, and no version yet."""
    (root / "data").mkdir(parents=True)
    write_settings(root, f'project = "shop"\n[serving]\nallow_globals = ["models.Rule"]\n{settings}')
    (root / "features.py").write_text(FEATURES)
    (root / "models.py").write_text(MODELS)
    moments().write_parquet(root / "data" / "moments.parquet")
    DrivenClock(root / ".davy" / CLOCK_FILE, start=NOW)
    home = Home(root)
    project = load_project(root)
    with connect(home) as log:
        log.ensure_views(project.view_specs())
        log.push_history(project.stream("sales"), sales())
    return home


def trained(home: Home, kind: str = "good", *, test: bool = True, **more: Any) -> ModelVersion:
    """One more version, through the front door."""
    result = train(load_project(home.root), home, "returns", params={"kind": kind, **more}, end=SPLIT, test_start=SPLIT if test else None)
    with home.database.read() as connection:
        return get_version(connection, "returns", result.version)


def serving(home: Home, version: ModelVersion) -> ModelVersion:
    """Let this version have all traffic."""
    set_traffic(home, "returns", {version.reference: 1.0}, actor="tester")
    return version


def planted(home: Home, like: ModelVersion, data: bytes) -> ModelVersion:
    """A version with these bytes as its pickle, registered as if the training of `like` had made it."""
    assert like.signature is not None
    files = store_files(home.blobs, {"model.pkl": data})
    with home.database.begin() as connection:
        return register(connection, clock=home.clock, actor="tester", name=like.name, format="pickle", files=files, signature=like.signature,
                        feature_set=get_feature_set(connection, str(like.feature_set)), run_id=like.run_id, training_set=like.training_set)


def judged(home: Home, version: ModelVersion, *only: str) -> Report:
    """The gate's report, of these checks or of all."""
    return run(home, version.reference, only=only)[0]


def result(home: Home, version: ModelVersion, check: str) -> Result:
    """What one check finds."""
    return judged(home, version, check).results[0]


def ask(home: Home, version: ModelVersion, count: int, *, alter: Any = None) -> list[PredictionRecord]:
    """Log requests that this version has answered, with the vectors that serving reads; `alter` changes a vector before it is logged."""
    with home.database.read() as connection:
        features = get_feature_set(connection, str(version.feature_set))
    log = PredictionLog(folder_of(home))
    reader, records = OnlineFeatures(home.online).reader(features, home.clock), []
    for number in range(count):
        given = {"size": number % 9}
        vector = reader.read({"shop": "abcd"[number % 4]}, given)
        values = vector.values if alter is None else alter(number, list(vector.values))
        records.append(PredictionRecord(new_id(home.clock), vector.time + number, vector.time + number, version.name, version.version, "stable", False, "k",
                                        features.digest, {"shop": "abcd"[number % 4]}, given, vector.watermarks, values, 0.5, 900, 80, 200, code_digest()))
    log.append(records)
    log.close()
    return records
