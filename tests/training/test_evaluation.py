"""Metrics against scikit-learn's and against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from davy.training.evaluation import auc, auc_interval, calibration, importance, positives, roc_curve, scores
from davy.training.plots import calibration_svg, importance_svg, roc_svg


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60).filter(lambda rows: len({label for _, label in rows}) == 2))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    answers, positive = np.array([value for value, _ in rows], dtype=float), np.array([label for _, label in rows])
    pairs = [(up > down) + (up == down) / 2 for up in answers[positive] for down in answers[~positive]]
    assert auc(answers, positive) == pytest.approx(np.mean(pairs))
    false, true = roc_curve(answers, positive)
    assert np.trapezoid(true, false) == pytest.approx(np.mean(pairs))


def test_two_classes_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    answers = generator.random(500)
    labels = (generator.random(500) < answers).astype(int)
    found = scores("probability", (0, 1), answers, labels)
    assert found == pytest.approx({"auc": metrics.roc_auc_score(labels, answers), "logloss": metrics.log_loss(labels, answers),
                                   "brier": metrics.brier_score_loss(labels, answers)})
    assert scores("value", (), answers, labels) == found


def test_other_outputs() -> None:
    assert scores("value", (), np.array([1.0, 4.0]), np.array([1.0, 2.0])) == pytest.approx({"rmse": 2**0.5, "mae": 1.0})
    assert scores("label", ("no", "yes"), ["no", "yes", "no"], np.array(["no", "yes", "yes"])) == pytest.approx({"accuracy": 2 / 3})
    answers, labels = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array(["a", "b"])
    assert scores("probability", ("a", "b", "c"), answers, labels) == pytest.approx(
        {"logloss": metrics.log_loss(labels, answers, labels=["a", "b", "c"]), "accuracy": 0.5})
    assert scores("value", (), np.array([]), np.array([])) == {}
    assert "auc" not in scores("probability", (0, 1), np.array([0.5, 0.6]), np.array([1, 1]))
    assert positives(np.array([1.0, 2.0]), ()) is None


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Normal scores one standard deviation apart: the true AUC is Phi(1 / sqrt 2).
    truth, hits, trials = 0.7602499389065233, 0, 400
    generator = np.random.default_rng(2)
    for _ in range(trials):
        answers = np.concatenate([generator.normal(1, 1, 60), generator.normal(0, 1, 90)])
        interval = auc_interval(answers, np.arange(150) < 60)
        assert interval is not None
        hits += interval[0] < truth < interval[1]
    assert 0.92 <= hits / trials <= 0.98
    assert auc_interval(np.array([1.0, 0.0]), np.array([True, False])) is None


def test_calibration_bins_hold_every_row() -> None:
    answers = np.linspace(0, 1, 103)
    bins = calibration(answers, answers > 0.5)
    assert sum(entry[4] for entry in bins) == 103
    assert all(low <= share <= high for _, share, low, high, _ in bins)


def test_importance_and_plots() -> None:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(300, 2))
    labels = (matrix[:, 1] > 0).astype(int)
    for model in (LGBMClassifier(n_estimators=3, verbose=-1, num_threads=1), make_pipeline(StandardScaler(), LogisticRegression())):
        found = importance(model.fit(matrix, labels), ["noise", "signal"])
        assert found is not None
        assert next(iter(found)) == "signal"
    assert importance(object(), ["a"]) is None
    answers = generator.random(300)
    for svg in (roc_svg(answers, labels == 1, "late"), calibration_svg(answers, labels == 1, "late"), importance_svg({"a": 2.0, "b": -1.0}, "late")):
        assert b"<svg" in svg
    assert roc_svg(answers, labels == 1, "late") == roc_svg(answers, labels == 1, "late")
