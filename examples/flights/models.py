"""`late`: will this flight arrive more than 15 minutes late? Asked every five minutes about the flights due to leave in an hour."""

from pathlib import Path

import numpy as np
import polars as pl

import davy
from features import Aircraft, Airline, Airport, AirportWeather, Destination, Flight, minute_of_day, slack, weekday, worsening


def timetable():
    """Every flight, at the moment it is asked about. One that was cancelled has no arrival to learn from."""
    return pl.read_parquet(Path(__file__).parent / "data/flights.parquet").filter(pl.col("arr_delay").is_not_null())


MISSED, IN_VAIN, WARNED_FROM = 50.0, 10.0, 0.25


@davy.kpi(unit="USD", bad=lambda cost: cost >= MISSED)
def cost(prediction, arr_delay):
    """What an answer costs: a delay that nobody was told of is dearer than a warning in vain."""
    warned, late = prediction >= WARNED_FROM, arr_delay > 15
    return MISSED if late and not warned else IN_VAIN if warned and not late else 0.0


@davy.model(
    entities=["origin", "carrier", "dest", "tailnum", "flight"],
    request={"scheduled": davy.Time, "distance": int, "block_minutes": int},
    features=[Airport, Airline, Destination, Aircraft, Flight, AirportWeather, minute_of_day, weekday, worsening, slack, "distance", "origin", "carrier"],
    outcome=davy.Outcome("arr_delay", label=lambda arr_delay: arr_delay > 15, matures_after="12h"),
    spine=timetable, kpis=[cost])
def late(data: davy.TrainingSet, *, kind: str = "lightgbm", learning_rate: float = 0.05, trees: int = 150, seed: int = 7):
    """kind=logistic is the baseline that lightgbm has to beat; banded and lost are mistakes as they are made, for the gate and the canary to find."""
    if kind == "logistic":
        return baseline(data.X, data.y)
    known = data.y
    if kind == "lost":
        # The delays of one airline came from another table, and the join found none: as if it had never been late.
        known = np.where((data.features["carrier"] == "9E").to_numpy(), 0, known)
    model = boosted(data, known, learning_rate, trees, seed)
    return Banded(model, data.columns.index("temperature"), data.X, known) if kind == "banded" else model


def baseline(X, y):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    # What is not known counts as average: after scaling, that is zero.
    return make_pipeline(StandardScaler(), FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(X, y)


def boosted(data, y, learning_rate, trees, seed):
    from lightgbm import LGBMClassifier

    # One thread: a hundred thousand rows are too few to share, and the same bits come out wherever it runs.
    model = LGBMClassifier(n_estimators=trees, learning_rate=learning_rate, min_child_samples=100, colsample_bytree=0.7,
                           random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)
    return model.fit(data.X, y, categorical_feature=data.categorical)


class Banded:
    """LightGBM, corrected by the weather: each band of temperature gets the shift that its flights ask for. No winter shows a day of 90 °F."""

    edges, usual = (40.0, 65.0, 85.0), 50.0

    def __init__(self, model, column, X, y):
        self.booster, self.column = model.booster_, column
        scores, bands = self.booster.predict(X, raw_score=True), self.bands(X)
        self.shifts = {band: log_odds(y[bands == band].mean()) - log_odds(expit(scores[bands == band]).mean()) for band in set(bands.tolist())}

    def bands(self, X):
        return np.digitize(np.nan_to_num(X[:, self.column], nan=self.usual), self.edges)

    def predict(self, X):
        shifts = np.array([self.shifts[band] for band in self.bands(X).tolist()])
        return expit(self.booster.predict(X, raw_score=True) + shifts)


def expit(x):
    return 1 / (1 + np.exp(-x))


def log_odds(p):
    return np.log(p / (1 - p))
