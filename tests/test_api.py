"""What notebooks and scripts call inside a project's folder, without a server, and from two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import davy
from databases import write_settings
from davy import api
from davy.errors import Conflict, DefinitionError, InvalidInput, InvalidTime, NotFound
from davy.project import load_project
from serving_kit import add_version

FEATURES = """
import davy

payments = davy.Stream("payments", time="at", fields={"card": str, "amount": float, "shop": str}, id="shop", tolerance="1h")


class Card(davy.View):
    stream, entity = payments, "card"
    n_1h = davy.agg.count(window="1h")
    sum_1h = davy.agg.sum("amount", window="1h")
    shop = davy.agg.last("shop")


@davy.derive
def share(sum_1h, price):
    return price / davy.when(sum_1h == 0, None, sum_1h)
"""
MODELS = """
import davy
from features import Card, share


@davy.model(entities=["card"], request={"price": davy.Decimal, "hour": int}, features=[Card, share, "price"], outcome=davy.Outcome("stolen"))
def fraud(data):
    return None
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder that the working directory lies in, below its root."""
    write_settings(tmp_path)
    (tmp_path / "features.py").write_text(FEATURES)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    yield tmp_path
    api.close_homes()


def moment(**ago: int) -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


def row(shop: str, amount: float | None = 2.5, card: str = "a", **ago: int) -> dict[str, Any]:
    return {"at": moment(**(ago or {"minutes": 5})), "card": card, "amount": amount, "shop": shop}


def elsewhere(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", f"import davy\n{code}"], cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ASK = {"price": 10.0, "hour": 3}


def test_pushed_is_readable_at_once(project: Path) -> None:
    receipt = davy.push("payments", [row("s1"), row("s2", None), row("s1", 99.0)])
    assert (receipt.accepted, receipt.duplicates, receipt.last_offset) == (2, 1, 2)
    found = davy.online("fraud", {"card": "a"}, request=ASK)
    assert found == {"n_1h": 2, "sum_1h": 2.5, "shop": "s2", "share": 4.0, "price": 10.0}
    assert found.watermarks == {"payments": 2}
    assert found.time > receipt.ingest_time
    davy.push("payments", [row("s3", 7.5)])
    assert davy.online("fraud", {"card": "a"}, request=ASK)["sum_1h"] == 10.0


def test_an_unknown_entity_has_empty_windows(project: Path) -> None:
    davy.push("payments", [row("s1")])
    for card in ("nobody", None):
        assert davy.online("Card", {"card": card}) == {"n_1h": 0, "sum_1h": 0.0, "shop": None}


def test_features_may_be_named_or_passed(project: Path) -> None:
    davy.push("payments", [row("s1")])
    loaded = load_project(project)
    view, model, share = loaded.views["Card"], loaded.models["fraud"].declared, loaded.derived["share"]
    whole = {"n_1h": 1, "sum_1h": 2.5, "shop": "s1"}
    assert davy.online("Card", {"card": "a"}) == whole
    assert davy.online(view, {"card": "a"}) == whole
    assert davy.online([view], {"card": "a"}) == whole
    assert davy.online([view.sum_1h, "card"], {"card": "a"}) == {"sum_1h": 2.5, "card": "a"}  # type: ignore[attr-defined]
    assert davy.online(["n_1h"], {"card": "a"}) == {"n_1h": 1}
    assert davy.online(model, {"card": "a"}, request=ASK) == davy.online("fraud", {"card": "a"}, request=ASK)
    assert davy.online([view, share], {"card": "a"}, request={"price": 5.0}) == whole | {"share": 2.0}


def test_definitions_may_stand_in_the_script_itself(project: Path) -> None:
    sales = davy.Stream("sales", time="at", fields={"shop": str, "amount": float})
    view = type("Shop", (davy.View,), {"stream": sales, "entity": "shop", "spent_1h": davy.agg.sum("amount", window="1h")})
    assert davy.push(sales, [{"shop": "a", "amount": 1.5, "at": moment(minutes=1)}] * 2).accepted == 2
    assert davy.online(view, {"shop": "a"}) == {"spent_1h": 3.0}
    found = davy.training_set({"shop": ["a", "b"], "time": [moment(minutes=-1)] * 2}, view)
    assert found.features["spent_1h"].to_list() == [3.0, 0.0]


def test_several_entities_give_a_list(project: Path) -> None:
    davy.push("payments", [row("s1"), row("s2", 4.0, "b")])
    found = davy.online("Card", [{"card": "b"}, {"card": "a"}, {"card": "b"}])
    assert [item["sum_1h"] for item in found] == [4.0, 2.5, 4.0]
    assert davy.online("Card", []) == []


def test_online_answers_for_now(project: Path) -> None:
    receipt = davy.push("payments", [row("s1")])
    with pytest.raises(InvalidInput, match=r"asked as of .*, but events up to") as caught:
        davy.online("Card", {"card": "a"}, at=moment(minutes=1))
    assert caught.value.fix == "Use davy.training_set for the past."
    with pytest.raises(InvalidTime, match="has no zone"):
        davy.online("Card", {"card": "a"}, at="2013-05-01T12:00:00")
    later = receipt.ingest_time + 2 * 3_600_000_000
    found = davy.online("Card", {"card": "a"}, at=later)
    assert (found.time, found["n_1h"], found["shop"]) == (later, 0, "s1")


@pytest.mark.parametrize(
    ("entities", "request_", "said"),
    [
        ({}, ASK, "entity key 'card' is missing"),
        ({"card": 5}, ASK, "field 'card' got 5"),
        ({"card": "a", "crd": "b"}, ASK, "'crd' is not a declared entity key"),
        ("a", ASK, "'a' names no entity"),
        (["a"], ASK, "'a' names no entity"),
        (5, ASK, "5 names no entity"),
        ({"card": "a"}, {"price": 1.0}, "request field 'hour' is missing"),
        ({"card": "a"}, None, "request field 'price' is missing"),
        ({"card": "a"}, ASK | {"hour": "3"}, "field 'hour' got '3'"),
        ({"card": "a"}, ASK | {"hour": 3.0}, "field 'hour' got 3.0"),
        ({"card": "a"}, ASK | {"price": float("nan")}, "field 'price' got nan"),
        ({"card": "a"}, ASK | {"hours": 3}, "'hours' is not a declared request field"),
    ],
)
def test_a_wrong_request_is_named(project: Path, entities: Any, request_: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        davy.online("fraud", entities, request=request_)
    assert caught.value.status == 400
    assert caught.value.fix


def test_unknown_names(project: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'payments'"):
        davy.push("payment", [row("s1")])
    with pytest.raises(NotFound, match="'frod' is neither a model nor a view") as caught:
        davy.online("frod", {"card": "a"})
    assert "Models: fraud; views: Card" in caught.value.allowed
    with pytest.raises(DefinitionError, match="did you mean 'sum_1h'"):
        davy.online(["sum_h"], {"card": "a"})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("s1"), row("s2") | {"amuont": 1.0}], r"'amuont'"),
        ([row("s1"), {"card": "a", "shop": "x"}], r"Row 1"),
        ([row("s1"), row("s2") | {"at": "2013-05-01T12:00:00"}], "no zone"),
        ([row("s1"), row("s2") | {"amount": float("inf")}], "inf"),
        ([row("s1"), row("s2") | {"shop": None}], "Row 1"),
        (row("s1"), "dict is not a list of rows"),
        ("rows", "str is not a list of rows"),
        (iter([row("s1")]), "not a list of rows"),
        ([5], "row"),
    ],
)
def test_a_wrong_push_is_refused_whole(project: Path, rows: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"(?i){said}"):
        davy.push("payments", rows)
    assert davy.online("Card", {"card": "a"})["n_1h"] == 0


def test_a_training_set_of_many_shapes(project: Path) -> None:
    davy.push("payments", [row("s1")])
    times = [moment(minutes=10), moment(minutes=-1)]
    columns = {"card": ["a", "a"], "time": times, "price": [1.0, 5.0], "hour": [1, 2], "stolen": [True, False]}
    base = davy.training_set(columns, "fraud", label="stolen")
    assert base.columns == ["n_1h", "sum_1h", "shop", "share", "price"]
    assert base.features["n_1h"].to_list() == [0, 1]
    assert base.features["share"].to_list() == [None, 2.0]
    assert base.y.tolist() == [1, 0]
    frame = pl.DataFrame(columns)
    frame.write_parquet(project / "spine.parquet")
    frame.with_columns(pl.col("time").str.to_datetime(time_zone="UTC")).write_parquet(project / "timed.parquet")
    rows = frame.to_dicts()
    for spine in (frame, rows, project / "spine.parquet", str(project / "spine.parquet")):
        assert davy.training_set(spine, "fraud", label="stolen").digest == base.digest
    assert davy.training_set(project / "timed.parquet", "fraud", label="stolen").X.tobytes() == base.X.tobytes()
    with pytest.raises(InvalidInput, match="A int is not a spine"):
        davy.training_set(5, "fraud")


def test_a_models_own_label_is_taken_where_the_spine_has_its_outcome(project: Path) -> None:
    columns = {"card": ["a", "b", "a"], "time": [moment(minutes=10)] * 3, "price": [1.0, 5.0, 2.0], "hour": [1, 2, 3]}
    (project / "models.py").write_text(MODELS.replace('davy.Outcome("stolen")', 'davy.Outcome("loss", label=lambda loss: loss > 10)'))
    data = davy.training_set(columns | {"loss": [20.0, 10.0, 11.0]}, "fraud")
    assert data.y.tolist() == [1, 0, 1]
    assert data.digest == davy.training_set(columns | {"loss": [20.0, 10.0, 11.0]}, load_project(project).models["fraud"].declared).digest
    partly = davy.training_set(columns | {"loss": [None, 10.0, 11.0]}, "fraud")
    assert partly.label.to_list() == [None, False, True]  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="1 of 3 labels are null"):
        _ = partly.y
    for without in (columns, columns | {"loss": [None, None, None]}):
        assert davy.training_set(without, "fraud").features.equals(data.features)
    assert davy.training_set(columns, "fraud").label is None


def test_traffic_is_a_mapping_that_sums_to_one(project: Path) -> None:
    home = api.current_home()
    first, second = add_version(home), add_version(home, seed=1)
    assert davy.traffic("fraud") == {}
    assert davy.traffic("fraud", {first.reference: 0.9, second.reference: 0.1}) == {"fraud@1": 0.9, "fraud@2": 0.1}
    with pytest.raises(InvalidInput, match=r"sum to 1\.1"):
        davy.traffic("fraud", {first.reference: 1, second.reference: 0.1})
    assert davy.traffic("fraud") == {"fraud@1": 0.9, "fraud@2": 0.1}
    with pytest.raises(NotFound, match="frod"):
        davy.traffic("frod")


def test_a_training_set_is_what_online_gave(project: Path) -> None:
    davy.push("payments", [row("s1"), row("s2", 4.0)])
    served = davy.online("fraud", {"card": "a"}, request=ASK)
    davy.push("payments", [row("s3", 100.0, minutes=30)])
    data = davy.training_set([{"card": "a", "time": served.time} | ASK], "fraud")
    assert dict(zip(data.columns, data.features.row(0), strict=True)) == served
    assert davy.training_set([{"card": "a", "time": served.time} | ASK], "fraud", as_known="event").features["n_1h"].to_list() == [3]


def test_labels_are_no_features(project: Path) -> None:
    spine = {"card": ["a"], "time": [moment(minutes=1)], "price": [1.0], "hour": [1]}
    with pytest.raises(InvalidInput, match="'price' is one of the features"):
        davy.training_set(spine, "fraud", label="price")
    with pytest.raises(InvalidInput, match="'hour' is one of the features"):
        davy.training_set(spine, "fraud", label="hour")
    with pytest.raises(InvalidInput, match="no column 'late'"):
        davy.training_set(spine, "fraud", label="late")


def test_two_processes_share_one_home(project: Path) -> None:
    davy.push("payments", [row("s1")])
    assert davy.online("Card", {"card": "a"})["n_1h"] == 1
    pushed = elsewhere(f'print(davy.push("payments", [{row("s2", 4.0)!r}, {row("s1")!r}]).duplicates, davy.online("Card", {{"card": "a"}})["sum_1h"])', project)
    assert pushed == "1 6.5"
    found = davy.online("Card", {"card": "a"})
    assert (found["sum_1h"], found.watermarks) == (6.5, {"payments": 2})
    davy.push("payments", [row("s3", 1.0)])
    spine = {"card": ["a"], "time": [found.time + 3_000_000_000]}
    digest = elsewhere(f'print(davy.training_set({spine!r}, "Card").digest)', project)
    assert davy.training_set(spine, "Card").digest == digest


def test_a_changed_definition_is_a_new_view(project: Path) -> None:
    davy.push("payments", [row("s1", minutes=90)])
    assert davy.online("Card", {"card": "a"})["n_1h"] == 0
    (project / "features.py").write_text(FEATURES.replace('n_1h = davy.agg.count(window="1h")', 'n_2h = davy.agg.count(window="2h")'))
    os.utime(project / "features.py", ns=(1, 1))
    assert davy.online("Card", {"card": "a"})["n_2h"] == 1


@pytest.mark.parametrize("kind", ["davy.Float(scale=2)", "int", "bool"])
def test_events_are_not_read_in_another_unit_after_a_field_has_changed(project: Path, kind: str) -> None:
    davy.push("payments", [row("s1")])
    davy.online("Card", {"card": "a"})
    (project / "features.py").write_text(FEATURES.replace('"amount": float', f'"amount": {kind}'))
    os.utime(project / "features.py", ns=(1, 1))
    for call in (lambda: davy.online("Card", {"card": "a"}), lambda: davy.training_set({"card": ["a"], "time": [moment(minutes=1)]}, "Card"),
                 lambda: davy.push("payments", [row("s2")])):  # fmt: skip
        with pytest.raises(Conflict, match="'amount'") as refused:
            call()
        assert refused.value.allowed == "Its events hold float with 6 decimals."


def test_a_home_that_was_deleted_begins_anew(project: Path) -> None:
    davy.push("payments", [row("s1")])
    assert davy.online("Card", {"card": "a"})["n_1h"] == 1
    shutil.rmtree(project / ".davy")
    assert davy.online("Card", {"card": "a"})["n_1h"] == 0
    assert davy.push("payments", [row("s1")]).last_offset == 1
    assert davy.online("Card", {"card": "a"})["n_1h"] == 1


def test_outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"There is no davy\.toml") as caught:
        davy.push("payments", [row("s1")])
    assert "davy init" in caught.value.fix


def test_a_run(project: Path) -> None:
    davy.push("payments", [row("s1")])
    with davy.run("first look") as run:
        run.param("hours", 1)
        run.log(auc=0.75)
    code = f"""
from davy.home import Home
from davy.tracking.runs import get_run

with Home.open().database.read() as connection:
    print(get_run(connection, {run.id!r}).name)
"""
    assert elsewhere(code, project) == "first look"
