"""Copy experiments, runs with whole histories, artifacts, logged models and the registry from MLflow, once each.

A run and all it has is one transaction, and its files are stored before, so that what is there is whole: when an
import is begun again it goes on with what is missing. A run that was still running is brought up to date, and one that
had ended gets what it has more by now; what was changed here stays. At the end both sides are counted.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput, NotFound, nearest
from davy.importing.files import Unreadable, stored
from davy.importing.source import texts
from davy.registry.aliases import NONE, Protection, read_aliases, set_alias
from davy.registry.tags import told
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
from davy.tracking.records import LONGEST_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from davy.home import Home
    from davy.importing.source import Source
    from davy.tracking.points import Points

KINDS = ("experiments", "runs", "points", "params", "tags", "files", "bytes", "logged models", "models", "versions", "aliases")
_TOGETHER = 500
_TOLD = 100
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


class Imported(msgspec.Struct):
    """How much there is of each of `KINDS`, at the source and here.

    Attributes:
        known: how many runs were here already.
        missing: folders of artifacts that are not there, so that no files of the runs in question were found, if they had any.
        unread: how many items did not come along: files, roots with all their files, params and tags with too long a key, and runs that
            can't be stored; `problems` says why of the first hundred.
    """

    source: dict[str, int]
    here: dict[str, int]
    known: int = 0
    missing: list[str] = []
    unread: int = 0
    problems: list[str] = []

    @property
    def equal(self) -> bool:
        """Whether all was read and both sides agree."""
        return self.source == self.here and not self.unread


class Watch(Protocol):
    """What is told how far an import is."""

    def advance(self, count: int = 1) -> None:
        """So many more runs or models are done."""
        ...


class _Unwatched:
    def advance(self, count: int = 1) -> None:
        return


def import_mlflow(home: Home, source: Source, *, only: Sequence[str] = (), protection: Protection = NONE,
                  watch: Callable[[int], AbstractContextManager[Watch]] = lambda total: nullcontext(_Unwatched())) -> Imported:
    """Copy everything, or the experiments of these names with the models that their runs made.

    Args:
        protection: which aliases whoever imports may not set.
        watch: called with the number of runs and models once it is known.

    Raises:
        NotFound: no experiment of such a name. Conflict: a model of that name has other versions here. Forbidden: an alias is protected.
    """
    job = _Import(home, source, protection)
    there = source.experiments()
    for name in only:
        if name not in {found.name for found in there}:
            raise NotFound(f"There is no experiment {name!r} at {source.shown}.", nearest(name, [found.name for found in there]), "Correct the name.")
    chosen = {found.experiment_id: found for found in there if not only or found.name in only}
    ids = {number: source.run_ids(number) for number in chosen}
    models = source.models()
    job.tell("import.started", {"experiments": list(only)} if only else {})
    with watch(sum(map(len, ids.values())) + len(models)) as watched:
        for found in chosen.values():
            job.experiment(found)
        for number, run_ids in ids.items():
            for run_id in run_ids:
                job.run_or_tell(source.run(run_id), job.experiments[number])
                watched.advance()
        for model in models:
            versions = source.versions(model.name)
            if not only or any(version.run_id in job.runs for version in versions):
                job.model(source.model(model.name), versions)
            watched.advance()
    job.tell("import", job.counted)
    return Imported(job.counted, job.count(), job.known, sorted(source.places.missing), job.unread, job.problems)


class _Import:
    def __init__(self, home: Home, source: Source, protection: Protection) -> None:
        self.home, self.source, self.protection = home, source, protection
        self.experiments: dict[str, int] = {}
        self.runs: dict[str, None] = {}
        self.logged: dict[str, None] = {}
        self.measured: dict[str, list[ModelMetric]] = {}
        self.models: list[str] = []
        self.versions: set[tuple[str, int]] = set()
        self.counted = dict.fromkeys(KINDS, 0)
        self.known = self.unread = 0
        self.problems: list[str] = []

    def tell(self, action: str, details: Mapping[str, Any]) -> None:
        """Write it into the journal."""
        with self.home.database.begin() as connection:
            journal.append(connection, clock=self.home.clock, actor=self.home.actor, action=action, subject=self.source.shown[:500], details=details)

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
            _put(connection, experiment_tags, {"experiment_id": number}, self._fitting(found.tags, f"experiment {found.name}"), over=False)
            return int(number)

    def run_or_tell(self, run: Any, experiment: int) -> None:
        """A run that the database can't hold, as its name is too long for it, is left out whole and told; the rest goes on."""
        try:
            self.run(run, experiment)
        except InvalidInput as error:
            self._unread(Unreadable(f"The run {run.info.run_id} can't be stored: {error.came}"))

    def run(self, run: Any, experiment: int) -> None:
        """A run with its histories, files and links."""
        info, run_id = run.info, run.info.run_id
        curves, given, tagged = self.source.curves(run), self._fitting(run.data.params, f"run {run_id}"), self._fitting(run.data.tags, f"run {run_id}")
        self.runs[run_id] = None
        for kind, count in (("runs", 1), ("points", sum(len(points.steps) for points in curves.values())),
                            ("params", len(run.data.params or ())), ("tags", len(run.data.tags or ()))):
            self.counted[kind] += count
        with self.home.database.read() as connection:
            status = connection.scalar(sa.select(runs.c.status).where(runs.c.run_id == run_id))
        if status not in (None, "RUNNING", "SCHEDULED"):
            self.known += 1
            self._more(run, experiment, curves, given, tagged)
            return
        files = self._files(info.artifact_uri)
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

    def _more(self, run: Any, experiment: int, curves: dict[str, Points], given: dict[str, str], tagged: dict[str, str]) -> None:
        """Bring what a run that is here has more by now: points, files, links, and params and tags that it lacks here."""
        run_id = run.info.run_id
        files = self._files(run.info.artifact_uri, run_id)
        with self.home.database.read() as connection:
            here: dict[str, int] = dict(iter(connection.execute(
                sa.select(latest_metrics.c.key, latest_metrics.c["count"]).where(latest_metrics.c.run_id == run_id))))
        more = {key: points for key, points in curves.items() if here.get(key) != len(points)}
        with self.home.database.begin(lazy=True) as connection:
            _put(connection, params, {"run_id": run_id}, given, over=False)
            _put(connection, tags, {"run_id": run_id}, tagged, over=False)
            add_points(connection, run_id, more)
            add_artifacts(connection, run_id, files, blobs=self.home.blobs, clock=self.home.clock)
            self._links(connection, run, experiment)

    def _links(self, connection: sa.Connection, run: Any, experiment: int) -> None:
        read = [DatasetInput(Dataset(item.dataset.name, item.dataset.digest, item.dataset.source_type, item.dataset.source, item.dataset.schema,
                                     item.dataset.profile), tuple((tag.key, tag.value) for tag in item.tags)) for item in run.inputs.dataset_inputs]
        log_datasets(connection, run.info.run_id, experiment, read, clock=self.home.clock)
        used = [model.model_id for model in getattr(run.inputs, "model_inputs", ())]
        made = [(model.model_id, model.step or 0) for model in getattr(getattr(run, "outputs", None), "model_outputs", ())]
        if used or made:  # a model that was deleted at the source is not here
            here = set(connection.scalars(sa.select(logged_models.c.model_id).where(logged_models.c.model_id.in_([*used, *(one for one, _ in made)]))))
            log_model_inputs(connection, run.info.run_id, [one for one in used if one in here])
            log_outputs(connection, run.info.run_id, [(one, step) for one, step in made if one in here])
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
        if known is not None and known != "PENDING":
            files = self._files(model.artifact_location, model.model_id, due=known == "READY")
            with self.home.database.begin() as connection:
                _put(connection, logged_model_tags, {"model_id": model.model_id}, self._fitting(model.tags, f"logged model {model.model_id}"), over=False)
                add_artifacts(connection, model.model_id, files, blobs=self.home.blobs, clock=self.home.clock)
            return
        status = str(getattr(model.status, "value", model.status)).removeprefix("LOGGED_MODEL_")
        status = "UPLOAD_FAILED" if status == "FAILED" else status
        files = self._files(model.artifact_location, due=status == "READY")
        row = {"model_id": model.model_id, "experiment_id": experiment, "name": model.name, "status": status, "status_message": model.status_message,
               "artifact_uri": f"mlflow-artifacts:/{experiment}/models/{model.model_id}/artifacts", "model_type": model.model_type,
               "source_run_id": model.source_run_id, "creation_time": model.creation_timestamp, "last_update_time": model.last_updated_timestamp,
               "lifecycle_stage": "active"}
        with self.home.database.begin() as connection:
            connection.execute(insert(connection, logged_models).values(row).on_conflict_do_update(index_elements=["model_id"], set_=row))
            _put(connection, logged_model_params, {"model_id": model.model_id}, self._fitting(model.params, f"logged model {model.model_id}"))
            _put(connection, logged_model_tags, {"model_id": model.model_id}, self._fitting(model.tags, f"logged model {model.model_id}"))
            add_artifacts(connection, model.model_id, files, blobs=self.home.blobs, clock=self.home.clock)

    def _files(self, root: str, owner: str = "", *, due: bool = False) -> dict[str, tuple[str, int]]:
        """Put the files under a root into the blobs, but those of this size that `owner` has here. What can't be read is noted.

        Args:
            due: there must be some.
        """
        before = self.counted["files"]
        here: dict[str, int] = {}
        if owner:
            with self.home.database.read() as connection:
                here = {row.path: row.size for row in connection.execute(sa.select(artifacts.c.path, artifacts.c.size).where(artifacts.c.owner == owner))}
        new: dict[str, tuple[str, int]] = {}
        try:
            for found in self.source.places.under(root):
                self.counted["files"] += 1
                if found.path in here and found.size in (None, here[found.path]):
                    self.counted["bytes"] += here[found.path]
                    continue
                try:
                    new[found.path] = stored(found)
                except Unreadable as error:
                    self._unread(error)
                self.counted["bytes"] += new[found.path][1] if found.path in new else found.size or 0
            if due and self.counted["files"] == before:
                raise Unreadable(f"A logged model is ready, but there are no files at {root}.")
        except Unreadable as error:
            self._unread(error)
        return new

    def _fitting(self, pairs: dict[str, Any] | Sequence[Any] | None, whose: str) -> dict[str, str]:
        """Params or tags, without those whose key is longer than any may be here; MLflow's client refuses such keys, and its server on SQLite does not."""
        found = texts(pairs)
        for key in [key for key in found if len(key) > LONGEST_KEY]:
            self._unread(Unreadable(f"The key {key[:40]!r}... of {whose} has {len(key)} characters; {LONGEST_KEY} are allowed."))
            del found[key]
        return found

    def _unread(self, error: Unreadable) -> None:
        self.unread += 1
        if len(self.problems) < _TOLD:
            self.problems.append(str(error))

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
            who: dict[str, Any] = {"clock": self.home.clock, "actor": self.home.actor}
            if connection.execute(insert(connection, registered_models).values(row).on_conflict_do_nothing(index_elements=["name"])).rowcount:
                journal.append(connection, **who, action="model.create", subject=found.name, details={"import": self.source.shown})
            _put(connection, registered_model_tags, {"name": found.name}, self._fitting(found.tags, f"model {found.name}"), over=False)
            for version in versions:
                if self._version(connection, version):
                    journal.append(connection, **who, action="version.register", subject=found.name, details={
                        "version": int(version.version), "source": told(version.source), "run": version.run_id or None, "import": self.source.shown})
            here = read_aliases(connection, found.name)
            for alias, number in given.items():
                if alias not in here:
                    set_alias(connection, **who, name=found.name, alias=alias, version=number, protection=self.protection,
                              evidence={"import": self.source.shown})

    def _version(self, connection: sa.Connection, found: Any) -> bool:
        """Whether the version is new here."""
        number = int(found.version)
        where = (model_versions.c.name == found.name, model_versions.c.version == number)
        known = connection.execute(sa.select(model_versions.c.run_id, model_versions.c.creation_time).where(*where)).first()
        if known is not None:
            if (known.run_id or None, known.creation_time) != (found.run_id or None, found.creation_timestamp):
                raise Conflict(f"The model {found.name!r} has another version {number} here.", "A version's number is given once.",
                               "Rename one of the two models, then type the same again.")
            return False
        source, location, model_id = self._located(connection, found)
        connection.execute(sa.insert(model_versions).values(
            name=found.name, version=number, creation_time=found.creation_timestamp, last_update_time=found.last_updated_timestamp or found.creation_timestamp,
            user_id=found.user_id or "", current_stage=found.current_stage or "None", description=found.description or "", source=source,
            storage_location=location, run_id=found.run_id or None, run_link=found.run_link or None, status=found.status, status_message=found.status_message,
            deleted=False, model_id=model_id))
        _put(connection, model_version_tags, {"name": found.name, "version": number}, self._fitting(found.tags, f"version {number} of {found.name}"))
        return True

    def _located(self, connection: sa.Connection, found: Any) -> tuple[str, str | None, str | None]:
        """What the version was made of, where its files are here, and the logged model whose they are."""
        source = found.source or ""
        for model_id in (*_MODEL_ID.findall(source), getattr(found, "model_id", None)):
            location = connection.scalar(sa.select(logged_models.c.artifact_uri).where(logged_models.c.model_id == model_id))
            if location is not None:
                return f"models:/{model_id}", location, model_id
        _, inside, path = source.partition(f"{found.run_id}/artifacts/") if found.run_id else ("", "", "")
        if inside and found.run_id in self.runs:
            return f"runs:/{found.run_id}/{path}", None, None
        return source, None, None

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


def _put(connection: sa.Connection, table: sa.Table, owner: dict[str, Any], values: dict[str, str], *, over: bool = True) -> None:
    if values:
        statement, keys = insert(connection, table), [*owner, "key"]
        changed = (statement.on_conflict_do_update(index_elements=keys, set_={"value": statement.excluded.value}) if over
                   else statement.on_conflict_do_nothing(index_elements=keys))
        connection.execute(changed, [{**owner, "key": key, "value": value} for key, value in values.items()])
