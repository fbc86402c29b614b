"""`runs/log-inputs` and `runs/outputs`: datasets read, logged models used and made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import check_length, check_run_id
from davy.protocols.mlflow.run_messages import DatasetInputMessage, ModelInput, ModelOutput
from davy.protocols.mlflow.runs import head, writable
from davy.protocols.mlflow.wire import Message, invalid
from davy.tracking.inputs import Dataset, DatasetInput, log_datasets, log_model_inputs, log_outputs
from davy.tracking.logged_models import require_logged_model

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
_LONGEST_TAG_KEY, _LONGEST_TAG_VALUE = 255, 500


class LogInputs(Message):
    run_id: str | None = None
    datasets: list[DatasetInputMessage] = []
    models: list[ModelInput] = []


class LogOutputs(Message):
    run_id: str | None = None
    models: list[ModelOutput] = []


@endpoint("POST", "runs/log-inputs", LogInputs, required=("run_id",), write=True)
def inputs(call: Call, asked: LogInputs) -> dict[str, Any]:
    run_id = check_run_id(asked.run_id or "")
    found = [_dataset(item) for item in asked.datasets]
    writable(call, run_id)
    if found:
        log_datasets(call.connection, run_id, int(head(call, run_id).experiment_id), found, clock=call.clock)
    log_model_inputs(call.connection, run_id, _known(call, asked.models))
    return {}


@endpoint("POST", "runs/outputs", LogOutputs, required=("run_id", "models"), write=True)
def outputs(call: Call, asked: LogOutputs) -> dict[str, Any]:
    run_id = asked.run_id or ""
    writable(call, run_id)
    _known(call, asked.models)
    log_outputs(call.connection, run_id, [(item.model_id or "", item.step or 0) for item in asked.models])
    return {}


def _dataset(item: DatasetInputMessage) -> DatasetInput:
    found = item.dataset
    if found is None:
        raise invalid("Dataset cannot be None")
    for name in ("name", "digest", "source_type", "source"):
        if getattr(found, name) is None:
            raise invalid(f"Dataset {name} cannot be None")
    for name, limit in _LONGEST.items():
        check_length(name, getattr(found, name) or "", limit)
    for tag in item.tags:
        if tag.key is None or tag.value is None:
            raise invalid("InputTag key cannot be None" if tag.key is None else "InputTag value cannot be None")
        check_length("key", tag.key, _LONGEST_TAG_KEY)
        check_length("value", tag.value, _LONGEST_TAG_VALUE)
    dataset = Dataset(found.name or "", found.digest or "", found.source_type or "", found.source or "", found.schema, found.profile)
    return DatasetInput(dataset, tuple((tag.key or "", tag.value or "") for tag in item.tags))


def _known(call: Call, models: Iterable[ModelInput | ModelOutput]) -> list[str]:
    """The ids, if each is a logged model's."""
    wanted = list(dict.fromkeys(item.model_id or "" for item in models))
    for model_id in wanted:
        require_logged_model(call.connection, model_id)
    return wanted
