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
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent / "models"
UNUSED = ("conda.yaml", "python_env.yaml", "serving_input_example.json")


class Remembered(mlflow.pyfunc.PythonModel):
    """One that looks at texts and times."""

    def predict(self, context, model_input, params=None):
        worth = {"paris": 1.5, "são paulo": 2.5, "東京": 4.0}
        return [worth[city] + (0 if when is pd.NaT else when.hour * 60 + when.microsecond) for city, when in
                zip(model_input["city"], model_input["when"], strict=True)]


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
    trips = pd.DataFrame({"city": random.choice(["paris", "são paulo", "東京", ""], 300), "plan": random.choice(["free", "gold"], 300),
                          "seats": random.integers(1, 9, 300), "when": pd.date_range("2024-02-28T23:59:59.000123", periods=300, freq="77min")})
    hot = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("plan", OneHotEncoder(), ["plan"])], remainder="passthrough")
    reviews = pd.DataFrame({"review": [f"{a} {b} film" for a in ("good", "bad", "dull", "great") for b in ("long", "short", "old")]})
    liked = reviews.review.str.match("good|great").astype(int)
    places = trips[["city", "plan", "seats"]]
    moments = trips[["city", "when"]][trips.city != ""]

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
        "texts": (places.head(5), lambda at: mlflow.sklearn.save_model(
            pipe := make_pipeline(hot, LogisticRegression()).fit(places, np.where(places.seats > 4, "big", "small")), at, signature=pick(pipe, places),
            input_example=places.head(3), serialization_format="pickle")),
        "reviews": (reviews.head(5), lambda at: mlflow.sklearn.save_model(
            pipe := make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(reviews.review, liked), at,
            signature=infer_signature(reviews, pipe.predict_proba(reviews.review)), serialization_format="skops", pyfunc_predict_fn="predict_proba")),
        "moments": (moments.head(5), lambda at: mlflow.pyfunc.save_model(
            at, python_model=Remembered(), input_example=moments.head(2), signature=infer_signature(moments, np.array([1.0])))),
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
        # A pipeline that begins with a vectorizer takes a series; MLflow would give it the names of the frame's columns as its rows.
        loaded = mlflow.sklearn.load_model(str(HERE / name)).predict_proba if name == "reviews" else mlflow.pyfunc.load_model(str(HERE / name)).predict
        told = np.asarray(loaded(asked.review if name == "reviews" else asked)).tolist()
        given = asked.to_dict("records") if isinstance(asked, pd.DataFrame) else [dict(zip(("x0", "x1", "x2"), row.tolist(), strict=True)) for row in asked]
        answers[name] = {"rows": given, "answers": told}
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1, default=lambda time: time.tz_localize("UTC").isoformat()))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
