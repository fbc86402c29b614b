"""A small project as a user would write it, with a year's worth of nothing in particular."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from databases import write_settings

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home

START = datetime(2024, 1, 1, tzinfo=UTC)

FEATURES = '''
import davy
from davy import agg

sales = davy.Stream("sales", time="time", fields={"shop": str, "amount": davy.Float(2)})


class Shop(davy.View):
    stream, entity = sales, "shop"
    sales_1d = agg.count(window="1d")
    mean_7d = agg.mean("amount", window="7d")
'''

MODELS = '''
import random
from pathlib import Path

import numpy as np
import polars as pl

import davy
from features import Shop


class Line:
    """Least squares on one column after the mean."""

    def __init__(self, weight, base, noise=0.0):
        self.weight, self.base, self.noise = weight, base, noise

    def predict(self, matrix):
        return np.clip(np.nan_to_num(matrix[:, 0]) * self.weight + self.base + self.noise, 0, 1)


class Always:
    """Answers with one number, however many rows it is asked for."""

    def predict(self, matrix):
        return 0.5


def moments():
    return pl.read_parquet(Path(__file__).parent / "data" / "moments.parquet")


@davy.model(entities=["shop"], request={"size": int}, features=[Shop, "size", "shop"],
            outcome=davy.Outcome("returned", label=lambda returned: returned > 0.5), spine=moments)
def returns(data, *, kind: str = "line", trees: int = 10, noise: float = 0.0, seed: int = 3):
    if kind == "lightgbm":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_estimators=trees, random_state=seed, num_threads=1, min_child_samples=5, verbose=-1).fit(data.X, data.y)
    if kind == "logistic":
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        return make_pipeline(SimpleImputer(), LogisticRegression()).fit(data.X, data.y)
    if kind == "frame":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(verbose=-1).fit(data.features, data.y)
    if kind == "scalar":
        return Always()
    if kind == "fails":
        raise ZeroDivisionError("nothing to divide by")
    if kind == "interrupted":
        raise KeyboardInterrupt
    if kind == "unseeded":
        noise = np.random.default_rng().random() / 10
    if kind == "seeded":
        noise = (random.random() + np.random.random()) / 10
    centred = np.nan_to_num(data.X[:, 0]) - np.nan_to_num(data.X[:, 0]).mean()
    weight = float(centred @ data.y / max(centred @ centred, 1.0))
    return Line(weight, float(data.y.mean()) - weight * float(np.nan_to_num(data.X[:, 0]).mean()), noise)
'''


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def moments(rows: int = 300) -> pl.DataFrame:
    """The spine: a returned sale or not, every half hour."""
    return pl.DataFrame({"shop": ["ab"[row % 2] for row in range(rows)], "size": [row % 7 for row in range(rows)],
                         "time": [START + timedelta(days=1, minutes=30 * row) for row in range(rows)],
                         "returned": [float(row * 7 % 11 > 5) for row in range(rows)]})


def sales(first: int = 0, count: int = 600) -> pl.DataFrame:
    """The events: a sale every 13 minutes, never at one pace in both shops."""
    return pl.DataFrame({"time": [START + timedelta(minutes=13 * row) for row in range(first, first + count)],
                         "shop": ["ab"[row % 3 % 2] for row in range(first, first + count)],
                         "amount": [row % 17 * 1.25 for row in range(first, first + count)]})


def write_shop(root: Path, *, repository: bool = True) -> Path:
    """The project's files, committed; the data are ignored."""
    root.mkdir(parents=True, exist_ok=True)
    write_settings(root, 'project = "shop"\n[serving]\nallow_globals = ["models.Line"]\n')
    (root / "features.py").write_text(FEATURES)
    (root / "models.py").write_text(MODELS)
    (root / ".gitignore").write_text("data/\n.davy/\n__pycache__/\n")
    write_moments(root, moments())
    if repository:
        git(root, "init", "-q", "-b", "main")
        git(root, "config", "user.email", "ada@example.org")
        git(root, "config", "user.name", "Ada")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "begin")
    return root


def write_moments(root: Path, frame: pl.DataFrame) -> None:
    (root / "data").mkdir(exist_ok=True)
    frame.write_parquet(root / "data" / "moments.parquet")


def ingest(home: Home, frame: pl.DataFrame) -> None:
    """Load events into the log, as `davy ingest` does."""
    from davy.events.client import connect
    from davy.project import load_project

    project = load_project(home.root)
    with connect(home) as log:
        log.ensure_views(project.view_specs())
        log.push_history(project.stream("sales"), frame)
