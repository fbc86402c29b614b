"""Weights are shares of one whole, of versions that exist; each change is one journal entry and one revision."""

from __future__ import annotations

import math
from typing import Any

import pytest

from davy.core.fields import Float
from davy.errors import Conflict, InvalidInput, NotFound
from davy.features.define import Resolver
from davy.home import Home
from davy.registry.aliases import set_alias
from davy.registry.models import register, store_files
from davy.release.traffic import get_traffic, set_traffic, weights_from_text
from davy.store import journal
from serving_kit import Card, add_version, feature_set, signature


@pytest.fixture
def shop(home: Home) -> Home:
    add_version(home)
    add_version(home, seed=1)
    add_version(home, "other")
    return home


def test_traffic_is_set_read_and_journaled(shop: Home) -> None:
    assert get_traffic(shop, "fraud") is None
    first = set_traffic(shop, "fraud", {"fraud@1": 1})
    second = set_traffic(shop, "fraud", {"fraud@1": 0.9, "fraud@2": 0.1})
    assert (first.revision, second.revision) == (1, 2)
    assert second == get_traffic(shop, "fraud")
    assert second.versions == {1: 0.9, 2: 0.1}
    with shop.database.read() as connection:
        entry = journal.entries(connection, subject="fraud", action="traffic.set")[0]
        assert journal.verify(connection).broken is None
    assert entry.details == {"revision": 2, "weights": {"fraud@1": 0.9, "fraud@2": 0.1}, "before": {"fraud@1": 1.0}}
    assert entry.actor == "tester"


@pytest.mark.parametrize(("weights", "message"), [
    ({}, "No weight"),
    ({"fraud@1": -0.1, "fraud@2": 1.1}, "-0.1"),
    ({"fraud@1": math.nan, "fraud@2": 1.0}, "nan"),
    ({"fraud@1": math.inf}, "inf"),
    ({"fraud@1": 0.5, "fraud@2": 0.4}, "sum to 0.9"),
    ({"fraud@1": 0.5, "fraud@2": 0.5 + 2e-9}, "sum to 1.000000002"),
    ({"fraud@1": "1"}, "is '1'"),
    ({"fraud@1": True}, "is True"),
    ({"other@1": 1.0}, "not a version of fraud"),
    ({"fraud@1": 0.5, "fraud@production": 0.5}, "named twice"),
])
def test_wrong_weights_are_refused_and_change_nothing(shop: Home, weights: dict[str, Any], message: str) -> None:
    with shop.database.begin() as connection:
        set_alias(connection, clock=shop.clock, actor="tester", name="fraud", alias="production", version=1)
    set_traffic(shop, "fraud", {"fraud@2": 1.0})
    with pytest.raises(InvalidInput, match=message):
        set_traffic(shop, "fraud", weights)
    found = get_traffic(shop, "fraud")
    assert found is not None
    assert found.weights == {"fraud@2": 1.0}


@pytest.mark.parametrize(("model", "weights", "message"), [("fraud", {"fraud@9": 1.0}, "no version 9"), ("frod", {"frod@1": 1.0}, "did you mean 'fraud'")])
def test_unknown_models_and_versions_are_named(shop: Home, model: str, weights: dict[str, float], message: str) -> None:
    with pytest.raises(NotFound, match=message):
        set_traffic(shop, model, weights)


def test_sums_within_a_billionth_are_taken_and_zeros_left_out(shop: Home) -> None:
    assert set_traffic(shop, "fraud", {"fraud@1": 1 - 9e-10, "fraud@2": 0.0}).weights == {"fraud@1": 1 - 9e-10}
    assert set_traffic(shop, "fraud", dict.fromkeys(["fraud@1"], 1)).weights == {"fraud@1": 1.0}


def test_a_decision_on_an_old_revision_is_a_conflict(shop: Home) -> None:
    set_traffic(shop, "fraud", {"fraud@1": 1.0})
    set_traffic(shop, "fraud", {"fraud@2": 1.0}, expected=1)
    with pytest.raises(Conflict, match="revision 2, not 1"):
        set_traffic(shop, "fraud", {"fraud@1": 1.0}, expected=1)


@pytest.mark.parametrize(("amount", "said"), [(str, "fraud@3 as str, a request field"), (Float(scale=2), "fraud@3 as float with 2 decimals")])
def test_versions_that_read_one_field_differently_cannot_share_traffic(shop: Home, amount: Any, said: str) -> None:
    features = Resolver([Card]).feature_set([Card, "amount"], entities=["card"], request={"amount": amount})
    texts = {"amount": ("x",)} if amount is str else {}
    files = store_files(shop.blobs, {"model.txt": b"x"})
    with shop.database.begin() as connection:
        register(connection, clock=shop.clock, actor="tester", name="fraud", format="lightgbm", files=files,
                 signature=type(signature(feature_set())).of(features.outputs, features.kinds, texts), feature_set=features)
    with pytest.raises(Conflict, match=f"takes 'amount' as float with 6 decimals, a request field; {said}"):
        set_traffic(shop, "fraud", {"fraud@1": 0.5, "fraud@3": 0.5})


def test_pairs_are_read_from_text() -> None:
    assert weights_from_text(["late@1=0.9", "late@2=.1"]) == {"late@1": 0.9, "late@2": 0.1}
    for wrong in (["late@1"], ["late@1=much"], ["late@1="], ["late@1=0.5", "late@1=0.5"]):
        with pytest.raises(InvalidInput):
            weights_from_text(wrong)
