"""A simpler model must not do as well: logistic or linear regression on the same rows, fitted here without any library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from davy.gate.check import Check, Finding, failed, no_data, passed
from davy.gate.paired import compare
from davy.gate.rows import encoded
from davy.training.evaluation import positives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from davy.gate.candidate import Candidate
    from davy.registry.signature import Signature

MOST_ROWS = 50_000
MOST_CATEGORIES = 30
RIDGE = 1.0
_STEPS, _CLOSE = 25, 1e-6


class Linear:
    """Columns scaled by their training rows, null as the average, texts one-hot, and a ridge of 1 on standardised weights.

    Args:
        matrix: as a version is asked with it, shape (rows, columns). target: shape (rows,).
        categorical: the columns that hold codes of texts.
    """

    def __init__(self, matrix: np.ndarray, target: NDArray[np.float64], categorical: list[int], *, logistic: bool) -> None:
        self._logistic = logistic
        self._numbers = [index for index in range(matrix.shape[1]) if index not in categorical]
        self._codes = [(index, *_largest(matrix[:, index])) for index in categorical]
        plain = matrix[:, self._numbers]
        known = np.isfinite(plain)
        count = np.maximum(known.sum(axis=0), 1)
        self._centre = np.where(known, plain, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, plain - self._centre, 0) ** 2).sum(axis=0) / count)
        self._scale = np.where(spread > 0, spread, 1.0)
        self._weights = self._fit(self._design(matrix), target)

    def predict(self, matrix: np.ndarray) -> NDArray[np.float64]:
        """Probabilities, or values."""
        found = self._design(matrix) @ self._weights
        return _sigmoid(found) if self._logistic else np.asarray(found)

    def _design(self, matrix: np.ndarray) -> NDArray[np.float64]:
        scaled = (matrix[:, self._numbers] - self._centre) / self._scale
        scaled[~np.isfinite(scaled)] = 0.0
        hot = [(matrix[:, index, None] == codes).astype(np.float64) for index, codes in self._codes]
        return np.concatenate([np.ones((len(matrix), 1)), scaled, *hot], axis=1)

    def _fit(self, design: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least squares, or for probabilities Newton's steps (iteratively reweighted least squares)."""
        ridge = np.full(design.shape[1], RIDGE)
        ridge[0] = 1e-6
        weights = np.zeros(design.shape[1])
        for _ in range(_STEPS if self._logistic else 1):
            likely = _sigmoid(design @ weights) if self._logistic else design @ weights
            curve = np.maximum(likely * (1 - likely), 1e-9) if self._logistic else np.ones(len(design))
            gradient = design.T @ (target - likely) - ridge * weights
            step = np.linalg.solve((design * curve[:, None]).T @ design + np.diag(ridge), gradient)
            weights = weights + step
            if np.abs(step).max() < _CLOSE:
                break
        return np.asarray(weights)


def _largest(column: np.ndarray) -> tuple[np.ndarray]:
    values, counts = np.unique(column[np.isfinite(column)], return_counts=True)
    return (values[np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]],)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -40, 40))))


def baseline(candidate: Candidate) -> Finding:
    held, learned, signature = candidate.held_out, candidate.training_rows, candidate.signature
    picked = np.linspace(0, len(learned) - 1, min(len(learned), MOST_ROWS)).astype(int)
    matrix = encoded(candidate.version, learned.features(candidate.version)[picked.tolist()])
    answers, what = _simple_answers(signature, matrix, learned.y[picked], held.matrix(candidate.version))
    found = compare(signature, held.predict(candidate.version), signature, answers, held.y, candidate.settings.margin, held.blocks)
    if found is None:
        return no_data("Too few rows were held out, or the answers are of another kind.")
    evidence = {"baseline": what, "fitted_on": len(picked), **found.evidence()}
    words = (f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of {what}: a gain of {found.gain:+.4f}, "
             f"95 % [{found.low:+.4f}, {found.high:+.4f}]")
    if found.is_worse:
        return failed(f"{words}.", fix="The simple model does better: find out why, or serve that.", **evidence)
    return passed(f"{words}.", **evidence)


def _simple_answers(signature: Signature, matrix: np.ndarray, y: np.ndarray, asked: np.ndarray) -> tuple[Any, str]:
    """The baseline's answers, and its name."""
    if signature.output == "label":
        values, counts = np.unique(y, return_counts=True)
        return [values.tolist()[int(counts.argmax())]] * len(asked), "the commonest label"
    if signature.output == "probability" and len(signature.classes) > 2:
        shares = np.array([float(np.mean(y == label)) for label in signature.classes])
        return np.tile(shares, (len(asked), 1)), "the classes' shares"
    positive = positives(y, signature.classes)
    target = np.asarray(y if positive is None else positive, dtype=np.float64)
    model = Linear(matrix, target, signature.categorical, logistic=positive is not None)
    return model.predict(asked), "logistic regression" if positive is not None else "linear regression"


CHECKS = (Check("baseline", "A simple model on the same rows does not do better", baseline),)
