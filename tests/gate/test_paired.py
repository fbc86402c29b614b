"""Paired comparisons: golden values, the promised rates, and the small statistics of the other checks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from davy.gate.baseline import Linear
from davy.gate.calibration import excess
from davy.gate.paired import LEVEL, compare, compare_auc, holm, loss_comparison, row_losses
from davy.gate.quality import judge
from davy.gate.speed import growth, median_interval, sign_test
from davy.registry.signature import Column, Signature
from davy.training.evaluation import auc_interval, calibration

TWO = Signature((Column("x", "float"),), "probability", (0, 1))
# DeLong, DeLong and Clarke-Pearson's method on small data, computed here from its definition: structural components by counting pairs.
FIRST = np.array([0.1, 0.4, 0.35, 0.8, 0.65, 0.3, 0.9, 0.2, 0.55, 0.7])
SECOND = np.array([0.2, 0.3, 0.6, 0.7, 0.35, 0.5, 0.8, 0.1, 0.65, 0.4])
POSITIVE = np.array([False, False, True, True, True, False, True, False, False, True])


def by_counting(answers: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wins = np.array([[1.0 if up > down else 0.5 if up == down else 0.0 for down in answers[~positive]] for up in answers[positive]])
    return wins.mean(axis=1), wins.mean(axis=0)


def test_delong_is_what_its_definition_says() -> None:
    found = compare_auc(FIRST, SECOND, POSITIVE, 0.01)
    (a10, a01), (b10, b01) = by_counting(FIRST, POSITIVE), by_counting(SECOND, POSITIVE)
    s10, s01 = np.cov(np.stack([a10, b10])), np.cov(np.stack([a01, b01]))
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (s10 / 5 + s01 / 5) @ contrast
    assert found.gain == pytest.approx(a10.mean() - b10.mean())
    assert found.high - found.low == pytest.approx(2 * 1.959963984540054 * math.sqrt(variance))
    assert (found.candidate, found.reference) == (pytest.approx(a10.mean()), pytest.approx(b10.mean()))


def test_an_equal_model_is_as_good_and_never_worse() -> None:
    found = compare_auc(FIRST, FIRST, POSITIVE, 0.01)
    assert (found.gain, found.low, found.high) == (0, 0, 0)
    assert found.is_as_good
    assert not found.is_worse


def test_pairs_see_what_two_separate_intervals_can_not() -> None:
    random = np.random.default_rng(3)
    positive = random.random(3000) < 0.3
    signal = positive + random.normal(size=3000)
    found = compare_auc(signal + random.normal(size=3000) / 2, signal, positive, 0.01)
    better, worse = auc_interval(signal, positive), auc_interval(signal + random.normal(size=3000) / 2, positive)
    assert better is not None
    assert worse is not None
    assert better[0] < worse[1]
    assert found.is_worse


def test_an_equally_good_model_is_called_worse_in_one_run_of_forty() -> None:
    random = np.random.default_rng(11)
    worse = 0
    for _ in range(400):
        positive = random.random(400) < 0.4
        signal = positive + random.normal(size=400)
        noise = random.normal(size=(2, 400)) / 2
        worse += compare_auc(signal + noise[0], signal + noise[1], positive, 0.0).is_worse
    assert worse <= 20  # expected 10, two-sided 95 %; P(> 20) is 0.0016


@pytest.mark.parametrize("kind", ["auc", "loss"])
def test_rows_that_hang_together_count_as_less(kind: str) -> None:
    """Each hour favours one of two equally good versions: single rows would call one of them worse far too often."""
    random = np.random.default_rng(12)
    blocks = np.repeat(np.arange(60), 20)
    worse = {"rows": 0, "blocks": 0}
    for _ in range(200):
        positive = random.random(1200) < 0.4
        favour = (positive - 0.4) * random.normal(size=60)[blocks]
        signal = positive + random.normal(size=1200)
        for name, given in (("rows", None), ("blocks", blocks)):
            if kind == "auc":
                found = compare_auc(signal + favour, signal - favour, positive, 0.0, given)
            else:
                found = loss_comparison("loss", signal + random.normal(size=60)[blocks], signal, 0.0, given)
            worse[name] += found.is_worse
    assert worse["rows"] > 20
    assert worse["blocks"] <= 12  # expected 5; P(> 12) is 0.002


def test_blocks_of_one_row_change_nothing() -> None:
    random = np.random.default_rng(13)
    positive = random.random(300) < 0.4
    one, other = random.random(300), random.random(300)
    assert compare_auc(one, other, positive, 0, np.arange(300)).high == pytest.approx(compare_auc(one, other, positive, 0).high, rel=0.01)
    assert loss_comparison("loss", one, other, 0, np.arange(300)).high == pytest.approx(loss_comparison("loss", one, other, 0).high, rel=0.01)


def test_slices_together_raise_a_false_alarm_in_one_run_of_twenty() -> None:
    random = np.random.default_rng(5)
    groups = [("shop", number, np.arange(4000) % 20 == number) for number in range(20)]
    alarms = 0
    for _ in range(200):
        base = random.random(4000)
        losses, reference = base + random.normal(size=4000), base + random.normal(size=4000)
        alarms += any(item.is_worse for item in judge("loss", losses, reference, groups, 0.0))
    assert alarms <= 20  # expected at most 10; P(> 20) is 0.0009


def test_the_one_slice_that_is_worse_is_found_among_many() -> None:
    random = np.random.default_rng(6)
    groups = [("shop", number, np.arange(8000) % 20 == number) for number in range(20)]
    reference = random.random(8000)
    losses = reference + random.normal(size=8000) / 10 + 0.15 * (np.arange(8000) % 20 == 13)
    found = judge("loss", losses, reference, groups, 0.05)
    assert [item.value for item in found if item.is_worse] == [13]
    assert found[0].value == 13
    assert found[0].p < LEVEL


def test_holm_is_monotone_and_bounded() -> None:
    p = [0.9, 0.001, 0.02, 0.02, 0.5]
    found = holm(p)
    assert found[1] == pytest.approx(0.005)
    assert [found[index] for index in np.argsort(p)] == sorted(found)
    assert max(found) <= 1
    assert holm([]) == []


@pytest.mark.parametrize(("output", "classes", "answers", "labels", "metric", "losses"), [
    ("label", ("a", "b"), ["a", "b", "b"], np.array(["a", "a", "b"], dtype=object), "error rate", [0, 1, 0]),
    ("value", (), np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 4.5]), "squared error", [0, 4, 0.25]),
    ("probability", (0, 1), np.array([0.1, 0.8, 0.5]), np.array([0, 1, 1]), "brier", [0.01, 0.04, 0.25]),
    ("probability", (0, 1, 2), np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), np.array([0, 2]), "logloss", [math.log(2), math.log(4)]),
])  # fmt: skip
def test_each_kind_of_answer_has_its_loss(output, classes, answers, labels, metric, losses) -> None:  # type: ignore[no-untyped-def]
    found = row_losses(Signature((Column("x", "float"),), output, classes), answers, labels)
    assert found is not None
    assert found[0] == metric
    assert found[1] == pytest.approx(np.array(losses, dtype=float))


def test_few_rows_or_one_class_are_not_compared() -> None:
    answers = np.linspace(0, 1, 50)
    assert compare(TWO, answers[:20], TWO, answers[:20], np.arange(20) % 2, 0.01) is None
    assert compare(TWO, answers, TWO, answers, np.zeros(50, dtype=int), 0.01) is None
    assert compare(TWO, answers, Signature((), "value"), answers, np.arange(50) % 2, 0.01) is None


def test_the_margin_of_a_loss_is_a_share_of_the_references() -> None:
    losses = np.full(100, 2.0)
    found = loss_comparison("loss", losses * 1.04, losses, 0.05)
    assert (found.gain, found.margin, found.is_worse) == (pytest.approx(-0.08), pytest.approx(0.1), False)
    assert loss_comparison("loss", losses * 1.06, losses, 0.05).is_worse


def test_the_baseline_is_the_regression_that_a_library_fits() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(1)
    matrix = random.normal(size=(500, 4)) * [1, 10, 100, 0.1] + [0, 5, -3, 1]
    target = (random.random(500) < 1 / (1 + np.exp(-matrix[:, 0]))).astype(float)
    scaled = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    theirs = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(scaled, target).predict_proba(scaled)[:, 1]
    assert Linear(matrix, target, [], logistic=True).predict(matrix) == pytest.approx(theirs, abs=1e-5)
    values = matrix @ [1, 0.2, 0.03, 4]
    assert Linear(matrix, values, [], logistic=False).predict(matrix) == pytest.approx(values, rel=0.05, abs=0.1)


def test_the_baseline_takes_nulls_constants_and_texts() -> None:
    matrix = np.array([[np.nan, 7.0, float(row % 3)] for row in range(300)])
    matrix[::7, 2] = np.nan
    target = (matrix[:, 2] == 1).astype(float)
    found = Linear(matrix, target, [2], logistic=True).predict(matrix)
    assert np.isfinite(found).all()
    assert found[target == 1].min() > 0.8
    assert found[target == 0].max() < 0.2


def test_chance_explains_the_error_of_a_calibrated_model() -> None:
    random = np.random.default_rng(2)
    answers = random.random(5000)
    error, noise = excess(calibration(answers, random.random(5000) < answers))
    assert abs(error - noise) < 0.01
    error, noise = excess(calibration(answers, random.random(5000) < answers**2))
    assert error - noise == pytest.approx(1 / 6, abs=0.02)


def test_the_interval_of_a_median_covers_it() -> None:
    random = np.random.default_rng(4)
    covered = sum(low <= 1 <= high for _, low, high in (median_interval(np.exp(3 * random.normal(size=300))) for _ in range(300)))
    assert 270 <= covered <= 300


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(3, 1) == pytest.approx(5 / 16)
    assert sign_test(700, 800) > 0.99
    assert sign_test(1500, 0) == pytest.approx(2.0**-1500, abs=1e-300)
    random = np.random.default_rng(8)
    assert np.mean([sign_test(hits, 40 - hits) < 0.05 for hits in random.binomial(40, 0.5, 2000)]) <= 0.06


@pytest.mark.parametrize(("held", "grown"), [
    ([50, 60, 60, 60, 60, 60, 60], None), ([50, 60, 62, 61, 60, 62, 61], None), ([50, 60, 62, 64, 66, 68, 70], 10), ([50, 60, 60, 63, 66, 69, 72], 12),
    ([50, 60, 60, 60, 75, 75, 75], None),
])  # fmt: skip
def test_a_leak_grows_steadily(held: list[int], grown: int | None) -> None:
    found = growth([value << 20 for value in held])
    assert found == (None if grown is None else grown << 20)
