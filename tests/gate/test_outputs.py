"""Every kind of model goes through the whole gate: values, labels, several classes, scikit-learn and LightGBM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from databases import write_settings
from davy.gate.check import FAIL, NO_DATA, PASS
from davy.home import Home
from gate.kit import SPLIT, judged, make_shop, moments, result, serving, trained

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = '[gate]\nskip = ["rollback", "latency", "memory"]\n'
OTHERS = '''

class Value:
    """Answers an amount."""

    def __init__(self, factor):
        self.factor = factor

    def predict(self, matrix):
        return np.nan_to_num(matrix[:, SIZE]).clip(0, 6) * self.factor + 0.015


class Label:
    """Answers a word."""

    classes_ = np.array(["large", "small"])

    def __init__(self, edge):
        self.edge = edge

    def predict(self, matrix):
        return np.where(np.nan_to_num(matrix[:, SIZE]) > self.edge, "large", "small")


class Three:
    """Answers three probabilities."""

    classes_ = np.array([0, 1, 2])

    def __init__(self, sure):
        self.sure = sure

    def predict(self, matrix):
        return self.predict_proba(matrix).argmax(axis=1)

    def predict_proba(self, matrix):
        third = (np.nan_to_num(matrix[:, SIZE]).clip(0, 6) // 3).astype(int)
        return np.where(np.arange(3) == third[:, None], self.sure, (1 - self.sure) / 2)


def sized():
    return moments().with_columns(returned=pl.col("size").cast(pl.Float64) + pl.col("returned") / 4)


@davy.model(entities=["shop"], request={"size": int}, features=[Shop, pace, "size", "shop"], outcome=davy.Outcome("returned", label=LABEL), spine=sized)
def returns(data, *, kind: str = "good"):
    return MADE
'''
KINDS = {
    "value": ("lambda size: size", "Value(1.0325 if kind == 'good' else 0.7)", "squared error"),
    "label": ("lambda size: 'large' if size > 3.1 else 'small'", "Label(3 if kind == 'good' else 1)", "error rate"),
    "three": ("lambda size: int(size // 3)", "Three(0.9 if kind == 'good' else 0.5)", "logloss"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_answers_than_two_classes(tmp_path: Path, kind: str) -> None:
    label, made, metric = KINDS[kind]
    home = make_shop(tmp_path / "shop", SETTINGS)
    path = home.root / "models.py"
    path.write_text(path.read_text().split("@davy.model")[0] + OTHERS.replace("LABEL", label).replace("MADE", made))
    write_settings(home.root, f'[serving]\nallow_globals = ["models"]\n{SETTINGS}')
    home.close()
    home = Home(home.root)
    alone = judged(home, serving(home, trained(home)))
    beside, bad = judged(home, trained(home)), judged(home, trained(home, "bad"))
    home.close()
    assert alone.passed, [item.summary for item in alone.failed]
    assert beside.passed, [item.summary for item in beside.failed]
    found = {item.check: item for item in beside.results}
    assert (found["quality"].verdict, found["quality"].evidence["against"]["metric"]) == (PASS, metric)
    assert (found["slices"].verdict, found["slices"].evidence["metric"]) == (PASS, metric)
    assert found["calibration"].verdict == NO_DATA
    assert {"quality", "slices"} <= {item.check for item in bad.failed}


FITTED = '''
def returns(data, *, kind: str = "good"):
    if kind == "sklearn":
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        return make_pipeline(SimpleImputer(), LogisticRegression(max_iter=1000)).fit(data.X, data.y)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=15, max_depth=3, num_threads=1, verbose=-1).fit(data.X, data.y)
'''


def test_libraries_that_are_served(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("lightgbm")
    home = make_shop(tmp_path / "shop", SETTINGS)
    path = home.root / "models.py"
    path.write_text(path.read_text().split("def returns")[0] + FITTED.lstrip())
    alone = judged(home, serving(home, trained(home, "sklearn")))
    beside = judged(home, trained(home, "lightgbm"))
    home.close()
    assert alone.passed, [item.summary for item in alone.failed]
    found = {item.check: item for item in beside.results}
    assert not {"integrity", "safe-format", "loads", "signature", "features", "batches", "inputs"} & {item.check for item in beside.failed}
    assert found["safe-format"].summary.startswith("The format lightgbm holds data alone")
    assert found["quality"].evidence["against"]["version"] == "returns@1"


def test_outcomes_that_moved_are_not_the_models_fault(tmp_path: Path) -> None:
    home = make_shop(tmp_path / "shop")
    moved = pl.col("time").dt.epoch("us") >= SPLIT
    frame = moments().with_columns(returned=pl.when(moved & (pl.int_range(pl.len()) % 5 == 0)).then(1.0).otherwise(pl.col("returned")))
    frame.write_parquet(home.root / "data" / "moments.parquet")
    found = result(home, trained(home), "calibration")
    worse = result(home, trained(home, weight=0.0), "calibration")
    home.close()
    assert (found.verdict, "outcomes themselves have moved" in found.summary) == (PASS, True), found.summary
    assert worse.verdict == FAIL
