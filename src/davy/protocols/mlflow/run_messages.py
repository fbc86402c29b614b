"""Runs as MLflow has them, read many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from davy.protocols.mlflow.wire import KeyValue, Message, number
from davy.store.database import direct
from davy.tracking.inputs import datasets_of, model_inputs_of, outputs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from davy.tracking.inputs import DatasetInput

_TOGETHER = 1000
_INFO = "run_id, name, experiment_id, user_id, status, start_time, end_time, artifact_uri, lifecycle_stage"
_LINKED = ", ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {table}.run_id = runs.run_id)" for table in ("inputs", "model_inputs", "outputs"))
_METRIC = "run_id, key, value, is_nan, timestamp, step"
_LINKS: tuple[tuple[int, Callable[[sa.Connection, Sequence[str]], dict[str, list[Any]]]], ...] = ((-3, datasets_of), (-2, model_inputs_of), (-1, outputs_of))


class MetricMessage(Message):
    key: str | None = None
    value: float | str | None = None
    timestamp: int | None = None
    step: int | None = None
    run_id: str | None = None


class RunInfo(Message, kw_only=True):
    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None = None
    artifact_uri: str
    lifecycle_stage: str


class RunData(Message):
    metrics: list[MetricMessage] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class DatasetMessage(Message):
    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetInputMessage(Message):
    tags: list[KeyValue] = []
    dataset: DatasetMessage | None = None


class ModelInput(Message):
    model_id: str | None = None


class ModelOutput(Message):
    model_id: str | None = None
    step: int | None = None


class RunInputs(Message):
    dataset_inputs: list[DatasetInputMessage] = []
    model_inputs: list[ModelInput] = []


class RunOutputs(Message):
    model_outputs: list[ModelOutput] = []


class RunMessage(Message, kw_only=True):
    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs | None = None


def run_info(connection: sa.Connection, run_id: str) -> RunInfo | None:
    """The head of a run."""
    found = direct(connection, f"SELECT {_INFO} FROM runs WHERE run_id = ?", (run_id,))
    return _info(*found[0]) if found else None


def run_messages(connection: sa.Connection, ids: Sequence[str]) -> list[RunMessage]:
    """The runs of these ids in this order; unknown ids are left out."""
    return [message for start in range(0, len(ids), _TOGETHER) for message in _some(connection, ids[start:start + _TOGETHER])]


def _some(connection: sa.Connection, ids: Sequence[str]) -> Iterable[RunMessage]:
    within = f"run_id IN ({', '.join('?' * len(ids))})"
    rows = direct(connection, f"SELECT {_INFO}, {_LINKED} FROM runs WHERE {within}", ids)
    heads = {row[0]: _info(*row[:-3]) for row in rows}
    data = {run_id: RunData(metrics=[], params=[], tags=[]) for run_id in heads}
    for run_id, key, value in direct(connection, f"SELECT run_id, key, value FROM params WHERE {within} ORDER BY run_id, key", ids):
        data[run_id].params.append(KeyValue(key=key, value=value))
    for run_id, key, value in direct(connection, f"SELECT run_id, key, value FROM tags WHERE {within} ORDER BY run_id, key", ids):
        data[run_id].tags.append(KeyValue(key=key, value=value))
    for run_id, key, value, is_nan, timestamp, step in direct(connection, f"SELECT {_METRIC} FROM latest_metrics WHERE {within} ORDER BY run_id, key", ids):
        data[run_id].metrics.append(MetricMessage(key=key, value="NaN" if is_nan else number(value), timestamp=timestamp, step=step))
    read, used, made = (of(connection, linked) if (linked := [row[0] for row in rows if row[column]]) else {} for column, of in _LINKS)
    for run_id in ids:
        if run_id in heads:
            given = RunInputs(dataset_inputs=[dataset_message(item) for item in read.get(run_id, ())],
                              model_inputs=[ModelInput(model_id=model_id) for model_id in used.get(run_id, ())])
            models = [ModelOutput(model_id=model_id, step=step) for model_id, step in made.get(run_id, ())]
            yield RunMessage(info=heads[run_id], data=data[run_id], inputs=given, outputs=RunOutputs(model_outputs=models))


def dataset_message(item: DatasetInput) -> DatasetInputMessage:
    """A dataset that was read, as MLflow has it."""
    found = item.dataset
    return DatasetInputMessage(tags=[KeyValue(key=key, value=value) for key, value in item.tags], dataset=DatasetMessage(
        name=found.name, digest=found.digest, source_type=found.source_type, source=found.source, schema=found.schema, profile=found.profile))


def _info(run_id: str, name: str, experiment_id: int, user_id: str, status: str, start_time: int, end_time: int | None, artifact_uri: str,
          lifecycle_stage: str) -> RunInfo:
    return RunInfo(run_id=run_id, run_uuid=run_id, run_name=name, experiment_id=str(experiment_id), user_id=user_id, status=status, start_time=start_time,
                   end_time=end_time or None, artifact_uri=artifact_uri, lifecycle_stage=lifecycle_stage)
