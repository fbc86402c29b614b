"""An answer depends on its row alone: not on the rows that a worker happens to batch it with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from davy.errors import DavyError
from davy.gate.check import Check, Finding, failed, passed

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate

TOLERANCE = 1e-9


def batches(candidate: Candidate) -> Finding:
    """A hundred rows in one request, in reverse order, and one at a time; 1e-9 is left to the order of a library's additions."""
    version, matrix = candidate.version.version, candidate.sample
    if len(matrix) == 1:
        matrix = np.concatenate([matrix, matrix if matrix.dtype == object else np.zeros_like(matrix)])  # zeros are no texts
    together = list(candidate.stand.predict(version, matrix, batch=len(matrix)))
    backwards = list(candidate.stand.predict(version, matrix[::-1], batch=len(matrix)))[::-1]
    alone = candidate.stand.predict_each(version, matrix)
    refused = [(row, answer) for row, answer in enumerate(alone) if isinstance(answer, DavyError)]
    if refused:
        row, error = refused[0]
        return failed(f"{len(refused)} of {len(matrix)} rows are answered in a batch and not alone: {error.came}", row=row, error=str(error))
    largest, where = 0.0, None
    for row, answers in enumerate(zip(together, backwards, alone, strict=True)):
        difference = max(_difference(answers[0], answers[2]), _difference(answers[1], answers[2]))
        if difference > largest or (difference != difference and where is None):
            largest, where = difference, row
    evidence: dict[str, Any] = {"rows": len(matrix), "largest_difference": largest, "tolerance": TOLERANCE}
    if where is not None and not largest <= TOLERANCE:
        answered = {"alone": alone[where], "in_a_batch": together[where], "in_a_batch_backwards": backwards[where]}
        beside = together[where] if _difference(together[where], alone[where]) > TOLERANCE else backwards[where]
        return failed(f"Row {where} is answered with {_shown(alone[where])} alone and with {_shown(beside)} among {len(matrix)} rows.",
                      fix="Its predict must treat each row by itself: no means, ranks or order over the batch.", row=where, **answered, **evidence)
    within = f" (within {largest:.1g})" if largest else ""
    return passed(f"{len(matrix)} rows are answered the same alone, together and in reverse order{within}.", **evidence)


def _difference(left: Any, right: Any) -> float:
    """The largest difference of two answers, relative to their size beyond 1; infinite for labels that differ."""
    if isinstance(left, (str, bool)) or isinstance(right, (str, bool)) or left is None or right is None:
        return 0.0 if left == right else float("inf")
    one, other = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if one.shape != other.shape:
        return float("inf")
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other) / np.maximum(1.0, np.maximum(np.abs(one), np.abs(other))))
    return float(np.max(np.nan_to_num(apart, nan=np.inf)))


def _shown(answer: Any) -> str:
    return f"{answer:.9g}" if isinstance(answer, float) else str(answer)


CHECKS = (Check("batches", "A row is answered the same alone and in a batch", batches),)
