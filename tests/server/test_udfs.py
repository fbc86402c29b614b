"""A version with udfs, served: computed in its worker, logged, replayed equal, and its failures told by name."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from databases import write_settings
from davy.home import Home
from davy.serving.predictions import find_prediction, read_predictions
from server_kit import Running

FEATURES = '''
import math

import davy
from davy import agg

payments = davy.Stream("payments", time="at", fields={"card": str, "amount": float}, tolerance="1h")
BASE = 10.0


class Card(davy.View):
    stream, entity = payments, "card"
    payments_1h = agg.count(window="1h")
    spent_1d = agg.sum("amount", window="1d")


def steps(text):
    return sum(ord(letter) for letter in text)


@davy.udf
def odd(shop, amount, payments_1h) -> float:
    """Tells what it is asked to do by the name of the shop."""
    if shop == "fails":
        return 1 / (amount - amount)
    if shop == "text":
        return shop
    while shop == "hangs":
        pass
    if amount is None:
        return None
    return math.fmod(steps(shop or "") * BASE, 7.0) + amount + payments_1h


@davy.derive
def twice(odd, spent_1d):
    return odd * 2 + spent_1d
'''
MODELS = '''
import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import davy
import polars as pl
from features import Card, odd, payments, twice

outcome = davy.Outcome("worth")


def moments():
    return pl.DataFrame({"card": ["a", "b"] * 20, "shop": ["books", "food", None, "x"] * 10, "amount": [float(n) for n in range(40)],
                         "time": ["2025-01-01T00:00:00Z"] * 40, "worth": [float(n * n) for n in range(40)]})


@davy.model(entities=["card"], request={"shop": str, "amount": float}, features=[Card, twice, odd], outcome=outcome, spine=moments)
def strange(data):
    return make_pipeline(SimpleImputer(keep_empty_features=True), LinearRegression()).fit(data.X, data.y)


@davy.model(entities=["card"], request={"amount": float}, features=[Card, "amount"], outcome=outcome, spine=moments)
def plain(data):
    return make_pipeline(SimpleImputer(keep_empty_features=True), LinearRegression()).fit(data.X, data.y)
'''


def davy(root: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"davy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("udfs") / "shop"
    root.mkdir()
    write_settings(root, 'project = "shop"\n[serving]\ntimeout = "1s"\n')
    (root / "features.py").write_text(FEATURES)
    (root / "models.py").write_text(MODELS)
    for name in ("strange", "plain"):
        davy(root, "train", name)
        davy(root, "traffic", name, f"{name}@1=1")
    with Running(root) as running:
        yield running


def expected(shop: str | None, amount: float | None, count: int, spent: float) -> list[Any]:
    """The vector, by hand."""
    odd = None if amount is None else math.fmod(sum(map(ord, shop or "")) * 10.0, 7.0) + amount + count
    return [count, spent, None if odd is None else odd * 2 + spent, odd]


def values(server: Running, prediction: str) -> list[Any]:
    home = Home(server.root)
    try:
        return list(find_prediction(home, prediction).values)
    finally:
        home.close()


def feature_set(server: Running, prediction: str) -> str:
    home = Home(server.root)
    try:
        return find_prediction(home, prediction).feature_set
    finally:
        home.close()


def test_vectors_hold_what_the_udf_says_and_replay_equal_after_it_was_changed(server: Running) -> None:
    rows = [("books", 1.5), ("food", 0.25), (None, 3.0), ("schön", None)]
    before = [server.post("/predict/strange", {"card": "new", "shop": shop, "amount": amount}) for shop, amount in rows]
    assert [status for status, _ in before] == [200] * 4
    assert [values(server, answer["prediction_id"]) for _, answer in before] == [expected(*row, 0, 0.0) for row in rows]
    now = before[0][1]["time"]
    server.post("/events/payments", [{"card": "new", "amount": 2.5, "at": now}, {"card": "new", "amount": 4, "at": now}])
    status, many = server.post("/predict/strange", [{"card": "new", "shop": shop, "amount": amount} for shop, amount in rows])
    assert status == 200
    assert [values(server, answer["prediction_id"]) for answer in many] == [expected(*row, 2, 6.5) for row in rows]
    found = json.loads(davy(server.root, "replay", "strange", "--json"))
    assert found["checked"] == found["equal"] >= 8
    (server.root / "features.py").write_text(FEATURES.replace("BASE = 10.0", "BASE = 11.0"))
    try:
        again = json.loads(davy(server.root, "replay", "strange", "--json"))
        assert again["equal"] == again["checked"] >= 8
    finally:
        (server.root / "features.py").write_text(FEATURES)
    status, page = server.get(f"/feature-sets/{feature_set(server, many[0]['prediction_id'])}")
    assert status == 200
    assert "BASE = 10.0" in page
    assert re.search(r"odd +\S+.*\n", davy(server.root, "why", many[0]["prediction_id"]))


def test_a_udf_that_fails_is_a_500_that_names_it_and_the_next_request_is_answered(server: Running) -> None:
    status, error = server.post("/predict/strange", {"card": "c", "shop": "fails", "amount": 1})
    assert (status, error["error"]) == (500, "UdfFailed")
    assert "'odd' raised ZeroDivisionError" in json.dumps(error)
    assert "return 1 / (amount - amount)" in json.dumps(error)
    status, error = server.post("/predict/strange", [{"card": "c", "shop": "x", "amount": 1}, {"card": "c", "shop": "text", "amount": 1}])
    assert status == 500
    assert "Row 1: The udf 'odd' returned 'text' (str), and it is declared float" in json.dumps(error)
    assert server.post("/predict/strange", {"card": "c", "shop": "x", "amount": 1})[0] == 200
    home = Home(server.root)
    try:
        (logged,) = read_predictions(home, "strange").values()
    finally:
        home.close()
    failed = logged.filter(pl.col("status") == "error")
    assert failed.height == 3
    assert all(value is None for row in failed["features"].to_list() for value in row.values())
    found = json.loads(davy(server.root, "replay", "strange", "--json"))
    assert found["checked"] == found["equal"] == logged.height - 3


def test_a_wrong_request_is_still_a_400(server: Running) -> None:
    assert server.post("/predict/strange", {"card": "c", "shop": 3, "amount": 1})[0] == 400


def test_a_udf_that_hangs_keeps_its_own_worker_busy_while_other_models_answer(server: Running) -> None:
    (worker,), (gateway,) = server.processes("strange@1"), server.processes("davy.server.gateway")
    spent = {pid: cpu_seconds(pid) for pid in (worker, gateway)}
    with server.client() as waiting:
        body = json.dumps({"card": "c", "shop": "hangs", "amount": 1}).encode()
        waiting.connection.request("POST", "/predict/strange", body, {"content-type": "application/json"})
        assert server.post("/predict/plain", {"card": "c", "amount": 1})[0] == 200
        assert waiting.connection.getresponse().status == 504
    assert cpu_seconds(worker) - spent[worker] > cpu_seconds(gateway) - spent[gateway]


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
