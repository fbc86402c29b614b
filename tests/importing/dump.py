"""All that the MLflow at `argv[1]` holds, as its own client reads it, as JSON. What must differ between two servers is named alike: experiments by name."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType

uri = sys.argv[1]
mlflow.set_tracking_uri(uri)
client = MlflowClient()


def tree(folder):
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def files(root):
    """Path -> digest of what is under a root; none where nothing was ever put."""
    if not mlflow.artifacts.list_artifacts(artifact_uri=root):
        return {}
    with tempfile.TemporaryDirectory() as place:
        return tree(Path(mlflow.artifacts.download_artifacts(artifact_uri=root, dst_path=place)))


def number(value):
    return repr(float(value))


def run(found):
    info, data = found.info, found.data
    history = {key: sorted({(point.step, point.timestamp, number(point.value)) for point in client.get_metric_history(info.run_id, key)})
               for key in data.metrics}
    return {
        "name": info.run_name, "status": info.status, "start": info.start_time, "end": info.end_time, "stage": info.lifecycle_stage, "user": info.user_id,
        "params": data.params, "tags": data.tags, "latest": {key: number(value) for key, value in data.metrics.items()}, "history": history,
        "datasets": [{**dict(item.dataset), "tags": {tag.key: tag.value for tag in item.tags}} for item in found.inputs.dataset_inputs],
        "made": [[model.model_id, model.step] for model in found.outputs.model_outputs] if found.outputs else [],
        "files": files(info.artifact_uri)}


def logged(model):
    points = sorted([point.key, number(point.value), point.timestamp, point.step, point.run_id, point.dataset_name, point.dataset_digest]
                    for point in model.metrics or ())
    return {"name": model.name, "status": {"UNSPECIFIED": "FAILED"}.get(model.status.value, model.status.value),  # as clients read it from a server
            "type": model.model_type or None, "run": model.source_run_id or None, "params": model.params,
            "tags": model.tags, "created": model.creation_timestamp, "metrics": json.loads(json.dumps(points)), "files": files(model.artifact_location)}


def version(found):
    content = None if "mlflow.prompt.is_prompt" in found.tags else files(f"models:/{found.name}/{found.version}")
    return {"created": found.creation_timestamp, "changed": found.last_updated_timestamp, "description": found.description or "", "stage": found.current_stage,
            "run": found.run_id or None, "status": str(found.status), "tags": found.tags, "user": found.user_id or None, "content": content}


experiments, runs, models, registry = {}, {}, {}, {}
for one in client.search_experiments(ViewType.ALL):
    experiments[one.name] = {"stage": one.lifecycle_stage, "tags": one.tags,
                             "created": one.creation_time if one.name != "Default" else None}
    for found in client.search_runs([one.experiment_id], "", ViewType.ALL):
        runs[found.info.run_id] = {"experiment": one.name, **run(client.get_run(found.info.run_id))}
    for found in client.search_logged_models([one.experiment_id]):
        models[found.model_id] = {"experiment": one.name, **logged(client.get_logged_model(found.model_id))}
for asked in (None, "tags.`mlflow.prompt.is_prompt` = 'true'"):
    for one in client.search_registered_models(asked):
        also = f" AND {asked}" if asked else ""
        registry[one.name] = {"created": one.creation_timestamp, "description": one.description or "", "tags": one.tags,
                              "aliases": {alias: str(number) for alias, number in one.aliases.items()},
                              "versions": {int(found.version): version(found)
                                           for found in client.search_model_versions(f"name = '{one.name}'{also}")}}
print(json.dumps({"experiments": experiments, "runs": runs, "models": models, "registry": registry}, sort_keys=True, indent=1))
