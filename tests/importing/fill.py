"""Fill the MLflow at `argv[1]` with one of everything. Run by the Python of the MLflow that is meant; `argv[2]` is a folder for files that are logged.

Prints the ids that a test asks about, as JSON.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

uri, folder = sys.argv[1], Path(sys.argv[2])
three = int(mlflow.__version__.partition(".")[0]) >= 3
mlflow.set_tracking_uri(uri)
client = MlflowClient()
ids = {}


def experiment(name, **tags):
    if uri.startswith("sqlite"):
        return client.create_experiment(name, artifact_location=(folder / "mlartifacts" / name).as_uri(), tags=tags)
    return client.create_experiment(name, tags=tags)


def odd_files(run_id):
    for name, content in {"plain.txt": b"plain", "a b/ü, 1;+&=(2).bin": bytes(range(256)), "deep/er/x+y&z=1.json": b"{}", "empty": b""}.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    client.log_artifacts(run_id, str(folder / "files"))


first = experiment("shop/nightly", team="pricing", **{"mlflow.note.content": "Every night."})
gone = experiment("gone")

parent = client.create_run(first, run_name="parent", start_time=1_700_000_000_000, tags={"colour": "blue", "empty": ""})
ids["parent"] = parent.info.run_id
points = [Metric("loss", value, 1_700_000_000_000 + step * 10, step) for step, value in enumerate([3.5, 2.5, math.nan, math.inf, -math.inf, 0.1 + 0.2])]
points += [Metric("loss", 2.5, 1_700_000_000_010, 1), Metric("loss", 9.0, 1_700_000_000_011, 1), Metric("val/auc", 0.75, 5, -3)]
client.log_batch(parent.info.run_id, points, [Param("rate", "0.1"), Param("nothing", ""), Param("long", "x" * 500)], [RunTag("when", "now\n\"ü\"")])
client.log_batch(parent.info.run_id, points[:3])
odd_files(parent.info.run_id)
with mlflow.start_run(run_id=parent.info.run_id):
    pass
client.set_terminated(parent.info.run_id, "FAILED", end_time=1_700_000_060_000)

child = client.create_run(first, run_name="child", tags={"mlflow.parentRunId": parent.info.run_id}, start_time=1_700_000_001_000)
ids["child"] = child.info.run_id
client.log_metric(child.info.run_id, "loss", 1.25, step=7, timestamp=1_700_000_001_000)
client.set_terminated(child.info.run_id, end_time=1_700_000_002_000)

removed = client.create_run(first, run_name="removed")
ids["removed"] = removed.info.run_id
client.log_param(removed.info.run_id, "kept", "yes")
client.set_terminated(removed.info.run_id)
client.delete_run(removed.info.run_id)

running = client.create_run(first, run_name="running")
ids["running"] = running.info.run_id
client.log_metric(running.info.run_id, "loss", 8.0, step=0, timestamp=1)

lost = client.create_run(gone, run_name="of a deleted experiment")
client.log_metric(lost.info.run_id, "loss", 1.0, timestamp=1)
client.set_terminated(lost.info.run_id)
ids["lost"] = lost.info.run_id
client.delete_experiment(gone)

from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: E402

client.log_inputs(child.info.run_id, [DatasetInput(
    Dataset("flights", "abc123", "local", '{"uri": "flights.parquet"}', '{"mlflow_colspec": []}', '{"num_rows": 3}'),
    [InputTag("mlflow.data.context", "train")])])

model = SimpleNamespace(model_id=None)
if three:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = client.create_logged_model(first, name="late", source_run_id=child.info.run_id, tags={"kind": "tree"}, params={"depth": "3"}, model_type="lightgbm")
    ids["model"] = model.model_id
    client.log_outputs(child.info.run_id, [LoggedModelOutput(model.model_id, 2)])
    client.log_metric(child.info.run_id, "auc", 0.5, step=1, timestamp=10, model_id=model.model_id, dataset_name="flights", dataset_digest="abc123")
    client.log_metric(child.info.run_id, "auc", 0.625, step=2, timestamp=20, model_id=model.model_id)
    files = folder / "model"
    files.mkdir(exist_ok=True)
    (files / "MLmodel").write_text("flavors: {}\n")
    (files / "model.txt").write_text("tree\n")
    client.log_model_artifacts(model.model_id, str(files))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    pending = client.create_logged_model(first, name="failed")
    client.finalize_logged_model(pending.model_id, LoggedModelStatus.FAILED)
    ids["failed"] = pending.model_id

client.create_registered_model("late", tags={"owner": "ada"}, description="Will it be late?")
sources = [f"runs:/{parent.info.run_id}/deep", f"{parent.info.artifact_uri}/deep", f"{parent.info.artifact_uri}/deep/er", f"{parent.info.artifact_uri}/deep"]
for number, source in enumerate(sources, 1):
    client.create_model_version("late", source, parent.info.run_id, tags={"number": str(number)}, description=f"The {number}." if number != 2 else None)
client.delete_model_version("late", "2")
client.set_registered_model_alias("late", "champion", "3")
client.set_registered_model_alias("late", "old-one", "1")
client.transition_model_version_stage("late", "3", "Production")
client.transition_model_version_stage("late", "1", "Archived")
client.create_registered_model("empty")
if three:
    client.create_model_version("late", f"models:/{model.model_id}", child.info.run_id, model_id=model.model_id)
    mlflow.genai.register_prompt("greet", "Hello {{name}}.", commit_message="The first.", tags={"tone": "warm"})
    mlflow.genai.register_prompt("greet", "Good morning, {{name}}.")
    mlflow.genai.set_prompt_alias("greet", "live", 2)
print(json.dumps(ids))
