"""Where a version may come from, and what a client can't make the server read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from davy.errors import InvalidInput, NotFound
from davy.registry import aliases, catalog, stages, versions
from davy.registry.models import PROMPT_TAG
from davy.registry.sources import Source, check_source
from davy.schema.tables import runs
from davy.tracking.artifacts import add_artifacts
from davy.tracking.experiments import create_experiment
from davy.tracking.logged_models import create_logged_model
from davy.tracking.runs import create_run
from registry.test_models import _register

if TYPE_CHECKING:
    from pathlib import Path

    from davy.home import Home

CLIMBS = ("mlflow-artifacts:/models/../../../", "s3a://bucket/api/2.0/mlflow-artifacts/artifacts/../../../", "mlflow-artifacts:/models/..%2f..%2fartifacts",
          "mlflow-artifacts:/models/artifact%00", "dbfs:/run/artifacts/a%3f/../../../../../../../../../../", "s3://bucket/a/%252e%252e/b", "s3://bucket/a/./b",
          "gs://bucket/%2e%2e/x", "s3://bucket/a%5c..%2f..%2fb")
HOSTS = ("http://host:9000/models", "https://host/api/2.0/mlflow-artifacts/artifacts/1", "ftp://host/x", "sftp://host/x", "hdfs://host/x", "HTTP://host/x",
         "mlflow-artifacts://host:9000/models", "abfss://fs@account.evil.example/x", "r2://bucket@host/x", "http://[::1/x", "ftp:///x")


class Made:
    """A run and a logged model in an experiment whose artifacts lie in a folder, or behind the proxy."""

    def __init__(self, home: Home, location: str) -> None:
        self.home = home
        with home.database.begin() as connection:
            experiment = create_experiment(connection, clock=home.clock, actor="ada", name="e", artifact_location=location)
            self.run = create_run(connection, clock=home.clock, user="ada", experiment_id=experiment.id, name="r")
            self.root = str(connection.scalar(sa.select(runs.c.artifact_uri).where(runs.c.run_id == self.run)))
            logged = create_logged_model(connection, clock=home.clock, experiment_id=experiment.id, name="m", source_run_id=self.run)
            self.model, self.model_root = logged.id, logged.artifact_uri

    def check(self, uri: str, **given: Any) -> Source:
        with self.home.database.read() as connection:
            return check_source(connection, uri, **given)

    def refused(self, uri: str, said: str, **given: Any) -> None:
        with pytest.raises(InvalidInput) as caught:
            self.check(uri, **given)
        assert said in str(caught.value)


@pytest.fixture
def proxied(home: Home) -> Made:
    return Made(home, "mlflow-artifacts:/1")


@pytest.fixture
def local(home: Home, tmp_path: Path) -> Made:
    return Made(home, f"file://{tmp_path / 'artifacts'}")


@pytest.mark.parametrize("uri", CLIMBS)
def test_nothing_climbs(proxied: Made, uri: str) -> None:
    for given in ({}, {"run_id": proxied.run}, {"model_id": proxied.model}):
        proxied.refused(uri, "If supplying a source as an http, https", **given)


@pytest.mark.parametrize("uri", HOSTS)
def test_nobody_chooses_a_host_for_the_server(proxied: Made, uri: str) -> None:
    for given in ({}, {"run_id": proxied.run}, {"model_id": proxied.model}):
        with pytest.raises(InvalidInput):
            proxied.check(uri, **given)


@pytest.mark.parametrize("uri", ["s3://bucket/model", "s3://bucket/a/..../b", "gs://bucket/x///y//", "dbfs:/models/x", "s3://bucket"])
def test_a_store_that_clients_reach_by_themselves_is_taken_as_it_is(proxied: Made, uri: str) -> None:
    assert proxied.check(uri) == Source(uri)
    assert proxied.check(uri, run_id=proxied.run).run_id == proxied.run


def test_a_proxied_place_belongs_to_the_run_or_model_beside_it(proxied: Made) -> None:
    for uri in (proxied.root, f"{proxied.root}/model", f"{proxied.root}//model/", f"{proxied.root}/a..b"):
        assert proxied.check(uri, run_id=proxied.run).uri == uri
    for uri, given in ((f"{proxied.root}/model", {}), (f"{proxied.root}/model", {"run_id": ""}), (f"{proxied.root}/model", {"run_id": "f" * 32}),
                       ("mlflow-artifacts:/1", {"run_id": proxied.run}), (f"{proxied.root}x", {"run_id": proxied.run}),
                       ("mlflow-artifacts:/", {"run_id": proxied.run}), (proxied.model_root, {"run_id": proxied.run})):
        proxied.refused(uri, "The run_id request parameter must identify the resource that contains the source.", **given)
    assert proxied.check(f"{proxied.model_root}/x", model_id=proxied.model) == Source(f"{proxied.model_root}/x", proxied.run, proxied.model)
    for uri, given in ((proxied.root, {"model_id": proxied.model}), (proxied.model_root, {"model_id": "m-unknown"})):
        proxied.refused(uri, "The model_id request parameter must identify the resource that contains the source.", **given)


def test_a_local_path_lies_in_the_artifacts_of_the_run_or_model_beside_it(local: Made, tmp_path: Path) -> None:
    plain = local.root.removeprefix("file://")
    for uri in (local.root, f"{local.root}/model", f"{local.root}/.", f"{local.root}/model/..", plain, f"{plain}/model"):
        assert local.check(uri, run_id=local.run).uri == uri
    for uri in (local.root, plain, "file:///tmp", "/tmp"):
        local.refused(uri, "To use a local path as a model version source, the run_id")
    folder = tmp_path / "artifacts" / local.run / "artifacts"
    folder.mkdir(parents=True)
    (folder / "out").symlink_to("/etc")
    for uri in ("/tmp", f"{plain}/..", f"{local.root}/%2e%2e", f"{plain}/out", f"{local.root}/../../..", "", "relative", "file:relative"):
        local.refused(uri, "To use a local path", run_id=local.run)
    local.refused(local.root, "To use a local path as a model version source, the model_id", model_id=local.model)
    assert local.check(local.model_root, model_id=local.model).model_id == local.model
    local.refused(f"{local.root}/a%00b", "NUL", run_id=local.run)
    local.refused("file://123.456.789.123/path", "is not a valid remote uri", run_id=local.run)
    local.refused(local.root, "must identify the resource", run_id="f" * 32)


def test_a_local_path_is_refused_where_artifacts_are_proxied(proxied: Made) -> None:
    for uri in ("/etc/passwd", "file:///etc/passwd", "file://localhost/etc/passwd"):
        proxied.refused(uri, "To use a local path", run_id=proxied.run)
        proxied.refused(uri, "To use a local path", model_id=proxied.model)


def test_a_run_s_source_is_of_the_run_beside_it(proxied: Made) -> None:
    uri = f"runs:/{proxied.run}/model"
    assert proxied.check(uri, run_id=proxied.run) == Source(uri, proxied.run)
    for bad, given in ((uri, {}), (uri, {"run_id": "f" * 32}), (f"runs://{proxied.run}/model", {"run_id": proxied.run}), ("runs:/", {"run_id": proxied.run})):
        proxied.refused(bad, "must identify the resource", **given)
    proxied.refused(uri, "The model_id request parameter must identify", model_id=proxied.model)


def test_a_logged_model_s_source_is_found(proxied: Made) -> None:
    uri = f"models:/{proxied.model}"
    assert proxied.check(uri, model_id=proxied.model) == Source(uri, proxied.run, proxied.model, proxied.model_root)
    for bad, given in ((uri, {}), (uri, {"run_id": proxied.run}), ("models:/m-other", {"model_id": proxied.model}), ("models:/", {}), ("models:/a/b/c", {}),
                       ("models:/a/", {}), ("models:/a@", {})):
        proxied.refused(bad, "must identify the resource", **given)
    proxied.refused(f"models://host/{proxied.model}", "must use the active model registry", model_id=proxied.model)
    with pytest.raises(NotFound, match="m-other"):
        proxied.check("models:/m-other", model_id="m-other")


def test_a_version_s_source_is_the_number_that_was_meant(proxied: Made, home: Home) -> None:
    with home.database.begin() as connection:
        add_artifacts(connection, proxied.run, {"model/model.txt": (home.blobs.put(b"tree"), 4)}, clock=home.clock, blobs=home.blobs)
    _register(home, run_id=proxied.run)
    with home.database.begin() as connection:
        more = {"clock": home.clock, "actor": "ada"}
        versions.create_version(connection, name="late", source=Source(f"models:/{proxied.model}", proxied.run, proxied.model, proxied.model_root), **more)
        versions.create_version(connection, name="late", source=Source("s3://bucket/third"), **more)
        aliases.set_alias(connection, name="late", alias="production", version=2, **more)
        stages.transition(connection, name="late", version=1, stage="Staging", **more)
        catalog.create_model(connection, name="greeting", tags={PROMPT_TAG: "true"}, **more)
        catalog.create_model(connection, name="empty", **more)
    assert proxied.check("models:/late/1") == Source("models:/late/1", proxied.run, None, f"{proxied.root}/model")
    assert proxied.check("models:/late@production") == Source("models:/late/2", proxied.run, proxied.model, proxied.model_root)
    assert proxied.check("models:/late/latest") == Source("models:/late/3", None, None, "s3://bucket/third")
    assert proxied.check("models:/late/staging").uri == "models:/late/1"
    proxied.refused("models:/late/1", "must match the referenced model version", run_id="f" * 32)
    proxied.refused("models:/late/2", "must match the referenced model version", model_id="")
    proxied.refused("models:/late/\u00b2", "Invalid Model Version stage")
    proxied.refused("models:/late@nobody", "Registered model alias nobody not found.")
    proxied.refused("models:/greeting/1", "Prompt versions cannot be used")
    for uri, said in (("models:/late/9", "version=9"), ("models:/nobody/1", "name=nobody"), ("models:/empty/latest", "empty"),
                      ("models:/late/archived", "Archived|archived"), ("models:/late/99999999999999", "not found")):
        with pytest.raises(NotFound, match=said):
            proxied.check(uri)


def test_a_prompt_has_a_placeholder(proxied: Made) -> None:
    tags = {PROMPT_TAG: "true"}
    assert proxied.check("dummy-source", tags=tags) == Source("dummy-source")
    proxied.refused("s3://bucket/model", "Prompt sources must use an MLflow placeholder", tags=tags)
    proxied.refused("dummy-source", "To use a local path")


def test_lengths_are_bounded(proxied: Made) -> None:
    proxied.refused("s3://bucket/" + "x" * 2000, "at most")
    proxied.refused("s3://bucket/x", "at most", run_id="f" * 33)
