"""Searches find what MLflow's own store finds, in its order.

`mlflow_searches.json` holds 36 runs and 400 searches, drawn at random, with the answers of MLflow 3.17.2 on SQLite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from curves_kit import put_points
from databases import open_at
from davy.core.clock import DrivenClock
from davy.schema.tables import datasets, input_tags, inputs
from davy.tracking import experiments, plan, runs
from davy.tracking.languages import CONTEXT
from davy.tracking.search import search_run_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "mlflow_searches.json").read_text())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, list[int]]]:
    folder = tmp_path_factory.mktemp("mlflow")
    clock = DrivenClock(folder / "clock", start=1_000_000_000)
    database = open_at(folder / "davy.db")
    with database.begin() as connection:
        ids = [experiments.create_experiment(connection, clock=clock, actor="ada", name=name).id for name in ("a", "b")]
        for run in GOLDEN["runs"]:
            runs.create_run(connection, clock=clock, user=run["user"], experiment_id=ids[run["experiment"]], name=run["name"], tags=run["tags"],
                            started=run["start"] * 1000, run_id=run["id"])
            runs.log_params(connection, run["id"], run["params"])
            put_points(connection, run["id"], [(key, float(value), step, time) for key, value, step, time in run["metrics"]])
            for name, digest, context in run["datasets"]:
                identity = f"{run['experiment']}-{name}"
                if connection.scalar(sa.select(datasets.c.name).where(datasets.c.dataset_id == identity)) is None:
                    connection.execute(sa.insert(datasets).values(dataset_id=identity, experiment_id=ids[run["experiment"]], name=name, digest=digest,
                                                                  source_type="local", source="x"))
                connection.execute(sa.insert(inputs).values(run_id=run["id"], dataset_id=identity))
                if context:
                    connection.execute(sa.insert(input_tags).values(run_id=run["id"], dataset_id=identity, key=CONTEXT, value=context))
            if run["end"]:
                runs.finish_run(connection, run["id"], status=run["status"], ended=run["end"] * 1000)
            if run["deleted"]:
                runs.set_run_stage(connection, run["id"], clock=clock, actor="ada", stage="deleted")
    yield database, ids
    database.close()


@pytest.mark.parametrize("limits", [plan.LIMITS, plan.Limits(small=-1, bound=3, patience=6, stretch=1)], ids=["few", "walking"])
def test_what_mlflow_finds_is_found_in_its_order(filled: tuple[Database, list[int]], monkeypatch: pytest.MonkeyPatch, limits: plan.Limits) -> None:
    monkeypatch.setattr(plan, "LIMITS", limits)
    database, ids = filled
    places = {run["id"]: place for place, run in enumerate(GOLDEN["runs"])}
    different = []
    with database.read() as connection:
        for asked in GOLDEN["searches"]:
            found = search_run_ids(connection, experiments=[ids[number] for number in asked["experiments"]], filter=asked["filter"], order_by=asked["order_by"],
                                   view=asked["view"], limit=1000)
            if (answer := [places[run_id] for run_id in found.ids]) != asked["runs"]:
                different.append((asked, answer))
    assert different == []
