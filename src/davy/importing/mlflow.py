"""Copy experiments, runs with whole histories, artifacts, logged models and the registry from MLflow, once each.

A run and all it has is one transaction, and its files are stored before, so that what is there is whole: when an
import is begun again it goes on with what is missing. A run that was still running is brought up to date. At the end
both sides are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict
from davy.importing.source import texts
from davy.schema.tables import (
    aliases,
    artifacts,
    experiment_tags,
    experiments,
    latest_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    model_version_tags,
    model_versions,
    params,
    registered_model_tags,
    registered_models,
    runs,
    tags,
)
from davy.store import journal
from davy.store.database import insert
from davy.tracking.artifacts import add_artifacts
from davy.tracking.inputs import Dataset, DatasetInput, log_datasets, log_model_inputs, log_outputs
from davy.tracking.logged_models import ModelMetric, add_model_metrics
from davy.tracking.points import add_points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from davy.home import Home
    from davy.importing.source import Source

KINDS = ("experiments", "runs", "points", "params", "tags", "files", "bytes", "logged models", "models", "versions", "aliases")
_TOGETHER = 500


class Imported(msgspec.Struct):
    """How much there is of each of `KINDS`, at the source and here, and how many runs were there already."""

    source: dict[str, int]
    here: dict[str, int]
    known: int = 0

    @property
    def equal(self) -> bool:
        """Whether both sides agree."""
        return self.source == self.here


def import_mlflow(home: Home, source: Source, *, only: Sequence[str] = (), progress: Callable[[str], None] = lambda name: None) -> Imported:
    """Copy everything, or the experiments of these names with the models that their runs made.

    Args:
        progress: called with a run's name, or a model's, when it is done.

    Raises:
        Conflict: a model of that name has other versions here.
    """
    job = _Import(home, source)
    chosen = [found for found in source.experiments() if not only or found.name in only]
    for found in chosen:
        job.experiment(found)
    for found in chosen:
        for run_id in source.run_ids(found.experiment_id):
            job.run(source.run(run_id), job.experiments[found.experiment_id])
            progress(run_id)
    for model in source.models():
        versions = source.versions(model.name)
        if not only or any(version.run_id in job.runs for version in versions):
            job.model(source.model(model.name), versions)
            progress(f"model {model.name}")
    with home.database.begin() as connection:
        journal.append(connection, clock=home.clock, actor=home.actor, action="import", subject=source.uri[:500], details=job.counted)
    return Imported(job.counted, job.count(), job.known)


class _Import:
    def __init__(self, home: Home, source: Source) -> None:
        self.home, self.source = home, source
        self.experiments: dict[str, int] = {}
        self.runs: dict[str, None] = {}
        self.logged: dict[str, None] = {}
        self.measured: dict[str, list[ModelMetric]] = {}
        self.models: list[str] = []
        self.versions: set[tuple[str, int]] = set()
        self.counted = dict.fromkeys(KINDS, 0)
        self.known = 0

    def experiment(self, found: Any) -> None:
        """An experiment goes into ours of its name, with its logged models; runs, which may refer to models of any experiment, come later."""
        number = self._place(found)
        self.experiments[found.experiment_id] = number
        self.counted["experiments"] += 1
        for model in self.source.logged_models(found.experiment_id):
            self._logged(model, number)

    def _place(self, found: Any) -> int:
        with self.home.database.begin() as connection:
            number = connection.scalar(sa.select(experiments.c.experiment_id).where(experiments.c.name == found.name))
            if number is None:
                now = self.home.clock.now() // 1000
                row = {"name": found.name, "artifact_location": "", "lifecycle_stage": found.lifecycle_stage, "creation_time": found.creation_time or now,
                       "last_update_time": found.last_update_time or found.creation_time or now}
                made = connection.execute(sa.insert(experiments).values(row)).inserted_primary_key
                assert made is not None
                number = int(made[0])
                connection.execute(sa.update(experiments).where(experiments.c.experiment_id == number).values(artifact_location=f"mlflow-artifacts:/{number}"))
            _put(connection, experiment_tags, {"experiment_id": number}, texts(found.tags))
            return int(number)

    def run(self, run: Any, experiment: int) -> None:
        """A run with its histories, files and links."""
        info, run_id = run.info, run.info.run_id
        curves, given, tagged = self.source.curves(run), texts(run.data.params), texts(run.data.tags)
        self.runs[run_id] = None
        for kind, count in (("runs", 1), ("points", sum(len(points.steps) for points in curves.values())), ("params", len(given)), ("tags", len(tagged))):
            self.counted[kind] += count
        with self.home.database.read() as connection:
            status = connection.scalar(sa.select(runs.c.status).where(runs.c.run_id == run_id))
        if status is not None and status != "RUNNING":
            self.known += 1
            self._bring_files(run_id, info.artifact_uri)
            return
        files = self._store(info.artifact_uri)
        row = {"run_id": run_id, "experiment_id": experiment, "name": info.run_name or tagged.get("mlflow.runName") or run_id[:8],
               "user_id": info.user_id or tagged.get("mlflow.user") or "", "status": info.status, "start_time": info.start_time or 0,
               "end_time": info.end_time, "lifecycle_stage": info.lifecycle_stage, "deleted_time": None,
               "artifact_uri": f"mlflow-artifacts:/{experiment}/{run_id}/artifacts"}
        if info.lifecycle_stage == "deleted":
            row["deleted_time"] = self.home.clock.now() // 1000
        with self.home.database.begin() as connection:
            connection.execute(insert(connection, runs).values(row).on_conflict_do_update(index_elements=["run_id"], set_=row))
            _put(connection, params, {"run_id": run_id}, given)
            _put(connection, tags, {"run_id": run_id}, tagged)
            add_points(connection, run_id, curves)
            add_artifacts(connection, run_id, files, blobs=self.home.blobs, clock=self.home.clock)
            self._links(connection, run, experiment)

    def _links(self, connection: sa.Connection, run: Any, experiment: int) -> None:
        read = [DatasetInput(Dataset(item.dataset.name, item.dataset.digest, item.dataset.source_type, item.dataset.source, item.dataset.schema,
                                     item.dataset.profile), tuple((tag.key, tag.value) for tag in item.tags)) for item in run.inputs.dataset_inputs]
        log_datasets(connection, run.info.run_id, experiment, read, clock=self.home.clock)
        log_model_inputs(connection, run.info.run_id, [model.model_id for model in getattr(run.inputs, "model_inputs", ()) if model.model_id in self.logged])
        made = getattr(getattr(run, "outputs", None), "model_outputs", ())
        log_outputs(connection, run.info.run_id, [(model.model_id, model.step or 0) for model in made if model.model_id in self.logged])
        measured = self.measured.get(run.info.run_id)
        if measured:
            add_model_metrics(connection, run.info.run_id, measured)

    def _logged(self, model: Any, experiment: int) -> None:
        self.logged[model.model_id] = None
        for one in model.metrics or ():
            self.measured.setdefault(one.run_id, []).append(ModelMetric(
                model.model_id, one.key, float(one.value), int(one.step or 0), int(one.timestamp), one.dataset_name, one.dataset_digest))
        self.counted["logged models"] += 1
        with self.home.database.read() as connection:
            known = connection.scalar(sa.select(logged_models.c.status).where(logged_models.c.model_id == model.model_id))
        if known is not None and known != "LOGGED_MODEL_PENDING":
            self._bring_files(model.model_id, model.artifact_location)
            return
        files = self._store(model.artifact_location)
        status = getattr(model.status, "value", str(model.status))
        status = status if str(status).startswith("LOGGED_MODEL_") else f"LOGGED_MODEL_{status}"
        row = {"model_id": model.model_id, "experiment_id": experiment, "name": model.name, "status": status, "status_message": model.status_message,
               "artifact_uri": f"mlflow-artifacts:/{experiment}/models/{model.model_id}/artifacts", "model_type": model.model_type,
               "source_run_id": model.source_run_id, "creation_time": model.creation_timestamp, "last_update_time": model.last_updated_timestamp,
               "lifecycle_stage": "active"}
        with self.home.database.begin() as connection:
            connection.execute(insert(connection, logged_models).values(row).on_conflict_do_update(index_elements=["model_id"], set_=row))
            _put(connection, logged_model_params, {"model_id": model.model_id}, texts(model.params))
            _put(connection, logged_model_tags, {"model_id": model.model_id}, texts(model.tags))
            add_artifacts(connection, model.model_id, files, blobs=self.home.blobs, clock=self.home.clock)

    def _store(self, root: str) -> dict[str, tuple[str, int]]:
        """Put all files under a root into the blobs."""
        found = {path: store() for path, _, store in self.source.files(root)}
        self.counted["files"] += len(found)
        self.counted["bytes"] += sum(size for _, size in found.values())
        return found

    def _bring_files(self, owner: str, root: str) -> None:
        """Count what is here already as the source has it, and bring what it has more."""
        with self.home.database.read() as connection:
            here = {row.path: row.size for row in connection.execute(sa.select(artifacts.c.path, artifacts.c.size).where(artifacts.c.owner == owner))}
        new: dict[str, tuple[str, int]] = {}
        for path, size, store in self.source.files(root):
            if path not in here or (size is not None and here[path] != size):
                new[path] = store()
            self.counted["files"] += 1
            self.counted["bytes"] += new[path][1] if path in new else here[path]
        if new:
            with self.home.database.begin() as connection:
                add_artifacts(connection, owner, new, blobs=self.home.blobs, clock=self.home.clock)

    def model(self, found: Any, versions: Sequence[Any]) -> None:
        """A registered model with its versions and aliases, in one transaction."""
        given = {alias: int(version) for alias, version in (found.aliases or {}).items()}
        self.models.append(found.name)
        self.versions |= {(found.name, int(version.version)) for version in versions}
        for kind, count in (("models", 1), ("versions", len(versions)), ("aliases", len(given))):
            self.counted[kind] += count
        with self.home.database.begin() as connection:
            row = {"name": found.name, "creation_time": found.creation_timestamp, "last_update_time": found.last_updated_timestamp,
                   "description": found.description or ""}
            connection.execute(insert(connection, registered_models).values(row).on_conflict_do_nothing(index_elements=["name"]))
            _put(connection, registered_model_tags, {"name": found.name}, texts(found.tags))
            for version in versions:
                self._version(connection, version)
            for alias, number in given.items():
                statement = insert(connection, aliases).values(name=found.name, alias=alias, version=number)
                made = connection.execute(statement.on_conflict_do_nothing(index_elements=["name", "alias"])).rowcount
                if made:
                    journal.append(connection, clock=self.home.clock, actor=self.home.actor, action="alias.set", subject=found.name,
                                   details={"alias": alias, "version": number, "before": None, "evidence": {"import": self.source.uri}})

    def _version(self, connection: sa.Connection, found: Any) -> None:
        number = int(found.version)
        where = (model_versions.c.name == found.name, model_versions.c.version == number)
        known = connection.execute(sa.select(model_versions.c.run_id, model_versions.c.creation_time).where(*where)).first()
        if known is not None:
            if (known.run_id or None, known.creation_time) != (found.run_id or None, found.creation_timestamp):
                raise Conflict(f"The model {found.name!r} has another version {number} here.", "A version's number is given once.",
                               "Rename one of the two models, then type the same again.")
            return
        source, location = self._located(found)
        connection.execute(sa.insert(model_versions).values(
            name=found.name, version=number, creation_time=found.creation_timestamp, last_update_time=found.last_updated_timestamp or found.creation_timestamp,
            user_id=found.user_id or "", current_stage=found.current_stage or "None", description=found.description or "", source=source,
            storage_location=location, run_id=found.run_id or None, run_link=found.run_link or None, status=found.status, status_message=found.status_message,
            deleted=False, model_id=getattr(found, "model_id", None)))
        _put(connection, model_version_tags, {"name": found.name, "version": number}, texts(found.tags))

    def _located(self, found: Any) -> tuple[str, str | None]:
        """What the version was made of, and where its files are here."""
        source = found.source or ""
        for model_id in self.logged:
            if model_id in source or model_id == getattr(found, "model_id", None):
                with self.home.database.read() as connection:
                    return f"models:/{model_id}", connection.scalar(sa.select(logged_models.c.artifact_uri).where(logged_models.c.model_id == model_id))
        _, inside, path = source.partition(f"{found.run_id}/artifacts/") if found.run_id else ("", "", "")
        if inside and found.run_id in self.runs:
            return f"runs:/{found.run_id}/{path}", None
        return source, None

    def count(self) -> dict[str, int]:
        """What is here of what was imported."""
        found = dict.fromkeys(KINDS, 0)
        owners = [*self.runs, *self.logged]
        with self.home.database.read() as connection:
            found["experiments"] = len(self.experiments)
            found["runs"] = _sum(connection, sa.func.count(), runs.c.run_id, self.runs)
            found["points"] = _sum(connection, sa.func.sum(latest_metrics.c.count), latest_metrics.c.run_id, self.runs)
            found["params"] = _sum(connection, sa.func.count(), params.c.run_id, self.runs)
            found["tags"] = _sum(connection, sa.func.count(), tags.c.run_id, self.runs)
            found["files"] = _sum(connection, sa.func.count(), artifacts.c.owner, owners)
            found["bytes"] = _sum(connection, sa.func.sum(artifacts.c.size), artifacts.c.owner, owners)
            found["logged models"] = _sum(connection, sa.func.count(), logged_models.c.model_id, self.logged)
            found["models"] = _sum(connection, sa.func.count(), registered_models.c.name, self.models)
            pairs = connection.execute(sa.select(model_versions.c.name, model_versions.c.version).where(model_versions.c.name.in_(self.models)))
            found["versions"] = len(self.versions & {(row[0], row[1]) for row in pairs})
            found["aliases"] = _sum(connection, sa.func.count(), aliases.c.name, self.models)
        return found


def _sum(connection: sa.Connection, what: sa.ColumnElement[Any], column: sa.Column[Any], values: Iterable[str]) -> int:
    asked = list(values)
    return sum(int(connection.scalar(sa.select(what).select_from(column.table).where(column.in_(asked[start:start + _TOGETHER]))) or 0)
               for start in range(0, len(asked), _TOGETHER))


def _put(connection: sa.Connection, table: sa.Table, owner: dict[str, Any], values: dict[str, str]) -> None:
    if values:
        statement = insert(connection, table)
        changed = statement.on_conflict_do_update(index_elements=[*owner, "key"], set_={"value": statement.excluded.value})
        connection.execute(changed, [{**owner, "key": key, "value": value} for key, value in values.items()])
