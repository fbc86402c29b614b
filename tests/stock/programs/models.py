"""Autologging, logged models, and loading them by every kind of name. Runs with MLflow 2 and 3."""

from __future__ import annotations

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import sklearn
from checks import refused, same, step, true
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV

client = MlflowClient()
new = int(mlflow.__version__.split(".")[0]) >= 3
experiment = mlflow.set_experiment("models")
random = np.random.default_rng(7)
X = pd.DataFrame(random.normal(size=(120, 3)), columns=["a", "b", "c"])
y = (X.a + X.b > 0).astype(int)


def files(run_id: str, path: str | None = None) -> set[str]:
    """The paths of a run's artifacts in a folder."""
    return {one.path for one in client.list_artifacts(run_id, path)}


with step("autolog, scikit-learn"):
    mlflow.autolog(log_datasets=True, silent=True)
    with mlflow.start_run(run_name="sklearn") as run:
        model = LogisticRegression(C=0.5).fit(X, y)
        model.score(X, y)
    found = client.get_run(run.info.run_id)
    same((found.data.params["C"], found.info.status), ("0.5", "FINISHED"))
    true({"training_accuracy_score", "training_f1_score", "training_score", "LogisticRegression_score_X"} <= set(found.data.metrics), found.data.metrics)
    same(found.inputs.dataset_inputs[0].tags[0].value, "train")
    true("training_confusion_matrix.png" in files(run.info.run_id), "plots are artifacts")
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    same(loaded.predict(X).tolist(), model.predict(X).tolist())
    if new:
        true(len(found.outputs.model_outputs) == 1, "the run's output is a logged model")

with step("autolog, a search over parameters"):
    mlflow.sklearn.autolog(log_models=False, silent=True, max_tuning_runs=3)
    with mlflow.start_run(run_name="grid") as run:
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=2).fit(X, y)
    children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", output_format="list")
    same(sorted(one.data.params["C"] for one in children), ["0.1", "1.0", "10.0"])
    true("cv_results.csv" in files(run.info.run_id), "the results are an artifact")

with step("autolog, LightGBM"):
    mlflow.lightgbm.autolog(log_models=False, silent=True)
    with mlflow.start_run(run_name="lightgbm") as run:
        data = lightgbm.Dataset(X, y)
        lightgbm.train({"objective": "binary", "verbose": -1, "metric": "binary_logloss", "num_leaves": 4}, data, 8, valid_sets=[data], valid_names=["train"])
    found = client.get_run(run.info.run_id)
    same((found.data.params["num_leaves"], len(client.get_metric_history(run.info.run_id, "train-binary_logloss"))), ("4", 8))
    true("feature_importance_split.png" in files(run.info.run_id), "importances are an artifact")
    mlflow.autolog(disable=True, silent=True)

with step("log_model and load_model by run"):
    regression = LinearRegression().fit(X, X.a * 2 + 1)
    requirements = [f"scikit-learn=={sklearn.__version__}"]
    arguments = {"signature": infer_signature(X, regression.predict(X)), "input_example": X[:2], "pip_requirements": requirements, "metadata": {"team": "air"}}
    with mlflow.start_run(run_name="logged") as run:
        info = mlflow.sklearn.log_model(regression, **{"name" if new else "artifact_path": "regression"}, **arguments)
    wanted = regression.predict(X).tolist()
    same(mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/regression").predict(X).tolist(), wanted)
    same(mlflow.sklearn.load_model(info.model_uri).predict(X).tolist(), wanted)
    same(mlflow.models.get_model_info(info.model_uri).metadata, {"team": "air"})
    true(mlflow.pyfunc.get_model_dependencies(info.model_uri).endswith("requirements.txt"), "dependencies")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        mlflow.pyfunc.load_model("models:/nobody/1")

with step("register_model, and by version, alias and stage"):
    version = mlflow.register_model(f"runs:/{run.info.run_id}/regression", "regression", tags={"a": "b"})
    same(
        (version.version, version.name, client.get_model_version("regression", "1").status),
        ("1" if isinstance(version.version, str) else 1, "regression", "READY"),
    )
    client.set_registered_model_alias("regression", "champion", "1")
    for uri in ("models:/regression/1", "models:/regression@champion", "models:/regression/latest"):
        same(mlflow.pyfunc.load_model(uri).predict(X).tolist(), wanted, uri)
    client.transition_model_version_stage("regression", "1", "Production")
    same(mlflow.pyfunc.load_model("models:/regression/Production").predict(X).tolist(), wanted)
    with mlflow.start_run(run_name="registered at once") as run:
        mlflow.sklearn.log_model(
            LinearRegression().fit(X, X.a), **{"name" if new else "artifact_path": "again"}, registered_model_name="regression", pip_requirements=requirements
        )
    same(sorted(int(one.version) for one in client.search_model_versions("name = 'regression'")), [1, 2])
    same(client.get_model_version("regression", "2").run_id, run.info.run_id)

with step("a Python model of one's own"):

    class Twice(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input["a"] * 2

    with mlflow.start_run(run_name="own") as run:
        info = mlflow.pyfunc.log_model(python_model=Twice(), **{"name" if new else "artifact_path": "twice"}, pip_requirements=[], artifacts=None)
    same(mlflow.pyfunc.load_model(info.model_uri).predict(X).tolist(), (X.a * 2).tolist())

if new:
    with step("logged models"):
        models = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
        same(sorted(one.name for one in models), ["again", "model", "regression", "twice"])
        one = next(one for one in models if one.name == "regression")
        same((one.status.value, one.source_run_id is not None, one.model_id.startswith("m-")), ("READY", True, True))
        same(mlflow.pyfunc.load_model(f"models:/{one.model_id}").predict(X).tolist(), wanted)
        mlflow.set_logged_model_tags(one.model_id, {"k": "v", "l": "w"})
        mlflow.delete_logged_model_tag(one.model_id, "l")
        mlflow.log_model_params({"depth": "3"}, model_id=one.model_id)
        with mlflow.start_run(run_name="evaluation") as run:
            dataset = mlflow.data.from_pandas(X, name="held out")
            mlflow.log_metric("rmse", 0.25, model_id=one.model_id, dataset=dataset)
            mlflow.log_metrics({"mae": 0.125, "r2": 1.0}, model_id=one.model_id)
        found = mlflow.get_logged_model(one.model_id)
        same((found.tags["k"], "l" in found.tags, found.params["depth"]), ("v", False, "3"))
        same(
            {metric.key: (metric.value, metric.dataset_name) for metric in found.metrics}, {"rmse": (0.25, "held out"), "mae": (0.125, None), "r2": (1.0, None)}
        )
        same(
            [
                one.name
                for one in mlflow.search_logged_models([experiment.experiment_id], filter_string="metrics.rmse < 0.5 AND tags.k = 'v'", output_format="list")
            ],
            ["regression"],
        )
        same(
            [
                one.name
                for one in mlflow.search_logged_models(
                    [experiment.experiment_id], order_by=[{"field_name": "name", "ascending": False}], max_results=2, output_format="list"
                )
            ],
            ["twice", "regression"],
        )
        frame = mlflow.search_logged_models([experiment.experiment_id], filter_string="name = 'regression'")
        same((len(frame), frame["name"][0]), (1, "regression"))
        true("mlflow.modelVersions" in found.tags, "the model knows its versions")
        external = mlflow.create_external_model(name="elsewhere", params={"p": "1"})
        same(mlflow.get_logged_model(external.model_id).params["p"], "1")
        client.delete_logged_model(external.model_id)
        with refused("RESOURCE_DOES_NOT_EXIST"):
            client.get_logged_model(external.model_id)
        with refused("INVALID_PARAMETER_VALUE"):
            client.create_logged_model(experiment.experiment_id, name="a/b")
