"""Logged models: made, written to, hidden; and what runs measure of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from davy.errors import Conflict, InvalidInput, NotFound
from davy.tracking import logged_models as tracked
from davy.tracking.experiments import set_experiment_stage
from davy.tracking.logged_models import LoggedModel, ModelMetric
from davy.tracking.runs import create_run

if TYPE_CHECKING:
    from davy.home import Home


def _make(home: Home, **given: Any) -> LoggedModel:
    with home.database.begin() as connection:
        return tracked.create_logged_model(connection, clock=home.clock, experiment_id=0, **given)


def _find(home: Home, model_id: str, **given: Any) -> LoggedModel | None:
    with home.database.read() as connection:
        return tracked.find_logged_model(connection, model_id, **given)


def test_a_logged_model_comes_back_as_it_was_made(home: Home) -> None:
    made = _make(home, name="net", model_type="agent", source_run_id="f" * 32, params={"b": "2", "a": "1"}, tags={"t": "x"})
    assert _find(home, made.id) == made
    assert made.id.startswith("m-")
    assert len(made.id) == 34
    assert made.artifact_uri.endswith(f"/models/{made.id}/artifacts")
    assert (made.status, made.params, made.tags, made.model_type) == ("PENDING", {"a": "1", "b": "2"}, {"t": "x"}, "agent")
    nameless = _make(home)
    assert nameless.name
    with home.database.begin() as connection:
        tracked.finalize_logged_model(connection, made.id, clock=home.clock, status="READY")
        assert [found.id for found in tracked.read_logged_models(connection, [nameless.id, "m-none", made.id])] == [nameless.id, made.id]
    found = _find(home, made.id)
    assert found is not None
    assert found.status == "READY"


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", "x" * 501])
def test_a_name_that_is_none_is_refused(home: Home, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        _make(home, name=name)


def test_params_are_set_once_and_tags_may_change(home: Home) -> None:
    made = _make(home, params={"a": "1"})
    with home.database.begin() as connection:
        tracked.log_model_params(connection, made.id, {"a": "1", "b": "2"})
        tracked.log_model_params(connection, made.id, {"a": "1", "b": "2"})
        with pytest.raises(Conflict, match=r"'a' was already logged with value='1'[\s\S]*'3'"):
            tracked.log_model_params(connection, made.id, {"c": "3", "a": "3"})
        tracked.set_model_tags(connection, made.id, {"t": "x"})
        tracked.set_model_tags(connection, made.id, {"t": "y", "u": "z"})
        tracked.delete_model_tag(connection, made.id, "u")
        with pytest.raises(NotFound, match="No tag with key 'u'"):
            tracked.delete_model_tag(connection, made.id, "u")
        with pytest.raises(InvalidInput, match="250"):
            tracked.set_model_tags(connection, made.id, {"k" * 251: ""})
    found = _find(home, made.id)
    assert found is not None
    assert (found.params, found.tags) == ({"a": "1", "b": "2"}, {"t": "y"})


def test_what_a_run_measures_of_it(home: Home) -> None:
    made = _make(home)
    with home.database.begin() as connection:
        run = create_run(connection, clock=home.clock, user="ada", experiment_id=0, name="r")
        points = [ModelMetric(made.id, "auc", 0.5, 1, 10, "test", "d1"), ModelMetric(made.id, "auc", math.nan, 2, 20),
                  ModelMetric(made.id, "loss", math.inf, 0, 5)]
        for _ in range(2):
            tracked.add_model_metrics(connection, run, points)
        tracked.add_model_metrics(connection, run, [ModelMetric(made.id, "auc", 0.7, 1, 10), ModelMetric(made.id, "auc", 0.6, 1, 10)])
        tracked.add_model_metrics(connection, run, [ModelMetric(made.id, "auc", 0.1, 1, 10)])
        with pytest.raises(NotFound, match="m-none"):
            tracked.add_model_metrics(connection, run, [ModelMetric("m-none", "auc", 0.5, 1, 10)])
    found = _find(home, made.id)
    assert found is not None
    assert [(point.key, point.step, point.timestamp, point.run_id) for point in found.metrics] == [
        ("auc", 1, 10, run), ("auc", 2, 20, run), ("loss", 0, 5, run)]
    assert found.metrics[0].value == 0.7
    assert math.isnan(found.metrics[1].value)
    assert found.metrics[2].value == math.inf


def test_versions_are_noted_on_it(home: Home) -> None:
    made = _make(home)
    with home.database.begin() as connection:
        for version in (1, 2, 2):
            tracked.note_version(connection, made.id, "late", version)
    found = _find(home, made.id)
    assert found is not None
    assert found.tags == {"mlflow.modelVersions": '[{"name": "late", "version": 1}, {"name": "late", "version": 2}]'}
    with home.database.begin() as connection:
        tracked.set_model_tags(connection, made.id, {"mlflow.modelVersions": "not json"})
        tracked.note_version(connection, made.id, "late", 3)
    found = _find(home, made.id)
    assert found is not None
    assert found.tags == {"mlflow.modelVersions": '[{"name": "late", "version": 3}]'}


def test_a_deleted_one_is_hidden(home: Home) -> None:
    made = _make(home)
    for _ in range(2):
        with home.database.begin() as connection:
            tracked.delete_logged_model(connection, made.id, clock=home.clock, actor="ada")
    assert _find(home, made.id) is None
    found = _find(home, made.id, deleted=True)
    assert found is not None
    assert found.lifecycle == "deleted"
    with home.database.begin() as connection:
        with pytest.raises(NotFound):
            tracked.delete_logged_model(connection, "m-none", clock=home.clock, actor="ada")
        with pytest.raises(NotFound):
            tracked.finalize_logged_model(connection, "m-none", clock=home.clock, status="READY")


def test_it_is_made_in_an_active_experiment(home: Home) -> None:
    with home.database.begin() as connection:
        with pytest.raises(NotFound, match="77"):
            tracked.create_logged_model(connection, clock=home.clock, experiment_id=77)
        set_experiment_stage(connection, clock=home.clock, actor="ada", identity=0, stage="deleted")
        with pytest.raises(Conflict, match="deleted"):
            tracked.create_logged_model(connection, clock=home.clock, experiment_id=0)
