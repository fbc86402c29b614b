"""Udfs through the calls of notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import davy
from databases import write_settings
from davy import api
from davy.errors import DefinitionError, UdfFailed

FEATURES = """
import davy

payments = davy.Stream("payments", time="at", fields={"card": str, "amount": float}, tolerance="1h")


class Card(davy.View):
    stream, entity = payments, "card"
    n_1h = davy.agg.count(window="1h")
    latest = davy.agg.last("amount")


@davy.udf
def letters(card, shop) -> str | None:
    return None if shop is None else "".join(sorted(set(card) & set(shop)))


@davy.udf
def scatter(card, n_1h) -> int:
    return hash(card) % 1000


@davy.udf(kind=float)
def inverse(price, latest):
    return 1 / (price - (latest or 0.0))
"""
SPINE = {"card": ["anna", "bob", "anna"], "shop": ["banana", None, "x"], "price": [2.0, 3.0, 4.0], "time": ["2025-01-01T00:00:00Z"] * 3}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_settings(tmp_path)
    (tmp_path / "features.py").write_text(FEATURES)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    api.close_homes()


def test_online_and_training_sets_give_the_same(project: Path) -> None:
    davy.push("payments", [{"card": "anna", "amount": 1.5, "at": "2025-01-01T00:00:00Z"}])
    listed, request = ["letters", "inverse"], {"shop": str, "price": float}
    trained = davy.training_set({**SPINE, "time": ["2999-01-01T00:00:00Z"] * 3}, listed, request=request)
    assert trained.features.rows() == [("an", 2.0), (None, 1 / 3), ("", 0.4)]
    known = [davy.online(listed, {"card": card}, request={"shop": shop or "", "price": price})
             for card, shop, price in zip(SPINE["card"], SPINE["shop"], SPINE["price"], strict=True)]
    assert [tuple(vector.values()) for vector in known] == [("an", 2.0), ("", 1 / 3), ("", 0.4)]


def test_a_udf_that_is_not_repeatable_is_refused_when_it_is_first_used(project: Path) -> None:
    with pytest.raises(UdfFailed, match=r"'scatter' gave \d+ and then \d+ for the same row \d \({'card': '"):
        davy.training_set(SPINE, ["scatter"])


def test_a_row_that_fails_is_named(project: Path) -> None:
    davy.push("payments", [{"card": "bob", "amount": 3, "at": "2024-12-31T23:00:00Z"}])
    with pytest.raises(UdfFailed, match=r"^Row 1: The udf 'inverse' raised ZeroDivisionError: .* in 'return 1 / "):
        davy.training_set({**SPINE, "time": ["2999-01-01T00:00:00Z"] * 3}, ["inverse"], request={"price": float})


def test_what_a_udf_may_not_name_is_told_when_it_is_used(project: Path) -> None:
    chance = FEATURES.replace("import davy\n", "import davy\nimport random\n", 1).replace("hash(card) % 1000", "random.getrandbits(8)")
    (project / "features.py").write_text(chance)
    with pytest.raises(DefinitionError, match="'scatter' uses the module 'random'"):
        davy.training_set(SPINE, ["scatter"])
