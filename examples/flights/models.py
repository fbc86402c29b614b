"""`late`: will this flight arrive more than 15 minutes late? Asked every five minutes about the flights due to leave in an hour."""

from pathlib import Path

import numpy as np
import polars as pl

import davy
from features import Aircraft, Airline, Airport, AirportWeather, Destination, Flight, minute_of_day, slack, weekday, worsening


def timetable():
    """Every flight, at the moment it is asked about. One that was cancelled has no arrival to learn from."""
    return pl.read_parquet(Path(__file__).parent / "data/flights.parquet").filter(pl.col("arr_delay").is_not_null())


@davy.model(
    entities=["origin", "carrier", "dest", "tailnum", "flight"],
    request={"scheduled": davy.Time, "distance": int, "block_minutes": int},
    features=[Airport, Airline, Destination, Aircraft, Flight, AirportWeather, minute_of_day, weekday, worsening, slack, "distance", "origin", "carrier"],
    outcome=davy.Outcome("arr_delay", label=lambda arr_delay: arr_delay > 15, matures_after="12h"),
    spine=timetable)
def late(data: davy.TrainingSet, *, kind: str = "lightgbm", learning_rate: float = 0.05, trees: int = 150, seed: int = 7):
    """-p kind=logistic is the baseline that LightGBM has to beat."""
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler

        # What is not known counts as average: after scaling, that is zero.
        return make_pipeline(StandardScaler(), FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(data.X, data.y)

    from lightgbm import LGBMClassifier

    # One thread: a hundred thousand rows are too few to share, and the same bits come out wherever it runs.
    model = LGBMClassifier(n_estimators=trees, learning_rate=learning_rate, min_child_samples=100, colsample_bytree=0.7,
                           random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)
    return model.fit(data.X, data.y, categorical_feature=data.categorical)
