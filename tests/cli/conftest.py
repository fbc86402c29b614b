"""A project whose one prediction was computed online from events that were pushed through the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from davy import Float, Outcome, Stream, Time, View, agg, derive, model
from davy.core.clock import DrivenClock, new_id
from davy.core.digest import digest_bytes
from davy.core.time import format_time
from davy.events.client import connect
from davy.features.define import Resolver
from davy.features.online import OnlineFeatures
from davy.home import Home
from davy.registry.definitions import TrainingSetRecord, put_feature_set, put_training_set
from davy.registry.models import register, store_files
from davy.registry.signature import Signature
from davy.serving.predictions import PredictionLog, PredictionRecord, folder_of
from davy.tracking import run as start

if TYPE_CHECKING:
    from pathlib import Path

MAY = 1_367_366_400_000_000
MINUTE = 60_000_000
flights = Stream("flights", time="dep_time", fields={"origin": str, "dep_delay": Float(scale=1)})


class Airport(View):
    stream, entity = flights, "origin"
    departures_1h = agg.count(window="1h")
    mean_delay_1h = agg.mean("dep_delay", window="1h")
    latest_delay = agg.last("dep_delay")


@derive
def double(departures_1h):  # type: ignore[no-untyped-def]
    return departures_1h * 2


@model(entities=["origin"], request={"scheduled": Time}, features=[Airport, double], outcome=Outcome("arr_delay"))
def late(data: object) -> None:
    """Never trained here."""


@dataclass
class Answered:
    root: Path
    prediction: str
    vector: list[object]
    run: str
    training_set: str


@pytest.fixture
def answered(project: Path) -> Answered:
    clock = DrivenClock(project / ".davy" / "run" / "clock", start=MAY)
    home = Home(project, clock=clock)
    features = Resolver([Airport], [double]).model(late).feature_set
    with connect(home) as log:
        log.ensure_views([(flights.spec, Airport.spec)])
        for index in range(30):
            clock.set(MAY + index * 5 * MINUTE + 1)
            delay = None if index == 29 else index / 10
            log.push("flights", [{"dep_time": format_time(MAY + index * 5 * MINUTE), "origin": origin, "dep_delay": delay} for origin in ("JFK", "LGA")])
        vector = OnlineFeatures(home.online).reader(features, clock).read({"origin": "JFK"}, {"scheduled": MAY})
        log.push("flights", [{"dep_time": format_time(MAY + 140 * MINUTE), "origin": "JFK", "dep_delay": 99.0}])
    digest = _registered(home, features)
    record = PredictionRecord(new_id(clock), vector.time, clock.now(), "late", 1, "stable", False, "JFK", features.digest, {"origin": "JFK"},
                              {"scheduled": MAY}, vector.watermarks, vector.values, 0.25, 700, 50, 100)
    predictions = PredictionLog(folder_of(home))
    predictions.append([record])
    predictions.close()
    home.close()
    return Answered(project, record.id, vector.values, digest[0], digest[1])


def _registered(home: Home, features) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    record = TrainingSetRecord(digest_bytes(b"rows"), features.digest, 1234, {})
    with start("boosted", home=home) as made, home.database.begin() as connection:
        put_feature_set(connection, features, clock=home.clock)
        put_training_set(connection, record, clock=home.clock)
    files = store_files(home.blobs, {"model.txt": b"tree"})
    with home.database.begin() as connection:
        register(connection, clock=home.clock, actor="ada", name="late", format="lightgbm", files=files,
                 signature=Signature.of(features.outputs, features.kinds), feature_set=features, run_id=made.id, training_set=record.digest)
    return made.id, record.digest
