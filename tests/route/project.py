"""A small project, and what its vectors must be, in the most obvious way."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from databases import write_settings

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60_000_000
HOUR, QUARTER = 60 * MINUTE, 15 * MINUTE
DAY = 24 * HOUR
START = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000_000
BEGIN = START + 3 * DAY
CARDS = ("ann", "bob", "cyn", "dan")

FEATURES = '''
import davy
from davy import agg

payments = davy.Stream("payments", time="at", id="number", delay="2min", source="data/payments.parquet",
                       fields={"number": int, "card": str, "amount": davy.Float(2)})


class Card(davy.View):
    stream, entity = payments, "card"
    payments_1h = agg.count(window="1h", hop="1min")
    spent_1d = agg.sum("amount", window="1d", hop="15min")
    mean_1d = agg.mean("amount", window="1d", hop="15min")
    largest_1h = agg.max("amount", window="1h", hop="1min")
    latest = agg.last("amount")


@davy.derive
def above(amount, mean_1d):
    return amount - mean_1d


@davy.udf
def roundness(amount) -> int:
    """How often the amount of cents can be divided by ten."""
    cents, found = round((amount or 0.0) * 100), 0
    while cents and cents % 10 == 0:
        cents, found = cents // 10, found + 1
    return found
'''
MODELS = '''
import numpy as np
import polars as pl

import davy
from features import Card, above, roundness


class Weighted:
    """A sum, squeezed."""

    def __init__(self, weights):
        self.weights = weights

    def predict(self, matrix):
        return 1 / (1 + np.exp(-np.nan_to_num(matrix) @ self.weights))


@davy.model(entities=["card"], request={"amount": davy.Float(2)}, features=[Card, above, roundness], spine="data/moments.parquet",
            outcome=davy.Outcome("lost", label=lambda lost: lost > 0.5, matures_after="1d"))
def fraud(data, *, strength: float = 0.01):
    centred = np.nan_to_num(data.X) - np.nan_to_num(data.X).mean(axis=0)
    return Weighted(strength * centred.T @ (data.y - data.y.mean()) / len(data))
'''


class Event(NamedTuple):
    """One payment as the log has it."""

    offset: int
    ingest: int
    time: int
    card: str
    cents: int | None


def vector(events: list[Event], card: str, cents: int, t: int, watermark: int) -> list[Any]:
    """The oracle: the vector of one card asked at `t` for a payment of so many cents. Never optimised."""
    known = sorted((event for event in events if event.card == card and event.time < t and event.offset <= watermark), key=lambda e: (e.time, e.offset))
    hour = [event for event in known if event.time >= (t - HOUR) // MINUTE * MINUTE]
    day = [event.cents for event in known if event.time >= (t - DAY) // QUARTER * QUARTER and event.cents is not None]
    mean = float(Fraction(sum(day), len(day) * 100)) if day else None
    in_hour, ever = [event.cents for event in hour if event.cents is not None], [event.cents for event in known if event.cents is not None]
    largest, latest = max(in_hour, default=None), ever[-1] if ever else None
    zeros = len(str(cents)) - len(str(cents).rstrip("0")) if cents else 0
    return [len(hour), sum(day) / 100, mean, None if largest is None else largest / 100, None if latest is None else latest / 100,
            None if mean is None else cents / 100 - mean, zeros]


def history(rng: random.Random) -> list[Event]:
    """Three days of payments, some without an amount, some at one time."""
    times = sorted(START + rng.randrange(3 * DAY - HOUR) // MINUTE * MINUTE for _ in range(400))
    found: list[Event] = []
    for number, at in enumerate(times, 1):
        ingest = max(at + 2 * MINUTE, found[-1].ingest + 1 if found else 0)
        found.append(Event(number, ingest, at, rng.choice(CARDS), amount(rng)))
    return found


def amount(rng: random.Random) -> int | None:
    return None if rng.random() < 0.1 else rng.choice([rng.randrange(1, 20_000), rng.randrange(1, 200) * 100, 1000, 10_000])


def write(root: Path, events: list[Event], rng: random.Random) -> pl.DataFrame:
    """The project's files and data; returns the moments to learn from."""
    write_settings(root, 'project = "route"\n[serving]\nallow_globals = ["models.Weighted"]\n')
    (root / "features.py").write_text(FEATURES)
    (root / "models.py").write_text(MODELS)
    (root / ".gitignore").write_text("data/\n.davy/\n__pycache__/\n")
    data = root / "data"
    data.mkdir(exist_ok=True)
    utc = pl.Datetime("us", "UTC")
    pl.DataFrame({"number": [event.offset for event in events], "at": pl.Series([event.time for event in events], dtype=pl.Int64).cast(utc),
                  "card": [event.card for event in events],
                  "amount": [None if event.cents is None else event.cents / 100 for event in events]}).write_parquet(data / "payments.parquet")
    moments = [(rng.choice(CARDS), rng.randrange(1, 2000) * 10, START + rng.randrange(3 * DAY)) for _ in range(120)]
    frame = pl.DataFrame({"card": [card for card, _, _ in moments], "amount": [cents / 100 for _, cents, _ in moments],
                          "time": pl.Series([at for _, _, at in moments], dtype=pl.Int64).cast(utc),
                          "lost": [float(math.sin(cents) > 0.3) for _, cents, _ in moments]})
    frame.write_parquet(data / "moments.parquet")
    return frame


def iso(micros: int) -> str:
    """The moment as JSON has it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat()
