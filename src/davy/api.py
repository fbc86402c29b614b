"""The functions that notebooks and scripts call inside a project's folder. No server is needed; a running one shares the same home."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from davy.core.time import to_micros
from davy.engines.offline.local import LocalEngine
from davy.errors import InvalidInput, NotFound
from davy.events import client
from davy.events.sources import read_source
from davy.features.define import Derived, FeatureRef, Model, Resolver, Stream, View
from davy.features.online import OnlineFeatures
from davy.features.training_set import AsKnown, TrainingSet
from davy.features.training_set import training_set as join
from davy.home import Home
from davy.project import ModelDefinition, Project, load_project
from davy.training.spine import labels

if TYPE_CHECKING:
    from davy.core.fields import Field
    from davy.events.records import Receipt
    from davy.features.definition import FeatureSet
    from davy.registry.alias_history import AliasChange

_homes: dict[Path, tuple[int, Home]] = {}
_projects: dict[Path, tuple[tuple[float, ...], Project]] = {}


class Known(dict[str, Any]):
    """A feature vector by name, as it was known.

    Attributes:
        time: microseconds as of which it was read.
        watermarks: per stream the last offset applied.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Any], time: int, watermarks: dict[str, int]) -> None:
        super().__init__(zip(names, values, strict=True))
        self.time, self.watermarks = time, watermarks


def current_home() -> Home:
    """The home of the project that the working directory lies in, opened once for this process."""
    found = Home.open()
    if found.path in _homes:
        folder, home = _homes[found.path]
        if os.path.samestat(os.fstat(folder), found.path.stat()):
            return home
        _close(found.path)  # the folder was deleted, and made again
    _homes[found.path] = os.open(found.path, os.O_RDONLY), found
    return found


@atexit.register
def close_homes() -> None:
    """Close what this module opened."""
    for path in list(_homes):
        _close(path)


def _close(path: Path) -> None:
    folder, home = _homes.pop(path)
    os.close(folder)
    home.close()


def current_project(root: Path) -> Project:
    """The project's definitions; loaded again when a file has changed."""
    changed = tuple(path.stat().st_mtime if (path := root / f"{name}.py").exists() else 0.0 for name in ("features", "models"))
    if root not in _projects or _projects[root][0] != changed:
        _projects[root] = changed, load_project(root)
    return _projects[root][1]


def push(stream: Stream | str, rows: Sequence[Mapping[str, Any]]) -> Receipt:
    """Append events to a stream. When it returns, they are on disk and in every feature.

    Args:
        rows: each with the stream's time column and its fields; a field that is left out is null.

    Raises:
        InvalidInput: a row is wrong; nothing of the push is taken.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise InvalidInput(f"A {type(rows).__name__} is not a list of rows.", "A row is a mapping from field to value.", "Write: davy.push(stream, [row])")
    home = current_home()
    spec = stream.spec if isinstance(stream, Stream) else current_project(home.root).stream(stream)
    with client.connect(home) as log:
        return log.push(spec, rows)


def training_set(
    spine: Any,
    features: Any,
    *,
    entities: Sequence[str] | None = None,
    request: Mapping[str, Any] | None = None,
    label: str | None = None,
    as_known: AsKnown = "ingest",
) -> TrainingSet:
    """Join features to the rows of a spine, each as it was known at its time.

    Args:
        spine: a polars or Arrow frame, a mapping of columns, a list of rows, or a file: entity keys, request fields, and `time` (with a zone).
        features: a model, its name, a view, or a list of views, features, derived features and names.
        entities, request: as for `davy.model`; found from the views when left out.
        label: the spine's column to learn. Without it, a model's own label stands where the spine has its outcome; null where that is null.
        as_known: "ingest" sees what had arrived by then, "event" is hindsight.

    Raises:
        Conflict: a stream is declared otherwise than its events were written.
    """
    home = current_home()
    model = _model(home, features)
    chosen = model.spec.feature_set if model is not None else _feature_set(home, features, entities, request)
    frame = as_frame(spine, (*chosen.entities, *chosen.request))
    if label is not None and label not in frame.columns:
        raise InvalidInput(f"The spine has no column {label!r} to be the label.", f"Its columns: {', '.join(frame.columns)}.", "Name one of them.")
    if label is not None and label in {*chosen.outputs, *(field.name for field in chosen.request)}:
        raise InvalidInput(
            f"The label {label!r} is one of the features.", "What is predicted is not known when it is asked for.", f"Remove {label!r} from the features."
        )
    with client.connect(home) as log:
        for declared in chosen.streams:
            log.declare(declared)
        log.flush()
    found = frame[label] if label is not None else _labels(model, frame)
    return join(LocalEngine(home), chosen, frame, label=found, as_known=as_known)


def online(features: Any, entities: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, request: Mapping[str, Any] | None = None, at: Any = None) -> Any:
    """Features as of now, as a request would be given them.

    Args:
        features: a model, its name, a view, or a list of views, features, derived features and names.
        entities: a value for each entity key; or several such mappings.
        request: a value for each request field.
        at: the moment, at or after everything that has been applied; now when left out.

    Returns:
        `Known` (a dict by feature name, with `time` and `watermarks`), or a list of them.
    """
    home = current_home()
    kinds = None if request is None else {name: _kind(value) for name, value in request.items()}
    chosen = _feature_set(home, features, None, kinds)
    state = OnlineFeatures(home.online)
    kept = {view.digest for _, view in state.views()}
    if any(view.digest not in kept for view in chosen.views):
        with client.connect(home) as log:
            log.ensure_views([(chosen.stream(view.stream), view) for view in chosen.views])
    reader = state.reader(chosen, home.clock)
    moment = None if at is None else to_micros(at)
    found = []
    for keys in _asked(entities):
        vector = reader.read(keys, request, at=moment)
        found.append(Known(chosen.outputs, vector.values, vector.time, vector.watermarks))
    return found[0] if isinstance(entities, Mapping) else found


def traffic(model: str, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """The weights by which a model's versions answer; with `weights`, from now on these.

    Args:
        weights: `late@1` (or an alias) -> its share of the routing keys; not negative, and together 1 within 1e-9.

    Raises:
        InvalidInput: the weights are no shares of one whole. NotFound: an unknown model or version.
        Conflict: a release of the model is on its way, or its versions can't be served together.
    """
    from davy.release.traffic import get_traffic, set_traffic

    home = current_home()
    found = set_traffic(home, model, weights) if weights is not None else get_traffic(home, model)
    return {} if found is None else found.weights


def alias_history(model: str, alias: str | None = None, *, at: Any = None) -> list[AliasChange]:
    """Every move of a model's alias, or of all its aliases, the newest first: when, by whom, from which version to which, on what evidence.

    Args:
        at: a time with its zone; then only the move of the alias that was in force at that moment.

    Raises:
        NotFound: no such model, or the alias had not been set by then.
    """
    from davy.registry import alias_history as told

    with current_home().database.read() as connection:
        if at is None:
            return told.alias_history(connection, model, alias)
        if alias is None:
            raise InvalidInput("`at` came without the alias that is meant.", "", 'Write: davy.alias_history("late", "production", at="2026-03-03T12:00:00Z")')
        return [told.alias_at(connection, model, alias, to_micros(at))]


def runs(filter: str = "", *, experiment: str | Sequence[str] | None = None, order_by: str | Sequence[str] = (), limit: int | None = None) -> pl.DataFrame:
    """All tracked runs that match, as a data frame: `davy.runs("metrics.auc > 0.7", order_by="metrics.auc DESC")`.

    Columns: run_id, name, status, experiment, user, started, ended, then metrics.x, params.y and tags.z; null where a run has none.

    Args:
        filter: what runs must be (docs/concepts/search.md).
        experiment: one name or several (default: all).
        order_by: one item or several; without it, the newest first.

    Raises:
        InvalidInput: the filter or the order can't be read; says where.
        NotFound: there is no such experiment.
    """
    from davy.tracking.experiments import get_experiment
    from davy.tracking.frames import runs_frame

    names = [experiment] if isinstance(experiment, str) else experiment
    with current_home().database.read() as connection:
        found = None if names is None else [get_experiment(connection, name).id for name in names]
        return runs_frame(connection, experiments=found, filter=filter, order_by=[order_by] if isinstance(order_by, str) else order_by, limit=limit)


def as_frame(data: Any, fields: Iterable[Field] = ()) -> pl.DataFrame:
    """A polars frame of what users call a table; a file's columns are read as these fields."""
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, (str, Path)):
        return read_source(Path(data), fields)
    if hasattr(data, "__arrow_c_stream__"):
        return pl.DataFrame(data)
    if isinstance(data, (dict, list)):
        return pl.DataFrame(data, infer_schema_length=None)
    raise InvalidInput(
        f"A {type(data).__name__} is not a spine.",
        "A spine is a polars or Arrow frame (collect a lazy one), a mapping of columns, a list of rows, or a file.",
        "From pandas: polars.from_pandas(frame)",
    )


def _model(home: Home, features: Any) -> ModelDefinition | None:
    """The model that is asked for, by itself or by its name; None where features are listed."""
    if isinstance(features, (list, tuple)) and len(features) == 1:
        features = features[0]
    if isinstance(features, Model):
        return ModelDefinition(_resolver(current_project(home.root), [features]).model(features), features)
    return current_project(home.root).models.get(features) if isinstance(features, str) else None


def _labels(model: ModelDefinition | None, spine: pl.DataFrame) -> pl.Series | None:
    """What the model learns from each row of the spine, as in training, and null where that is not known yet."""
    if model is None or (outcome := model.spec.outcome.value.name) not in spine.columns:
        return None
    known = spine[outcome].is_not_null()
    if not known.any():
        return pl.Series("label", [None] * spine.height)
    found = labels(model, spine.filter(known))
    rows = known.cum_sum().cast(pl.Int64) - 1
    return found.gather(rows.set(~known, None))


def _feature_set(home: Home, features: Any, entities: Sequence[str] | None, request: Mapping[str, Any] | None) -> FeatureSet:
    model = _model(home, features)
    if model is not None:
        return model.spec.feature_set
    listed = features if isinstance(features, (list, tuple)) else [features]
    project = current_project(home.root) if any(isinstance(item, str) for item in listed) else Project(home.root)
    if len(listed) == 1 and isinstance(listed[0], str):
        name = listed[0]
        if name in project.views:
            listed = [project.views[name]]
        elif features is name:
            raise NotFound(
                f"{name!r} is neither a model nor a view of this project.",
                f"Models: {', '.join(project.models) or 'none'}; views: {', '.join(project.views) or 'none'}.",
                "Name one of them, pass the class, or list features by name.",
            )
    return _resolver(project, listed).feature_set(listed, entities=entities, request=request)


def _resolver(project: Project, listed: Sequence[Any]) -> Resolver:
    views = dict(project.views)
    for item in listed:
        view = item.view if isinstance(item, FeatureRef) else item
        if isinstance(view, type) and issubclass(view, View):
            views[view.__name__] = view
    return Resolver(views.values(), [*project.derived.values(), *(item for item in listed if isinstance(item, Derived))])


def _asked(entities: Any) -> list[Mapping[str, Any]]:
    asked = list(entities) if isinstance(entities, Sequence) and not isinstance(entities, str) else [entities]
    for keys in asked:
        if not isinstance(keys, Mapping):
            raise InvalidInput(f"{keys!r} names no entity.", "An entity is a mapping from key to value.", 'Write for example {"origin": "JFK"}.')
    return asked


def _kind(value: Any) -> Any:
    from davy.core.fields import Time, plain

    value = plain(value)
    return type(value) if isinstance(value, (bool, int, float, str)) else Time
