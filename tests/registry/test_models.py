"""Versions, aliases and tags on a real database, each with its journal entry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import sqlalchemy as sa

from davy.errors import Conflict, CorruptData, InvalidInput, NotFound
from davy.registry import aliases, models, tags, versions
from davy.registry.alias_history import alias_history
from davy.registry.definitions import TrainingSetRecord, get_feature_set, get_training_set, get_views, put_feature_set, put_training_set
from davy.registry.lineage import lineage
from davy.schema.tables import releases, traffic
from davy.store import journal
from davy.tracking import run as start_run
from registry.samples import feature_set, signature

if TYPE_CHECKING:
    from davy.home import Home
    from davy.registry.models import ModelVersion


def _register(home: Home, name: str = "late", **more: object) -> ModelVersion:
    files = models.store_files(home.blobs, {"model.txt": b"tree", "meta/info.json": b"{}"})
    given = {"format": "lightgbm", "files": files, "signature": signature(), "feature_set": feature_set(), **more}
    with home.database.begin() as connection:
        return models.register(connection, clock=home.clock, actor="ada", name=name, **given)  # type: ignore[arg-type]


def _resolve(home: Home, reference: str) -> ModelVersion:
    with home.database.read() as connection:
        return models.resolve(connection, reference)


def _alias(home: Home, alias: str, version: int) -> None:
    with home.database.begin() as connection:
        aliases.set_alias(connection, clock=home.clock, actor="ada", name="late", alias=alias, version=version)


def _journal(home: Home) -> list[str]:
    with home.database.read() as connection:
        assert journal.verify(connection).broken is None
        return [entry.action for entry in reversed(journal.entries(connection))]


def test_a_version_comes_back_as_it_was_registered(home: Home) -> None:
    made = _register(home, description="first", tags={"team": "ops"})
    assert (made.reference, made.format, made.actor, made.description, made.tags) == ("late@1", "lightgbm", "ada", "first", {"team": "ops"})
    found = _resolve(home, "late@1")
    assert found == made
    assert found.signature is not None
    assert found.signature.encode([1.5, 100, "JFK"]) == [1.5, 100.0, 1.0]
    assert home.blobs.get(found.files["meta/info.json"]) == b"{}"
    with home.database.read() as connection:
        assert get_feature_set(connection, str(found.feature_set)) == feature_set()


def test_the_digest_covers_files_format_signature_and_features(home: Home) -> None:
    digests = [_register(home).digest, _register(home, format="sklearn").digest, _register(home, files={"model.txt": home.blobs.put(b"other")}).digest,
               _register(home, feature_set=feature_set(7_200_000_000)).digest]
    assert len(set(digests)) == 4
    assert _register(home).digest == digests[0]


def test_references_are_resolved(home: Home) -> None:
    for _ in range(3):
        _register(home)
    _alias(home, "production", 2)
    assert _resolve(home, "late").version == 3
    assert _resolve(home, "late@latest").version == 3
    assert _resolve(home, "late@1").version == 1
    assert _resolve(home, "late@production").version == 2
    assert _resolve(home, "late@2").aliases == ("production",)
    with home.database.read() as connection:
        assert [version.version for version in models.list_versions(connection, "late")] == [3, 2, 1]
        summary, = models.list_models(connection)
        assert (summary.name, summary.versions, summary.latest, summary.aliases) == ("late", 3, 3, {"production": 2})


@pytest.mark.parametrize(("reference", "hint"), [("lat", "'late'"), ("late@9", "1, 2"), ("late@prodution", "'production'"), ("other@1", "late")])
def test_what_is_not_there_names_what_is(home: Home, reference: str, hint: str) -> None:
    _register(home)
    _register(home)
    _alias(home, "production", 1)
    with pytest.raises(NotFound, match=hint):
        _resolve(home, reference)


def test_aliases_move_and_their_history_is_in_the_journal(home: Home) -> None:
    _register(home)
    _register(home)
    for alias, version in (("production", 1), ("production", 2), ("production", 2), ("canary", 1)):
        _alias(home, alias, version)
    with home.database.begin() as connection:
        aliases.delete_alias(connection, clock=home.clock, actor="bob", name="late", alias="production")
        aliases.delete_alias(connection, clock=home.clock, actor="bob", name="late", alias="production")
    with home.database.read() as connection:
        history = alias_history(connection, "late", "production")
    assert [(change.actor, change.before, change.version) for change in history] == [("bob", 2, None), ("ada", 1, 2), ("ada", None, 1)]
    assert _journal(home) == ["version.register", "version.register", "alias.set", "alias.set", "alias.set", "alias.delete"]


@pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v2", "a b", "x" * 256, "a@b", "a/b"])
def test_an_alias_that_could_be_misread_is_refused(home: Home, alias: str) -> None:
    _register(home)
    with pytest.raises(InvalidInput, match="alias"):
        _alias(home, alias, 1)


def test_a_version_that_is_held_can_not_be_deleted_and_its_number_is_not_given_again(home: Home) -> None:
    _register(home)
    _register(home)

    def delete(version: int) -> None:
        with home.database.begin() as connection:
            versions.delete_version(connection, clock=home.clock, actor="ada", name="late", version=version)

    with home.database.begin() as connection:
        row = {"model": "late", "revision": 1, "weights": '{"late@2": 1.0}', "updated": 0, "actor": "ada"}
        connection.execute(sa.insert(traffic).values(row))
    with pytest.raises(Conflict, match="traffic"):
        delete(2)
    with home.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM traffic"))
        connection.execute(sa.insert(releases).values(id="r1", model="late", version=2, stable=1, strategy="canary", state="pending", policy="{}",
                                                      progress="{}", evidence="{}", created=0, updated=0, actor="ada"))
    for version in (1, 2):
        with pytest.raises(Conflict, match="davy abort late"):
            delete(version)
    with home.database.begin() as connection:
        connection.execute(sa.update(releases).values(ended=1))
    delete(2)
    assert _resolve(home, "late").version == 1
    with pytest.raises(NotFound):
        _resolve(home, "late@2")
    assert _register(home).version == 3


def test_tags_and_descriptions(home: Home) -> None:
    _register(home)
    with home.database.begin() as connection:
        for value in ("1", "2"):
            tags.set_tag(connection, clock=home.clock, actor="ada", name="late", version=1, key="k", value=value)
        versions.describe(connection, clock=home.clock, actor="ada", name="late", version=1, description="better")
    assert (_resolve(home, "late@1").tags, _resolve(home, "late@1").description) == ({"k": "2"}, "better")
    with home.database.begin() as connection:
        tags.set_tag(connection, clock=home.clock, actor="ada", name="late", version=1, key="k", value=None)
    assert _resolve(home, "late@1").tags == {}
    assert _journal(home)[1:] == ["version.tag", "version.tag", "version.describe", "version.tag"]


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a@b", " x", "..", "x" * 501, "a\nb"])
def test_a_name_that_could_be_misread_is_refused(home: Home, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        _register(home, name)


def test_what_does_not_fit_is_refused_and_leaves_nothing(home: Home) -> None:
    with pytest.raises(InvalidInput, match="files"):
        _register(home, files={})
    with pytest.raises(InvalidInput, match="columns"):
        _register(home, signature=msgspec.structs.replace(signature(), columns=signature().columns[:1]))
    with pytest.raises(InvalidInput, match="sealed"):
        _register(home, feature_set=msgspec.structs.replace(feature_set(), digest="sha256:0"))
    with pytest.raises(Conflict):
        _register(home, training_set="sha256:" + "0" * 64)
    assert _journal(home) == []
    with home.database.read() as connection:
        assert models.list_models(connection) == []
    with pytest.raises(InvalidInput, match="path"):
        models.store_files(home.blobs, {"../model.txt": b""})


def test_processes_that_register_at_once_get_different_numbers(home: Home, project: Path) -> None:
    _register(home)
    program = """
import os, sys
from pathlib import Path
from davy.home import Home
from davy.registry import models
from registry.samples import feature_set, signature
home = Home(Path(sys.argv[1]))
files = models.store_files(home.blobs, {"model.txt": b"tree"})
home.database
children = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(4):
                with home.database.begin() as connection:
                    models.register(connection, clock=home.clock, actor="ada", name="late", format="x", files=files,
                                    signature=signature(), feature_set=feature_set())
            status = 0
        finally:
            os._exit(status)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""
    places = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run([sys.executable, "-c", program, str(project)], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(places)})
    with home.database.read() as connection:
        assert [version.version for version in models.list_versions(connection, "late")] == list(range(21, 0, -1))
    assert len(_journal(home)) == 21


def test_a_feature_set_that_was_altered_in_the_database_is_told(home: Home) -> None:
    digest = feature_set().digest
    with home.database.begin() as connection:
        assert put_feature_set(connection, feature_set(), clock=home.clock) == put_feature_set(connection, feature_set(), clock=home.clock) == digest
        assert [view.name for view in get_views(connection)] == [view.name for view in get_views(connection, "Airport")] == ["Airport"]
        connection.execute(sa.text("UPDATE feature_sets SET json = replace(json, 'mean', 'max')"))
    with home.database.read() as connection, pytest.raises(CorruptData, match="damaged"):
        get_feature_set(connection, digest)
    with home.database.read() as connection, pytest.raises(NotFound):
        get_feature_set(connection, "sha256:" + "1" * 64)


def test_lineage_walks_from_the_version_to_the_commit(home: Home) -> None:
    record = TrainingSetRecord("sha256:" + "a" * 64, feature_set().digest, 1000, {"watermarks": {"flights": 17}, "as_known": "ingest"})
    with start_run("late", home=home, experiment="late", params={"learning_rate": 0.1}, tags={"mlflow.source.git.commit": "c0ffee"}) as run:
        run.log(auc=0.7)
        run.text("hello", "notes/a.txt")
        with home.database.begin() as connection:
            put_feature_set(connection, feature_set(), clock=home.clock)
            put_training_set(connection, record, clock=home.clock)
        made = _register(home, run_id=run.id, training_set=record.digest)
    with home.database.read() as connection:
        found = lineage(connection, "late@1")
        assert msgspec.structs.replace(get_training_set(connection, record.digest), created=0) == record
    assert (found["model"], found["version"], found["commit"], found["digest"]) == ("late", 1, "c0ffee", made.digest)
    assert found["run"]["params"] == {"learning_rate": "0.1"}
    assert found["run"]["artifacts"] == ["notes/a.txt"]
    assert found["training_set"] == {"digest": record.digest, "rows": 1000, "details": record.details}
    assert found["feature_set"]["outputs"] == ["mean_delay", "distance", "origin"]
    assert found["registered"]["actor"] == "ada"
    assert msgspec.json.encode(found)
    other = _register(home, run_id="f" * 32)
    with home.database.read() as connection:
        assert lineage(connection, other)["run"] is None
