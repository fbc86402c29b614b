"""Trained objects become files that serving loads, or are refused at once with advice."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from davy.errors import InvalidInput, UnsafeModel
from davy.training.formats import CARD, NATIVE, PICKLE, answers_before, check_loadable, digest_predictions, predict_checked, save
from training.helpers_models import Forgetful, Gadget, Mean, Names

COLUMNS = ["a", "b", "c"]
HERE = "training.helpers_models"
ELSEWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(1500, 3))
    return matrix, (matrix[:, 0] + generator.normal(size=1500) > 0).astype(int)


def through(model: Any, matrix: np.ndarray, allow: tuple[str, ...] = ()) -> tuple[Any, Any]:
    saved = save(model, COLUMNS)
    return saved, predict_checked(answers_before(model, saved, matrix), check_loadable(saved, ELSEWHERE, allow_globals=allow), matrix)


def test_lightgbm_is_saved_as_its_own_text(data: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, labels = data
    model = lgb.LGBMClassifier(n_estimators=5, verbose=-1, num_threads=1).fit(matrix, labels)
    saved, found = through(model, matrix)
    assert (saved.format, saved.output, saved.classes) == ("lightgbm", "probability", (0, 1))
    assert set(saved.files) == {NATIVE, CARD}
    np.testing.assert_array_equal(found, model.booster_.predict(matrix))
    assert json.loads(saved.files[CARD])["columns"] == COLUMNS
    booster, again = through(model.booster_, matrix)
    assert (booster.digest, booster.output, booster.classes) == (saved.digest, "probability", (0, 1))
    np.testing.assert_array_equal(again, found)


def test_lightgbm_keeps_the_best_iteration(data: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, labels = data
    model = lgb.LGBMClassifier(n_estimators=200, learning_rate=0.5, verbose=-1, num_threads=1)
    model.fit(matrix[:800], labels[:800], eval_X=matrix[800:], eval_y=labels[800:], callbacks=[lgb.early_stopping(3, verbose=False)])
    assert 0 < model.best_iteration_ < 200
    _, found = through(model, matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(found, model.predict_proba(matrix)[:, 1])


def test_lightgbm_for_many_classes_and_for_values(data: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, _ = data
    names = np.array(["x", "y", "z"])[(matrix[:, 1] > 0).astype(int) + (matrix[:, 1] > 1).astype(int)]
    saved, found = through(lgb.LGBMClassifier(n_estimators=3, verbose=-1, num_threads=1).fit(matrix, names), matrix)
    assert (saved.output, saved.classes, found.shape) == ("probability", ("x", "y", "z"), (1500, 3))
    saved, found = through(lgb.LGBMRegressor(n_estimators=3, verbose=-1, num_threads=1).fit(matrix, matrix[:, 0]), matrix)
    assert (saved.output, saved.classes, found.shape) == ("value", (), (1500,))


@pytest.mark.parametrize(("model", "output", "classes"), [
    (make_pipeline(StandardScaler(), LogisticRegression()), "probability", (0, 1)),
    (RandomForestClassifier(n_estimators=5, random_state=0), "probability", (0, 1)),
    (LinearSVC(), "label", (0, 1)),
    (LinearRegression(), "value", ()),
])
def test_scikit_learn(model: Any, output: str, classes: tuple[int, ...], data: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, labels = data
    saved, found = through(model.fit(matrix, labels), matrix)
    assert (saved.format, saved.output, saved.classes, set(saved.files)) == ("sklearn", output, classes, {PICKLE, CARD})
    expected = model.predict_proba(matrix)[:, 1] if output == "probability" else model.predict(matrix)
    np.testing.assert_array_equal(np.asarray(found), expected)
    assert save(model, COLUMNS).digest == saved.digest


def test_an_object_of_ones_own_needs_a_line_in_davy_toml(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UnsafeModel) as refused:
        through(Mean(0.5), data[0])
    assert f'allow_globals = ["{HERE}.Mean"]' in refused.value.fix
    assert "would not be served" in refused.value.came
    saved, found = through(Mean(0.5), data[0], (f"{HERE}.Mean",))
    assert (saved.format, saved.output, found[0]) == ("pickle", "value", 0.5)
    saved, found = through(Names(0.5), data[0], (f"{HERE}.Names",))
    assert (saved.output, saved.classes, type(found[0])) == ("label", ("no", "yes"), str)


def test_a_gadget_is_refused_without_being_run() -> None:
    with pytest.raises(UnsafeModel, match="system"):
        check_loadable(save(Gadget(1.0), COLUMNS), ELSEWHERE, allow_globals=(f"{HERE}.Gadget",))


def _local_class() -> Any:
    class Inner(Mean):
        pass

    return Inner(1.0)


def _lambda_inside() -> Any:
    model = Mean(1.0)
    model.transform = lambda value: value  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(("make", "said"), [
    (lambda: None, "returned nothing"),
    (lambda: 3.0, "no predict"),
    (lambda: Mean, "no predict"),
    (_local_class, "defined in a function"),
    (_lambda_inside, "lambda"),
    (lambda: lgb.LGBMClassifier(), "not fitted"),
])
def test_what_is_no_model_is_refused_with_advice(make: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        save(make(), COLUMNS)
    assert refused.value.fix


def test_a_model_that_changes_when_saved_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InvalidInput, match=r"Saving changes the model: for row 0 it answered .*0\.5.* before"):
        through(Forgetful(0.5), data[0], (f"{HERE}.Forgetful",))


def test_a_model_of_other_columns_is_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = LogisticRegression().fit(data[0][:, :2], data[1])
    with pytest.raises(InvalidInput, match="can't answer the training set's own rows") as refused:
        through(model, data[0])
    assert "3 columns" in refused.value.allowed


def test_the_digest_of_predictions_covers_the_last_row_and_the_shape() -> None:
    answers = np.linspace(0, 1, 20_000)
    other = answers.copy()
    other[-1] = np.nextafter(other[-1], 2)
    assert digest_predictions(answers) != digest_predictions(other)
    assert digest_predictions(answers) != digest_predictions(answers.reshape(-1, 2))
    assert digest_predictions(["a"]) != digest_predictions(["b"])
