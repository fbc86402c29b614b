"""Registered models as a whole, their stages and tags; and that a model of ten thousand versions is as quick as one of ten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput, NotFound
from davy.registry import aliases, catalog, stages, tags, versions
from davy.registry.models import find_version, list_models, list_versions
from davy.registry.sources import Source
from davy.schema.tables import gates, model_version_tags, model_versions, traffic
from davy.store import journal
from registry.test_models import _register

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.home import Home
    from davy.registry.catalog import RegisteredModel

S3 = Source("s3://bucket/model")


def _do(home: Home, work: Callable[..., Any], **given: Any) -> Any:
    with home.database.begin() as connection:
        return work(connection, clock=home.clock, actor="ada", **given)


def _find(home: Home, name: str) -> RegisteredModel | None:
    with home.database.read() as connection:
        found, listed = catalog.find_model(connection, name), catalog.read_models(connection, [name, "nobody"])
        assert listed == ([] if found is None else [found])
        return found


def test_a_model_is_made_described_tagged_and_deleted(home: Home) -> None:
    _do(home, catalog.create_model, name="late", description="first", tags={"b": "2", "a": "1"})
    found = _find(home, "late")
    assert found is not None
    assert (found.description, found.tags, found.aliases, found.latest, found.is_prompt) == ("first", {"a": "1", "b": "2"}, {}, (), False)
    with pytest.raises(Conflict):
        _do(home, catalog.create_model, name="late")
    _do(home, catalog.describe_model, name="late", description="second")
    _do(home, tags.set_model_tag, name="late", key="a", value="3")
    _do(home, tags.set_model_tag, name="late", key="a", value="3")
    _do(home, tags.set_model_tag, name="late", key="b", value=None)
    _do(home, tags.set_model_tag, name="late", key="b", value=None)
    found = _find(home, "late")
    assert found is not None
    assert (found.description, found.tags) == ("second", {"a": "3"})
    _do(home, catalog.delete_model, name="late")
    assert _find(home, "late") is None
    with home.database.read() as connection:
        told = [entry.action for entry in reversed(journal.entries(connection))]
        assert journal.verify(connection).broken is None
    assert told == ["model.create", "model.describe", "model.tag", "model.tag", "model.delete"]


def test_a_long_tag_is_in_the_journal_by_its_digest(home: Home) -> None:
    _do(home, catalog.create_model, name="late")
    _do(home, tags.set_model_tag, name="late", key="a", value="x" * 100_000)
    with pytest.raises(InvalidInput, match="100000"):
        _do(home, tags.set_model_tag, name="late", key="a", value="x" * 100_001)
    with home.database.read() as connection:
        details = journal.entries(connection, action="model.tag")[0].details
    assert details["value"]["characters"] == 100_000


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", ".", "..", "x" * 501, "a\x00b"])
def test_a_name_that_is_none_is_refused(home: Home, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        _do(home, catalog.create_model, name=name)


def test_a_rename_carries_everything(home: Home) -> None:
    _register(home, tags={"team": "ops"})
    _do(home, versions.create_version, name="late", source=S3, tags={"k": "v"})
    _do(home, aliases.set_alias, name="late", alias="production", version=2)
    _do(home, tags.set_model_tag, name="late", key="a", value="1")
    with home.database.begin() as connection:
        connection.execute(sa.insert(gates).values(gate_id="g", name="late", version=1, state="passed", complete=True, time=1, actor="ada", digest="sha256:0",
                                                   evidence="{}", seq=1))
    _do(home, catalog.create_model, name="taken")
    with pytest.raises(Conflict, match="taken"):
        _do(home, catalog.rename_model, name="late", to="taken")
    _do(home, catalog.rename_model, name="late", to="delayed")
    assert _find(home, "late") is None
    found = _find(home, "delayed")
    assert found is not None
    assert (found.tags, found.aliases, [version.version for version in found.latest]) == ({"a": "1"}, {"production": 2}, [2])
    with home.database.read() as connection:
        first, second = find_version(connection, "delayed", 1), find_version(connection, "delayed", 2)
        assert connection.scalar(sa.select(gates.c.name)) == "delayed"
    assert first is not None
    assert second is not None
    assert (first.tags, second.tags, second.aliases) == ({"team": "ops"}, {"k": "v"}, ("production",))
    assert first.source == "models:/delayed/1"


def test_what_serves_is_neither_renamed_nor_deleted(home: Home) -> None:
    _register(home)
    _register(home)
    with home.database.begin() as connection:
        connection.execute(sa.insert(traffic).values(model="late", revision=1, weights='{"late@1": 1.0}', updated=0, actor="ada", shadow=2))
    for work, more in ((catalog.rename_model, {"to": "delayed"}), (catalog.delete_model, {}), (versions.delete_version, {"version": 1}),
                       (versions.delete_version, {"version": 2})):
        with pytest.raises(Conflict, match="traffic"):
            _do(home, work, name="late", **more)


def test_the_newest_version_of_each_stage_is_told(home: Home) -> None:
    _do(home, catalog.create_model, name="late")
    for _ in range(5):
        _do(home, versions.create_version, name="late", source=S3)
    _do(home, stages.transition, name="late", version=1, stage="production")
    _do(home, stages.transition, name="late", version=2, stage="Production")
    assert _do(home, stages.transition, name="late", version=3, stage="PRODUCTION", archive=True).stage == "Production"
    found = _find(home, "late")
    assert found is not None
    assert [(version.version, version.stage) for version in found.latest] == [(2, "Archived"), (3, "Production"), (5, "None")]
    _do(home, versions.delete_version, name="late", version=5)
    with home.database.read() as connection:
        assert [version.version for version in stages.latest_versions(connection, "late", ["none", "Staging"])] == [4]
    for stage, archive, error in (("Retired", False, InvalidInput), ("Archived", True, InvalidInput)):
        with pytest.raises(error):
            _do(home, stages.transition, name="late", version=1, stage=stage, archive=archive)
    with pytest.raises(NotFound, match="version=9"):
        _do(home, stages.transition, name="late", version=9, stage="Staging")


def test_a_deleted_version_is_hidden_forgets_its_source_and_its_number_is_not_given_again(home: Home) -> None:
    _do(home, catalog.create_model, name="late")
    for _ in range(2):
        _do(home, versions.create_version, name="late", source=Source("s3://secret/place", "f" * 32), description="mine")
    _do(home, versions.delete_version, name="late", version=2)
    with home.database.read() as connection:
        assert find_version(connection, "late", 2) is None
        assert [version.version for version in list_versions(connection, "late")] == [1]
        row = connection.execute(sa.select(model_versions).where(model_versions.c.version == 2)).one()
        assert (row.source, row.run_id, row.description, row.user_id) == ("REDACTED-SOURCE-PATH", "REDACTED-RUN-ID", None, "")
    assert _do(home, versions.create_version, name="late", source=S3).version == 3


def test_prompts_are_no_models(home: Home) -> None:
    _do(home, catalog.create_model, name="greeting", tags={"mlflow.prompt.is_prompt": "true"})
    _do(home, catalog.create_model, name="late")
    with home.database.read() as connection:
        assert [model.name for model in list_models(connection)] == ["late"]
    found = _find(home, "greeting")
    assert found is not None
    assert found.is_prompt


def test_many_versions_are_not_read_to_find_the_newest(home: Home) -> None:
    _do(home, catalog.create_model, name="late")
    with home.database.begin() as connection:
        now = home.clock.now() // 1000
        rows = [{"name": "late", "version": number, "creation_time": now, "last_update_time": now, "user_id": "ada", "current_stage": "None",
                 "source": "s3://b/k", "status": "READY", "deleted": False} for number in range(1, 3001)]
        connection.execute(sa.insert(model_versions), rows)
        connection.execute(sa.insert(model_version_tags), [{"name": "late", "version": number, "key": "k", "value": "v"} for number in range(1, 3001)])
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        driver = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            driver.set_progress_handler(count, 100)  # type: ignore[union-attr]
        found = catalog.find_model(connection, "late")
        if connection.dialect.name == "sqlite":
            driver.set_progress_handler(None, 0)  # type: ignore[union-attr]
    assert found is not None
    assert [(version.version, version.tags) for version in found.latest] == [(3000, {"k": "v"})]
    assert steps < 50  # of a hundred instructions each: a walk over the versions takes thousands
