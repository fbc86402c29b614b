"""The closed loop in the filled home: gates, a release that was rolled back and one that is under way, drift, labels, KPIs and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from davy.core.clock import new_id
from davy.core.fields import Field
from davy.events.client import connect
from davy.gate.record import Report, Result, keep
from davy.monitoring.monitor import Monitor
from davy.monitoring.references import from_rows, put_reference
from davy.registry.models import register, store_files
from davy.release.controller import Controller
from davy.release.releases import Release, read_releases, start_release
from davy.release.traffic import get_traffic, set_traffic
from davy.serving.predictions import PredictionLog, PredictionRecord, flush_predictions, folder_of

if TYPE_CHECKING:
    from davy.core.clock import DrivenClock
    from davy.features.definition import FeatureSet
    from davy.home import Home
    from davy.registry.signature import Signature

MINUTE, HOUR = 60_000_000, 3_600_000_000
MODEL = "fares"
RULE = "<b>too many failures</b>"
SETTINGS = f"""
project = "flights"
[release]
steps = [10, 50]
unit = "request"
min_time = "1min"
min_requests = 20
tolerated = {{ errors = 0.02 }}
[[alerts]]
name = "{RULE}"
metric = "failure_rate"
above = 0.001
window = "1d"
webhook = "http://127.0.0.1:9/taken-by-nobody"
[[alerts]]
name = "quiet"
metric = "auc"
below = 0.01
"""
FEATURES = """
from davy import Float, Stream, View, agg, derive
from davy.features.expression import when
flights = Stream("flights", time="dep_time", fields={"origin": str, "carrier": str, "dep_delay": Float(scale=1)})
weather = Stream("weather", time="time", fields={"origin": str, "wind_speed": float})
class Airport(View):
    stream, entity = flights, "origin"
    departures_1h = agg.count(window="1h")
    mean_delay_3h = agg.mean("dep_delay", window="3h")
    worst_delay_1d = agg.max("dep_delay", window="1d")
class AirportWeather(View):
    stream, entity = weather, "origin"
    wind = agg.last("wind_speed", window="6h")
class Carrier(View):
    stream, entity = flights, "carrier"
    carrier_flights_7d = agg.count(window="7d")
@derive
def rush(departures_1h, scheduled):
    return when(scheduled.hour("America/New_York") >= 15, departures_1h * 2, departures_1h)
"""
MODELS = """
import davy
from features import Airport, AirportWeather, Carrier, rush
@davy.kpi(unit="USD", bad=lambda cost: cost > 40)
def cost(prediction, delay):
    return 50.0 if (delay > 15) != (prediction > 0.5) else 0.0
@davy.model(entities=["origin", "carrier"], request={"distance": int, "scheduled": davy.Time},
            features=[Airport, AirportWeather, Carrier, rush, "distance", "carrier"],
            outcome=davy.Outcome("delay", label=lambda delay: delay > 15, matures_after="2h"), kpis=[cost])
def fares(data):
    "Never trained here."
"""


class Loop:
    """The model `fares`, whose answers a test writes and whose clock it drives."""

    def __init__(self, home: Home, clock: DrivenClock, features: FeatureSet, hostile: str) -> None:
        self.home, self.clock, self.features, self.hostile = home, clock, features, hostile
        self.log = PredictionLog(folder_of(home))
        self.random = np.random.default_rng(11)
        self.number = 0
        self.known: list[dict[str, Any]] = []

    def vectors(self, count: int, *, wind: float) -> list[list[Any]]:
        delays, winds = self.random.normal(10, 4, count), self.random.normal(wind, 3, count)
        carriers = self.random.choice(np.array(["AA", "B6", "DL", self.hostile], dtype=object), count, p=[0.3, 0.4, 0.2, 0.1])
        return [[int(n % 9), float(delay), 80.0, None if n % 20 == 0 else float(blow), 100, int(n % 9), 1000 + int(n % 50), carrier]
                for n, (delay, blow, carrier) in enumerate(zip(delays, winds, carriers, strict=True))]

    def answer(self, count: int, *, wind: float = 12.0, bad: int = 0, pace: int = 4_000_000) -> None:
        """So many requests, routed as traffic stands; of another version than the first, one in `bad` fails."""
        found = get_traffic(self.home, MODEL)
        assert found is not None
        records = []
        for values in self.vectors(count, wind=wind):
            self.number += 1
            self.clock.set(self.clock.now() + pace)
            now, weights = self.clock.now(), sorted(found.versions.items())
            canary = len(weights) > 1 and self.number % 100 < 100 * weights[1][1]
            version, share = weights[1] if canary else weights[0]
            failed, late = bool(bad) and canary and self.number % bad == 0, bool(self.random.random() < 0.3)
            output = None if failed else float(np.clip(0.3 + 0.4 * late + self.random.normal(0, 0.15), 0, 1))
            records.append(PredictionRecord(
                new_id(self.clock), now, now + 900, MODEL, version, "canary" if canary else "stable", False, f"k{self.number}", self.features.digest,
                {"origin": "JFK", "carrier": values[-1]}, {"distance": values[-2], "scheduled": now + HOUR}, {"flights": 10, "weather": 10}, values, output,
                900 + self.number % 400, 60, 300 + self.number % 90, "k", share, "error" if failed else "ok", found.release))
            if not failed and self.number % 10:
                self.known.append({"prediction": records[-1].id, "delay": 30.0 if late else 2.0, "time": now + HOUR})
        self.log.append(records)

    def release(self) -> Release:
        with self.home.database.read() as connection:
            return read_releases(connection, MODEL)[0]


def fill_loop(home: Home, clock: DrivenClock, features: FeatureSet, signature: Signature, training_set: str, hostile: str) -> tuple[str, str, int]:
    """Returns the ids of the release that was rolled back and of the one under way, and how many requests there were."""
    (home.root / "features.py").write_text(FEATURES)
    (home.root / "models.py").write_text(MODELS)
    loop = Loop(home, clock, features, hostile)
    start = clock.now()
    trained = pl.DataFrame(loop.vectors(6_000, wind=12.0), schema=list(features.outputs), orient="row", strict=False, infer_schema_length=None)
    times = pl.Series("time", np.linspace(start - 720 * HOUR, start, trained.height).astype(np.int64))
    put_reference(home, from_rows(trained.with_columns(times), features, training_set))
    for version in (1, 2, 3):
        files = store_files(home.blobs, {"model.bin": bytes([version]) * 50})
        result = Result("quality", "It is as good as stable", "pass", False, f"AUC 0.7 {hostile}", "", {"auc": 0.7, "note": hostile}, 0.5)
        report = Report(MODEL, version, "sha256:0", None, "no version is stable yet", True, True, start, 1.0, (result,))
        with home.database.begin() as connection:
            register(connection, clock=clock, actor=home.actor, name=MODEL, format="sklearn", files=files, signature=signature, feature_set=features,
                     training_set=training_set)
            keep(connection, report, clock=clock, actor=home.actor)
    set_traffic(home, MODEL, {f"{MODEL}@1": 1.0})
    loop.answer(900)
    start_release(home, f"{MODEL}@3", actor=hostile)
    controller = Controller(home, [])
    for _ in range(20):
        controller.look()
        if loop.release().state.ended:
            break
        loop.answer(20, bad=1)
    rolled_back = loop.release()
    start_release(home, f"{MODEL}@2")
    for _ in range(10):
        controller.look()
        loop.answer(40, wind=19.0)
    controller.close()
    afresh = Controller(home, [])  # one that has just begun counts the log again, and tells at once how it stands
    afresh.look()
    afresh.look()
    afresh.close()
    loop.log.close()
    flush_predictions(home)
    with connect(home) as events:
        events.outcomes(MODEL, loop.known, Field("delay", "float", 1))
        events.flush()
    return rolled_back.id, loop.release().id, loop.number


def watch(home: Home) -> None:
    """What a running server does by itself: count, judge, replay, and try to send alerts. What is still in the gateways' logs stays there."""
    monitor = Monitor(home)
    monitor.collector.collect(flush=False)
    monitor.judge(MODEL)
    monitor.replay("late", force=True)
    monitor.judge("late")
    monitor.courier.send()
    monitor.courier.wait()
