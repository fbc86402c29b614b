"""Makes the folders beside it with MLflow, and asks mlflow.pyfunc what they answer.

Run by hand, where MLflow, scikit-learn, LightGBM and skops are: make_models.py [NAME...] (default: all).
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent / "models"
UNUSED = ("conda.yaml", "python_env.yaml", "serving_input_example.json")


class Doubled(mlflow.pyfunc.PythonModel):
    """Only MLflow can load this one."""

    def predict(self, context, model_input, params=None):
        return model_input["amount"] * 2 + model_input["age"] + model_input["member"]


def main() -> None:
    random = np.random.default_rng(7)
    frame = pd.DataFrame({"amount": random.normal(size=300), "age": random.integers(18, 80, 300), "member": random.random(300) > 0.5})
    yes = (frame.amount + frame.age / 50 + random.normal(size=300) * 0.1 > 1).astype(int)
    named = frame.rename(columns={"amount": "amount (in €)", "age": "age.years", "member": "is a member?"})
    words = np.array(["no", "yes"])[yes]
    plain = random.normal(size=(300, 3))
    booster = lightgbm.train({"objective": "binary", "num_leaves": 5, "verbose": -1, "seed": 1}, lightgbm.Dataset(frame, yes), 5)
    better = lightgbm.train({"objective": "binary", "num_leaves": 7, "verbose": -1, "seed": 1}, lightgbm.Dataset(frame, yes), 9)
    grade = np.clip(frame.age // 25, 0, 2)
    grades = lightgbm.train({"objective": "multiclass", "num_class": 3, "num_leaves": 3, "verbose": -1, "seed": 1}, lightgbm.Dataset(frame, grade), 2)
    columns = ColumnTransformer([("scaled", StandardScaler(), ["age", "amount"]), ("kept", "passthrough", ["member"])])
    logistic = LogisticRegression()
    rows = frame.head(5)

    def pick(model, data):
        return infer_signature(data, model.predict(data))

    save = {
        "booster": (rows, lambda at: mlflow.lightgbm.save_model(booster, at, signature=pick(booster, frame), input_example=rows)),
        "better": (rows, lambda at: mlflow.lightgbm.save_model(better, at, signature=pick(better, frame))),
        "grades": (rows, lambda at: mlflow.lightgbm.save_model(grades, at, signature=pick(grades, frame))),
        "trees": (rows, lambda at: mlflow.lightgbm.save_model(
            trees := lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1).fit(frame, words), at, signature=pick(trees, frame),
            serialization_format="cloudpickle")),
        "words": (named.head(5), lambda at: mlflow.sklearn.save_model(
            tree := DecisionTreeClassifier(max_depth=2, random_state=1).fit(named, words), at, signature=pick(tree, named), serialization_format="pickle")),
        "chances": (rows, lambda at: mlflow.sklearn.save_model(
            logistic.fit(frame, yes), at, signature=infer_signature(frame, logistic.predict_proba(frame)), serialization_format="cloudpickle",
            pyfunc_predict_fn="predict_proba")),
        "columns": (rows, lambda at: mlflow.sklearn.save_model(
            pipe := make_pipeline(columns, LogisticRegression()).fit(frame, yes), at, signature=pick(pipe, frame), serialization_format="pickle")),
        "skops": (rows, lambda at: mlflow.sklearn.save_model(
            line := LinearRegression().fit(frame, frame.amount * 3 + frame.age), at, signature=pick(line, frame))),
        "tensor": (plain[:5], lambda at: mlflow.sklearn.save_model(
            line := LinearRegression().fit(plain, plain.sum(axis=1)), at, signature=pick(line, plain), serialization_format="pickle")),
        "python": (rows, lambda at: mlflow.pyfunc.save_model(at, python_model=Doubled(), signature=infer_signature(frame, frame.amount))),
        "unsigned": (rows, lambda at: mlflow.lightgbm.save_model(booster, at)),
    }
    answers = json.loads((HERE / "answers.json").read_text()) if len(sys.argv) > 1 else {}
    for name, (asked, write) in save.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        shutil.rmtree(HERE / name, ignore_errors=True)
        write(str(HERE / name))
        for unused in UNUSED:
            (HERE / name / unused).unlink(missing_ok=True)
        told = np.asarray(mlflow.pyfunc.load_model(str(HERE / name)).predict(asked)).tolist()
        given = asked.to_dict("records") if isinstance(asked, pd.DataFrame) else [dict(zip(("x0", "x1", "x2"), row.tolist(), strict=True)) for row in asked]
        answers[name] = {"rows": given, "answers": told}
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
