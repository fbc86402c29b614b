"""A client that logs in: with a token, or with a name and a password, as the environment says. Runs with MLflow 2 and 3."""

from __future__ import annotations

import os

import mlflow
from checks import refused, same, step
from mlflow import MlflowClient
from mlflow.artifacts import load_text

client = MlflowClient()

with step("a scientist writes"):
    experiment = client.get_experiment_by_name("logins") or client.get_experiment(client.create_experiment("logins"))
    with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
        mlflow.log_metric("a", 1)
        mlflow.log_text("hello", "a/b.txt")
    same(client.get_run(run.info.run_id).data.metrics, {"a": 1.0})
    same(load_text(f"{run.info.artifact_uri}/a/b.txt"), "hello")
    same(client.get_run(run.info.run_id).info.user_id != "", True)

for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
    os.environ.pop(name, None)

with step("a viewer only reads"):
    os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ["VIEWER_TOKEN"]
    same(client.get_run(run.info.run_id).data.metrics, {"a": 1.0})
    with refused("PERMISSION_DENIED"):
        client.log_metric(run.info.run_id, "b", 1)

with step("nobody does nothing"):
    for token in ("davy_not-a-token", ""):
        os.environ["MLFLOW_TRACKING_TOKEN"] = token
        with refused("UNAUTHENTICATED"):
            client.get_run(run.info.run_id)
