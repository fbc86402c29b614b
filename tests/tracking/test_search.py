"""Search finds and orders runs as the obvious program would, page by page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databases import open_at
from davy.core.clock import DrivenClock
from davy.errors import Conflict, InvalidInput, NotFound
from davy.store import journal
from davy.tracking import experiments, runs
from davy.tracking.records import Metric, RunRecord
from davy.tracking.search import search_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.store.database import Database

STATUSES = ("RUNNING", "FINISHED", "FAILED")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_at(tmp_path_factory.mktemp("search") / "davy.db")
    yield opened
    opened.close()


@pytest.fixture
def clock(tmp_path: Path) -> DrivenClock:
    return DrivenClock(tmp_path / "clock", start=1_000_000_000)


def _fill(database: Database, clock: DrivenClock, rows: list[tuple[int, float | None, str, str]]) -> tuple[str, list[RunRecord]]:
    """Runs of one new experiment: (start, value of `auc`, status, tag)."""
    with database.begin() as connection:
        name = f"e{len(experiments.list_experiments(connection))}"
        made = experiments.create_experiment(connection, clock=clock, actor="ada", name=name)
        ids = []
        for start, value, status, tag in rows:
            run_id = runs.create_run(connection, clock=clock, user="ada", experiment_id=made.id, name="r", tags={"team": tag}, started=start * 1000)
            if value is not None:
                runs.log_metrics(connection, run_id, [Metric("auc", -99.0, 0, 0), Metric("auc", value, 1, 0)])
            if status != "RUNNING":
                runs.finish_run(connection, run_id, status=status, ended=start * 1000)  # type: ignore[arg-type]
            ids.append(run_id)
        return name, runs.read_runs(connection, ids)


def _oracle(found: list[RunRecord], order: str | None, ascending: bool) -> list[str]:
    sign = 1 if ascending else -1

    def key(run: RunRecord) -> tuple[float, float, float, str]:
        if order is None:
            return 0, 0, sign * run.started, run.id
        value = run.metrics.get(order)
        if value is None:
            return 2, 0, -run.started, run.id
        return (1, 0, -run.started, run.id) if math.isnan(value) else (0, sign * value, -run.started, run.id)

    return [run.id for run in sorted(found, key=key)]


VALUES = st.none() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 0.5, -1.0, 1e300]) | st.floats(allow_nan=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(0, 5), VALUES, st.sampled_from(STATUSES), st.sampled_from("ab")), max_size=12), order=st.sampled_from([None, "auc"]),
       ascending=st.booleans(), limit=st.integers(1, 5), status=st.none() | st.sampled_from(STATUSES), tag=st.none() | st.sampled_from("ab"))
def test_pages_together_are_the_sorted_whole(database: Database, clock: DrivenClock, rows: list[tuple[int, float | None, str, str]], order: str | None,
                                             ascending: bool, limit: int, status: str | None, tag: str | None) -> None:
    name, made = _fill(database, clock, rows)
    wanted = [run for run in made if status in (None, run.status) and tag in (None, run.tags["team"])]
    found: list[str] = []
    after = None
    with database.read() as connection:
        while True:
            page = search_runs(connection, experiment=name, status=status, with_tags={} if tag is None else {"team": tag}, order=order,  # type: ignore[arg-type]
                               ascending=ascending, limit=limit, after=after)
            found += [run.id for run in page.runs]
            after = page.next
            if after is None:
                break
            assert len(page.runs) == limit
    assert found == _oracle(wanted, order, ascending)


def test_a_page_belongs_to_its_search(database: Database, clock: DrivenClock) -> None:
    name, _ = _fill(database, clock, [(1, 0.5, "RUNNING", "a")] * 3)
    with database.read() as connection:
        token = search_runs(connection, experiment=name, limit=1).next
        for given_token, order in ((token, "auc"), ("nonsense", None), ("", None), (str(token)[:-4], None), ("WzFd", None)):
            with pytest.raises(InvalidInput, match="page of this search"):
                search_runs(connection, experiment=name, limit=1, order=order, after=given_token)
        for limit in (0, -1, 50_001):
            with pytest.raises(InvalidInput, match="limit"):
                search_runs(connection, limit=limit)


def test_several_experiments_and_deleted_runs(database: Database, clock: DrivenClock) -> None:
    first, made = _fill(database, clock, [(1, None, "RUNNING", "a")])
    second, others = _fill(database, clock, [(2, None, "RUNNING", "a")])
    with database.begin() as connection:
        both = search_runs(connection, experiment=[first, second]).runs
        assert [run.id for run in both] == [others[0].id, made[0].id]
        experiments.set_experiment_stage(connection, clock=clock, actor="ada", identity=made[0].experiment_id, stage="deleted")
        assert search_runs(connection, experiment=first).runs == []
        assert [run.id for run in search_runs(connection, experiment=first, deleted=True).runs] == [made[0].id]
        with pytest.raises(Conflict, match="deleted"):
            experiments.ensure_experiment(connection, clock=clock, actor="ada", name=first)
        experiments.set_experiment_stage(connection, clock=clock, actor="ada", identity=made[0].experiment_id, stage="active")
        assert len(search_runs(connection, experiment=first).runs) == 1


def test_experiments_are_made_found_renamed_and_journalled(database: Database, clock: DrivenClock) -> None:
    with database.begin() as connection:
        made = experiments.create_experiment(connection, clock=clock, actor="ada", name="first", tags={"team": "ops"})
        assert made.tags == {"team": "ops"}
        assert made.artifact_location == f"mlflow-artifacts:/{made.id}"
        assert experiments.ensure_experiment(connection, clock=clock, actor="ada", name="first") == made
        experiments.rename_experiment(connection, clock=clock, actor="ada", identity=made.id, name="second")
        assert experiments.get_experiment(connection, "second").id == made.id
        with pytest.raises(Conflict, match="already"):
            experiments.create_experiment(connection, clock=clock, actor="ada", name="second")
        with pytest.raises(NotFound, match="'second'"):
            experiments.get_experiment(connection, "secnd")
        for name in ("", " ", "x" * 501):
            with pytest.raises(InvalidInput, match="name"):
                experiments.create_experiment(connection, clock=clock, actor="ada", name=name)
        assert [entry.action for entry in journal.entries(connection, subject="second")] == ["experiment.rename"]
        assert journal.verify(connection).broken is None
