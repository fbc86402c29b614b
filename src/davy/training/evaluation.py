"""How good the answers are: metrics of classifiers and regressors, in numpy, and an interval for the area under the curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from davy.registry.signature import Output
    from davy.serving.logged import Matrix

SMALLEST = 1e-15
NORMAL_95 = 1.959963984540054


def positives(labels: NDArray[Any], classes: Sequence[Any]) -> NDArray[np.bool_] | None:
    """Which labels are of the positive class, or None when this is not a question of two classes."""
    if len(classes) == 2:
        return np.asarray(labels == classes[1])
    if not classes and labels.dtype.kind in "biuf" and np.isin(labels, (0, 1)).all():
        return np.asarray(labels == 1)
    return None


def scores(output: Output, classes: Sequence[Any], found: Matrix | list[Any], labels: NDArray[Any]) -> dict[str, float]:
    """The metrics of these answers.

    Two classes: auc (where both occur), logloss and brier. More classes: logloss and accuracy. Labels: accuracy.
    Values: rmse and mae. Without rows: nothing.
    """
    if not len(labels):
        return {}
    if output == "label":
        return {"accuracy": float(np.mean([answer == label for answer, label in zip(found, labels.tolist(), strict=True)]))}
    answers = np.asarray(found, dtype=np.float64)
    positive = positives(labels, classes)
    if answers.ndim == 2:
        return _many_classes(answers, classes, labels)
    if positive is not None:
        return _two_classes(answers, positive)
    if labels.dtype.kind not in "biuf":
        return {}
    error = answers - labels
    return {"rmse": math.sqrt(float(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}


def _two_classes(answers: Matrix, positive: NDArray[np.bool_]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if positive.any() and not positive.all():
        metrics["auc"] = auc(answers, positive)
    if answers.min() >= 0 and answers.max() <= 1:
        likely = np.clip(np.where(positive, answers, 1 - answers), SMALLEST, 1)
        metrics["logloss"] = float(-np.mean(np.log(likely)))
        metrics["brier"] = float(np.mean((answers - positive) ** 2))
    return metrics


def _many_classes(answers: Matrix, classes: Sequence[Any], labels: NDArray[Any]) -> dict[str, float]:
    places = {label: place for place, label in enumerate(classes or range(answers.shape[1]))}
    known = np.array([places.get(label, -1) for label in labels.tolist()])
    likely = np.where(known >= 0, answers[np.arange(len(known)), known], 0.0)
    return {"logloss": float(-np.mean(np.log(np.clip(likely, SMALLEST, 1)))), "accuracy": float(np.mean(answers.argmax(axis=1) == known))}


def mid_ranks(values: Matrix) -> Matrix:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray(((ends - counts + 1 + ends) / 2)[inverse], dtype=np.float64)


def auc(answers: Matrix, positive: NDArray[np.bool_]) -> float:
    """The probability that a positive is ranked above a negative, ties counting half.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    count = int(positive.sum())
    return float((mid_ranks(answers)[positive].sum() - count * (count + 1) / 2) / (count * (len(answers) - count)))


def auc_interval(answers: Matrix, positive: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The 95 % interval of the AUC by DeLong's variance on the logit scale; None with fewer than two of a class, or an AUC of 0 or 1.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Sun and Xu, IEEE Signal Processing Letters 21 (2014).
    """
    ups, downs = answers[positive], answers[~positive]
    if len(ups) < 2 or len(downs) < 2:
        return None
    ranks = mid_ranks(answers)
    above = (ranks[positive] - mid_ranks(ups)) / len(downs)
    below = 1 - (ranks[~positive] - mid_ranks(downs)) / len(ups)
    centre = float(above.mean())
    if not 0 < centre < 1:
        return None
    deviation = math.sqrt(float(above.var(ddof=1)) / len(ups) + float(below.var(ddof=1)) / len(downs))
    middle, reach = math.log(centre / (1 - centre)), NORMAL_95 * deviation / (centre * (1 - centre))
    return 1 / (1 + math.exp(reach - middle)), 1 / (1 + math.exp(-reach - middle))


def roc_curve(answers: Matrix, positive: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-answers, kind="stable")
    last = np.append(np.flatnonzero(np.diff(answers[order])), len(answers) - 1)
    hits = np.cumsum(positive[order])[last]
    misses = last + 1 - hits
    return np.append(0.0, misses / max(misses[-1], 1)), np.append(0.0, hits / max(hits[-1], 1))


def calibration(answers: Matrix, positive: NDArray[np.bool_], bins: int = 10) -> list[tuple[float, float, float, float, int]]:
    """Bins of equally many answers: (mean answer, share of positives, its 95 % Wilson interval's ends, count)."""
    found = []
    for part in np.array_split(np.argsort(answers, kind="stable"), min(bins, len(answers))):
        count, share = len(part), float(positive[part].mean())
        square = NORMAL_95**2
        centre = (share + square / (2 * count)) / (1 + square / count)
        reach = NORMAL_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
        found.append((float(answers[part].mean()), share, min(max(centre - reach, 0.0), share), max(min(centre + reach, 1.0), share), count))
    return found


def importance(model: Any, columns: Sequence[str]) -> dict[str, float] | None:
    """What the model itself says of its columns: gain (LightGBM), importances or coefficients (scikit-learn), the largest first."""
    steps = getattr(model, "steps", None)
    inner = steps[-1][1] if isinstance(steps, list) and steps else model
    booster = getattr(inner, "booster_", inner)
    if callable(getattr(booster, "feature_importance", None)):
        values = booster.feature_importance(importance_type="gain")
    else:
        values = getattr(inner, "feature_importances_", None)
        values = getattr(inner, "coef_", None) if values is None else values
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    array = array[0] if array.ndim == 2 and array.shape[0] == 1 else array
    if array.shape != (len(columns),):
        return None
    order = np.argsort(-np.abs(array), kind="stable")
    return {columns[index]: float(array[index]) for index in order}
