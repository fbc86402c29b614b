"""A page costs about what it holds, whichever of filter and order is the narrow one, as SQLite's own steps show."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from databases import ON_POSTGRES, open_at
from davy.core.clock import DrivenClock
from davy.schema.tables import latest_metrics, params, runs, tags
from davy.tracking import experiments, plan
from davy.tracking.search import search_run_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.store.database import Database

pytestmark = pytest.mark.skipif(ON_POSTGRES, reason="PostgreSQL chooses by its statistics")
COUNT = 4000
SMALL = plan.Limits(small=20, bound=200, patience=400, stretch=50)
ALWAYS_SORTED = plan.Limits(small=10**6, bound=10**6)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("plans")
    opened = open_at(folder / "davy.db")
    draw = random.Random(3)
    with opened.begin() as connection:
        number = experiments.create_experiment(connection, clock=DrivenClock(folder / "clock", start=1_000_000_000), actor="ada", name="e").id
        ids = [f"{place:08x}{draw.getrandbits(96):024x}" for place in range(COUNT)]
        connection.execute(sa.insert(runs), [
            {"run_id": run_id, "experiment_id": number, "name": "r", "user_id": "ada", "status": "FINISHED", "start_time": place, "lifecycle_stage": "active",
             "artifact_uri": "x"} for place, run_id in enumerate(ids)])
        connection.execute(sa.insert(params), [{"run_id": run_id, "key": "p", "value": f"{draw.random():.2f}"} for run_id in ids])
        connection.execute(sa.insert(params), {"run_id": ids[7], "key": "q", "value": "rare"})
        connection.execute(sa.insert(tags), [{"run_id": ids[7], "key": key, "value": "rare"} for key in ("t", "mlflow.runName")])
        curves: list[dict[str, Any]] = []
        for run_id in ids:
            for key in ("x", "y"):
                value = draw.random()
                curves.append({"run_id": run_id, "key": key, "step": 0, "timestamp": 0, "value": value, "is_nan": False, "lowest": value, "highest": value,
                               "last": value, "last_is_nan": False, "newest": 0, "count": 1, "chunk": 0, "filled": 1})
        connection.execute(sa.insert(latest_metrics), curves)
    yield opened
    opened.close()


def _steps(database: Database, **asked: Any) -> tuple[list[str], int]:
    """What is found, and how many hundred steps of SQLite's machine that takes."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    with database.read() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.set_progress_handler(count, 100)
        try:
            found = search_run_ids(connection, experiments=["e"], limit=10, **asked).ids
        finally:
            driver.set_progress_handler(None, 0)
    return found, taken


@pytest.mark.parametrize(("text", "order"), [
    ("", []), ("", ["start_time"]), ("", ["metrics.x DESC"]), ("metrics.x > 0.5", ["metrics.y DESC"]), ("params.p like '0.1%'", []),
    ("params.p like '0.1%'", ["max(metrics.y)"]), ("metrics.x > 0.999", ["metrics.y"]), ("metrics.x > 0.999", []),
    ("not metrics.y > 0.1 or params.p = '0.50'", ["last(metrics.x) DESC", "params.p"]), ("metrics.x < 0.3", ["metrics.x DESC"]),
], ids=str)
def test_a_page_costs_what_it_holds(database: Database, monkeypatch: pytest.MonkeyPatch, text: str, order: list[str]) -> None:
    monkeypatch.setattr(plan, "LIMITS", ALWAYS_SORTED)
    whole, all_steps = _steps(database, filter=text, order_by=order)
    monkeypatch.setattr(plan, "LIMITS", SMALL)
    found, steps = _steps(database, filter=text, order_by=order)
    assert found == whole
    assert steps < all_steps / 4, (steps, all_steps)


@pytest.mark.parametrize("order", [[], ["metrics.x"]], ids=str)
def test_few_runs_of_a_param_or_tag_are_not_sought_among_all(database: Database, monkeypatch: pytest.MonkeyPatch, order: list[str]) -> None:
    monkeypatch.setattr(plan, "LIMITS", SMALL)
    for name in ("params.q", "tags.t", "run_name"):
        whole, all_steps = _steps(database, filter=f"{name} like 'rare'", order_by=order)
        for text in (f"{name} = 'rare'", f"{name} in ('rare', 'none')"):
            found, steps = _steps(database, filter=text, order_by=order)
            assert len(found) == 1
            assert found == whole
            assert steps < all_steps / 10, (text, steps, all_steps)


def test_a_walk_that_finds_little_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"filter": "max(metrics.x) < 0.04", "order_by": ["metrics.x DESC"]}
    monkeypatch.setattr(plan, "LIMITS", SMALL._replace(patience=10**6, bound=0))
    whole, stubborn = _steps(database, **asked)
    monkeypatch.setattr(plan, "LIMITS", SMALL)
    found, steps = _steps(database, **asked)
    assert found == whole
    assert steps < stubborn / 2, (steps, stubborn)
