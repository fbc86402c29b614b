"""What went into runs and came out of them: datasets with their digests, and logged models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.core.clock import new_id
from davy.schema.tables import datasets, input_tags, inputs, model_inputs, outputs
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from davy.core.clock import Clock

CONTEXT_TAG = "mlflow.data.context"
MOST_SUMMARIES = 1000


class Dataset(msgspec.Struct, frozen=True):
    """A dataset by name and digest; `source`, `schema` and `profile` are JSON texts."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInput(msgspec.Struct, frozen=True):
    """A dataset that a run has read, with tags that say what for."""

    dataset: Dataset
    tags: tuple[tuple[str, str], ...] = ()


def log_datasets(connection: sa.Connection, run_id: str, experiment_id: int, found: Iterable[DatasetInput], *, clock: Clock) -> None:
    """Note that the run has read these. A dataset is one by name and digest in an experiment; noting it again changes nothing."""
    for item in {(one.dataset.name, one.dataset.digest): one for one in reversed(list(found))}.values():
        where = (datasets.c.experiment_id == experiment_id, datasets.c.name == item.dataset.name, datasets.c.digest == item.dataset.digest)
        connection.execute(insert(connection, datasets).values(dataset_id=new_id(clock), experiment_id=experiment_id, **msgspec.structs.asdict(item.dataset))
                           .on_conflict_do_nothing(index_elements=["experiment_id", "name", "digest"]))
        dataset_id = connection.scalar(sa.select(datasets.c.dataset_id).where(*where))
        made = connection.execute(insert(connection, inputs).values(run_id=run_id, dataset_id=dataset_id).on_conflict_do_nothing()).rowcount
        tags = dict(item.tags)
        if made and tags:
            connection.execute(sa.insert(input_tags), [{"run_id": run_id, "dataset_id": dataset_id, "key": key, "value": value} for key, value in tags.items()])


def log_model_inputs(connection: sa.Connection, run_id: str, model_ids: Iterable[str]) -> None:
    """Note that the run has used these logged models."""
    for model_id in dict.fromkeys(model_ids):
        connection.execute(insert(connection, model_inputs).values(run_id=run_id, model_id=model_id).on_conflict_do_nothing())


def log_outputs(connection: sa.Connection, run_id: str, models: Iterable[tuple[str, int]]) -> None:
    """Note that the run has made these logged models, each at a step. Noting one again moves its step."""
    for model_id, step in models:
        statement = insert(connection, outputs).values(run_id=run_id, model_id=model_id, step=step)
        connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "model_id"], set_={"step": step}))


def datasets_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[DatasetInput]]:
    """The datasets that each of these runs has read."""
    tags: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for run_id, dataset_id, key, value in connection.execute(sa.select(input_tags).where(input_tags.c.run_id.in_(run_ids)).order_by(input_tags.c.key)):
        tags.setdefault((run_id, dataset_id), []).append((key, value))
    columns = [inputs.c.run_id, datasets.c.dataset_id, *(datasets.c[name] for name in Dataset.__struct_fields__)]
    query = sa.select(*columns).join(datasets, datasets.c.dataset_id == inputs.c.dataset_id).where(inputs.c.run_id.in_(run_ids)).order_by(
        inputs.c.run_id, datasets.c.name, datasets.c.digest)
    found: dict[str, list[DatasetInput]] = {}
    for run_id, dataset_id, *rest in connection.execute(query):
        found.setdefault(run_id, []).append(DatasetInput(Dataset(*rest), tuple(tags.get((run_id, dataset_id), ()))))
    return found


def model_inputs_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[str]]:
    """The logged models that each of these runs has used."""
    found: dict[str, list[str]] = {}
    for run_id, model_id in connection.execute(sa.select(model_inputs).where(model_inputs.c.run_id.in_(run_ids)).order_by(*model_inputs.primary_key)):
        found.setdefault(run_id, []).append(model_id)
    return found


def outputs_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The logged models that each of these runs has made, with their steps."""
    found: dict[str, list[tuple[str, int]]] = {}
    for run_id, model_id, step in connection.execute(sa.select(outputs).where(outputs.c.run_id.in_(run_ids)).order_by(*outputs.primary_key)):
        found.setdefault(run_id, []).append((model_id, step))
    return found


def dataset_summaries(connection: sa.Connection, experiment_ids: Sequence[int]) -> list[tuple[int, str, str, str | None]]:
    """Experiment, name, digest and context of datasets that runs of these experiments have read, at most `MOST_SUMMARIES`."""
    context = sa.and_(input_tags.c.run_id == inputs.c.run_id, input_tags.c.dataset_id == inputs.c.dataset_id, input_tags.c.key == CONTEXT_TAG)
    query = (sa.select(datasets.c.experiment_id, datasets.c.name, datasets.c.digest, input_tags.c.value).distinct()
             .join(inputs, inputs.c.dataset_id == datasets.c.dataset_id).outerjoin(input_tags, context)
             .where(datasets.c.experiment_id.in_(experiment_ids)).order_by(datasets.c.experiment_id, datasets.c.name, datasets.c.digest).limit(MOST_SUMMARIES))
    rows: Any = connection.execute(query)
    return [tuple(row) for row in rows]
