"""What filters and orders of runs and of experiments may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from davy.schema.tables import datasets, experiment_tags, experiments, input_tags, inputs, latest_metrics, params, runs, tags
from davy.search.fields import Attribute, Keyed, Linked
from davy.search.language import Language
from davy.tracking.records import RUN_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from davy.search.fields import Target

CONTEXT = "mlflow.data.context"
ENTITIES = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), "parameter"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
}
TAGGED = {"attribute": "attribute", "tag": "tag", "tags": "tag"}

METRICS = Keyed(latest_metrics, ("run_id",), (runs.c.run_id,), nan="is_nan",
                functions={"max": ("highest", None), "min": ("lowest", None), "last": ("last", "last_is_nan")})
PARAMS = Keyed(params, ("run_id",), (runs.c.run_id,))
TAGS = Keyed(tags, ("run_id",), (runs.c.run_id,))


def _dataset(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    joined = sa.join(inputs, datasets, inputs.c.dataset_id == datasets.c.dataset_id)
    return sa.exists().select_from(joined).where(inputs.c.run_id == runs.c.run_id, condition)


def _context(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists().where(input_tags.c.run_id == runs.c.run_id, input_tags.c.key == CONTEXT, condition)


_NAME = Attribute(runs.c.name, under=(TAGS, RUN_NAME))
_START = Attribute(runs.c.start_time, "number")
RUNS = Language(
    entities={**ENTITIES, "dataset": "dataset", "datasets": "dataset"},
    attributes={
        "run_id": Attribute(runs.c.run_id), "run_name": _NAME, "user_id": Attribute(runs.c.user_id), "status": Attribute(runs.c.status),
        "artifact_uri": Attribute(runs.c.artifact_uri), "start_time": _START, "end_time": Attribute(runs.c.end_time, "number", nullable=True),
        **dict.fromkeys(("created", "Created"), _START), **dict.fromkeys(("run name", "Run name", "Run Name"), _NAME),
    },
    others={"metric": METRICS, "parameter": PARAMS, "tag": TAGS,
            "dataset": {"name": Linked(datasets.c.name, _dataset), "digest": Linked(datasets.c.digest, _dataset),
                        "context": Linked(input_tags.c.value, _context)}},
    shown=("run_id", "run_name", "user_id", "status", "artifact_uri", "start_time", "end_time"),
)


class Tagged(Language):
    """Things with attributes and tags only, of which MLflow speaks in other words than of runs."""

    def bad_entity(self, found: str) -> str:
        return f"Invalid entity type '{found}'. Valid entity types are {('attribute', 'tag', 'tags')}"

    def bad_comparator(self, target: Target, op: str, allowed: Sequence[str]) -> str:
        if target.entity == "tag" or target.kind == "identity":
            return f"Invalid comparator for {target.entity if target.entity == 'tag' else target.key}: {op}"
        return super().bad_comparator(target, op, allowed)


def _experiment() -> dict[str, Any]:
    columns = experiments.c
    return {"name": Attribute(columns.name), "experiment_id": Attribute(columns.experiment_id, "identity"),
            "creation_time": Attribute(columns.creation_time, "number"), "last_update_time": Attribute(columns.last_update_time, "number")}


EXPERIMENTS = Tagged(entities=TAGGED, attributes=_experiment(),
                     others={"tag": Keyed(experiment_tags, ("experiment_id",), (experiments.c.experiment_id,))})
