"""Logged models are found by what they are and by any of their metrics' points, on the datasets asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from databases import open_at
from davy.core.clock import DrivenClock
from davy.errors import InvalidInput
from davy.schema.tables import logged_model_metrics, logged_model_params, logged_model_tags, logged_models
from davy.tracking import experiments, runs
from davy.tracking.logged_search import Dataset, LoggedOrder, search_logged_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

EVAL, TEST = Dataset("eval", "d1"), Dataset("test")
# id, type, stage, params, tags, points (key, time, step, value, dataset)
MODELS: list[tuple[str, str | None, str, dict[str, str], dict[str, str], list[tuple[str, int, int, float, Dataset | None]]]] = [
    ("m-a", "lgbm", "active", {"lr": "0.1"}, {"team": "ops"}, [("auc", 1, 0, 0.9, EVAL), ("auc", 2, 0, 0.5, Dataset("test", "d9")), ("loss", 1, 0, 3.0, None)]),
    ("m-b", None, "active", {"lr": "0.2", "a b": "x"}, {}, [("auc", 1, 0, 0.7, None), ("auc", 1, 1, 0.6, EVAL)]),
    ("m-c", "LGBM", "active", {}, {"team": "Ops"}, [("auc", 1, 0, math.nan, None)]),
    ("m-d", "lgbm", "deleted", {"lr": "0.1"}, {}, [("auc", 1, 0, 0.9, EVAL)]),
    ("m-e", "sk", "active", {"lr": "0.1"}, {}, []),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, int]]:
    folder = tmp_path_factory.mktemp("logged")
    clock = DrivenClock(folder / "clock", start=1_000_000_000)
    database = open_at(folder / "davy.db")
    with database.begin() as connection:
        number = experiments.create_experiment(connection, clock=clock, actor="ada", name="e").id
        run_id = runs.create_run(connection, clock=clock, user="ada", experiment_id=number, name="r")
        for place, (model_id, kind, stage, params, tags, points) in enumerate(MODELS):
            connection.execute(sa.insert(logged_models).values(
                model_id=model_id, experiment_id=number, name=f"n{place}", artifact_uri="x", status="READY", model_type=kind,
                source_run_id=run_id if place else None, creation_time=place, last_update_time=9 - place, lifecycle_stage=stage))
            for table, values in ((logged_model_params, params), (logged_model_tags, tags)):
                for key, value in values.items():
                    connection.execute(sa.insert(table).values(model_id=model_id, key=key, value=value))
            for key, time, step, value, dataset in points:
                connection.execute(sa.insert(logged_model_metrics).values(
                    model_id=model_id, run_id=run_id, key=key, timestamp=time, step=step, value=0.0 if math.isnan(value) else value, is_nan=math.isnan(value),
                    dataset_name=dataset and dataset.name, dataset_digest=dataset and dataset.digest))
    yield database, number
    database.close()


def _found(filled: tuple[Database, int], text: str, *order: LoggedOrder, datasets: tuple[Dataset, ...] = ()) -> str:
    database, number = filled
    found: list[str] = []
    after = None
    while True:
        with database.read() as connection:
            page = search_logged_models(connection, experiments=[number], filter=text, datasets=datasets, order_by=order, limit=1, after=after)
        found += page.ids
        after = page.next
        if after is None:
            return "".join(model_id[-1] for model_id in found)


@pytest.mark.parametrize(("text", "found"), [
    ("", "ecba"), ("name = 'n1'", "b"), ("model_id != 'm-a'", "ecb"), ("model_type ILIKE 'lgbm'", "ca"), ("model_type = 'lgbm'", "a"),
    ("model_type is null", "b"),
    ("attributes.status = 'READY' and creation_time > 1", "ec"), ("last_updated_timestamp >= 8", "ba"), ("creation_timestamp in (0, 4)", "ea"),
    ("params.lr = '0.1'", "ea"), ("params.lr = 0.1", "ea"), ("params.`a b` = 'x'", "b"), ("params.lr IN ('0.1', '0.2')", "eba"), ("tags.team = 'ops'", "a"),
    ("tags.team NOT IN ('ops')", "c"), ("metrics.auc > 0.8", "a"), ("metrics.auc < 0.65", "ba"), ("metrics.auc != 0.9", "cba"), ("metrics.loss = 3", "a"),
    ("not metrics.auc > 0.8", "ecb"), ("metrics.auc > 0.8 or params.lr = 0.2", "ba"), ("source_run_id is null", "a"), ("name = n2", "c"),
])
def test_filters(filled: tuple[Database, int], text: str, found: str) -> None:
    assert _found(filled, text) == found


def test_datasets_restrict_conditions_on_metrics(filled: tuple[Database, int]) -> None:
    assert _found(filled, "metrics.auc > 0.4", datasets=(EVAL,)) == "ba"
    assert _found(filled, "metrics.auc > 0.65", datasets=(EVAL,)) == "a"
    assert _found(filled, "metrics.auc > 0.65", datasets=(TEST,)) == ""
    assert _found(filled, "metrics.auc > 0.4", datasets=(TEST, Dataset("eval", "other"))) == "a"
    assert _found(filled, "params.lr = '0.2'", datasets=(EVAL,)) == "b"
    assert _found(filled, "", datasets=(TEST,)) == "a"


def test_orders_take_the_newest_point_on_the_dataset(filled: tuple[Database, int]) -> None:
    assert _found(filled, "", LoggedOrder("metrics.auc", ascending=False)) == "bace"
    assert _found(filled, "", LoggedOrder("metrics.auc")) == "abce"
    assert _found(filled, "", LoggedOrder("metrics.auc", ascending=False, dataset=EVAL)) == "abec"
    assert _found(filled, "", LoggedOrder("model_type"), LoggedOrder("creation_time")) == "caeb"
    assert _found(filled, "", LoggedOrder("name")) == "abce"
    assert _found(filled, "", LoggedOrder("last_updated_timestamp")) == "ecba"


@pytest.mark.parametrize(("asked", "message"), [
    ({"filter": "metric.auc > 1"}, "Invalid entity type: 'metric'. Expected one of"),
    ({"filter": "metrics.auc LIKE 1"}, "Invalid comparison operator for metrics.auc: 'LIKE'"),
    ({"filter": "name = 'x' oder"}, "Expected a list of comparisons separated by 'AND'"), ({"filter": "nam = 'x'"}, "did you mean 'name'?"),
    ({"order_by": [LoggedOrder("params.lr")]}, "Only metrics are supported"), ({"order_by": [LoggedOrder("nam")]}, "Invalid order by field name: nam"),
    ({"order_by": [LoggedOrder("creation_time"), LoggedOrder("creation_timestamp")]}, "duplicate"), ({"after": "x"}, "Invalid page token"),
])
def test_what_is_wrong_is_said(filled: tuple[Database, int], asked: dict[str, Any], message: str) -> None:
    database, number = filled
    with database.read() as connection, pytest.raises(InvalidInput) as caught:
        search_logged_models(connection, experiments=[number], **asked)
    assert message in str(caught.value)


def test_a_token_belongs_to_its_search(filled: tuple[Database, int]) -> None:
    database, number = filled
    with database.read() as connection:
        token = search_logged_models(connection, experiments=[number], limit=1).next
        for asked in ({"filter": "name != 'x'"}, {"datasets": [EVAL]}, {"order_by": [LoggedOrder("creation_time", ascending=False)]},
                      {"experiments": [number, 99]}):
            with pytest.raises(InvalidInput, match="Invalid page token"):
                search_logged_models(connection, **({"experiments": [number], "after": token} | asked))  # type: ignore[arg-type]
