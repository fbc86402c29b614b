"""A small shop with one stream, and real models registered in its home: what the tests of serving and releases stand on."""

from __future__ import annotations

import pickle
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from davy.features.define import Resolver, Stream, View, agg, derive
from davy.features.definition import FeatureSet
from davy.gate.record import keep
from davy.gate.run import Report
from davy.registry.models import ModelVersion, register, store_files
from davy.registry.signature import Output, Signature

if TYPE_CHECKING:
    from davy.home import Home

payments = Stream("payments", time="at", fields={"card": str, "amount": float}, tolerance="1h")
CATEGORIES = ("books", "food", "shoes")


class Card(View):
    stream, entity = payments, "card"
    payments_1h = agg.count(window="1h")
    spent_1d = agg.sum("amount", window="1d")
    mean_7d = agg.mean("amount", window="7d")


@derive
def above_mean(amount, mean_7d):  # type: ignore[no-untyped-def]
    return amount - mean_7d


def feature_set(*, more: bool = False) -> FeatureSet:
    """Six outputs from a card's payments and the request; `more` asks for another request field."""
    from davy.core.fields import Time

    request: dict[str, Any] = {"amount": float, "shop": str, "asked": Time}
    listed: list[Any] = [Card, above_mean, "amount", "shop"]
    if more:
        request["items"] = int
        listed.append("items")
    return Resolver([Card], [above_mean]).feature_set(listed, entities=["card"], request=request)


def signature(features: FeatureSet, output: Output = "probability") -> Signature:
    return Signature.of(features.outputs, features.kinds, {"shop": CATEGORIES}, output=output, classes=(0, 1) if output == "probability" else ())


@cache
def rows(width: int, count: int = 400, seed: int = 0) -> tuple[Any, Any]:
    """A matrix with nulls and categories, and a label."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, width))
    matrix[:, 5] = random.integers(0, 3, count)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix, (np.nan_to_num(matrix[:, 0]) + np.nan_to_num(matrix[:, 1]) > 0).astype(int)


@cache
def lightgbm_text(width: int, seed: int = 0, trees: int = 20) -> bytes:
    import lightgbm

    matrix, label = rows(width, seed=seed)
    settings = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, label, categorical_feature=[5]), trees)
    return booster.model_to_string().encode()


@cache
def sklearn_pickle(width: int) -> bytes:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    matrix, label = rows(width)
    return pickle.dumps(make_pipeline(SimpleImputer(), LogisticRegression()).fit(matrix, label), protocol=5)


def add_version(home: Home, name: str = "fraud", *, seed: int = 0, format: str = "lightgbm", data: bytes | None = None, more: bool = False,
                output: Output = "probability", code: dict[str, str] | None = None, gated: bool = True) -> ModelVersion:
    """Register one more version: LightGBM, and one that the gate lets through, unless told otherwise; `code` holds modules of the user's own, by file name."""
    features = feature_set(more=more)
    width = len(features.outputs)
    if data is None:
        data = lightgbm_text(width, seed) if format == "lightgbm" else sklearn_pickle(width)
    own = {f"code/{name}": text.encode() for name, text in (code or {}).items()}
    files = store_files(home.blobs, {"model.txt" if format == "lightgbm" else "model.pkl": data, **own})
    with home.database.begin() as connection:
        found = register(connection, clock=home.clock, actor="tester", name=name, format=format, files=files, signature=signature(features, output),
                         feature_set=features)
        if gated:
            keep(connection, Report(name, found.version, found.digest, None, "", True, True, home.clock.now(), 0.0, ()), clock=home.clock, actor="tester")
        return found


MOODY = """
import os, time

class Moody:
    '''Does what the request's amount says; the others are answered with one tenth.'''

    def predict(self, matrix):
        amounts = matrix[:, 4]
        if (amounts == 13).any():
            raise ValueError("thirteen")
        if (amounts == 7).any():
            return [0.1] * (len(matrix) + 1)
        if (amounts == 666).any():
            os._exit(3)
        if (amounts == 1000).any():
            time.sleep(8)
        if (amounts == 64).any():
            self.kept = getattr(self, "kept", []) + [bytearray(os.urandom(1 << 20)) * 64]
        return [0.1] * len(matrix)
"""
RAISES, ROWS, DIES, HANGS, LEAKS = 13.0, 7.0, 666.0, 1000.0, 64.0


def add_moody(home: Home) -> ModelVersion:
    """A version of `fraud` that is bad in a way that the request chooses; the project must allow `moody.Moody`."""
    return add_version(home, format="pickle", data=b"\x80\x04\x8c\x05moody\x8c\x05Moody\x93)\x81.", output="value", code={"moody.py": MOODY})
