"""Whether a probability of 30 % comes true three times in ten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from davy.errors import NotEnoughData
from davy.gate.check import Check, Finding, failed, no_data, passed
from davy.training.evaluation import calibration as bins_of
from davy.training.evaluation import positives

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate
    from davy.registry.models import ModelVersion

FEWEST = 200
_MEAN_OF_HALF_NORMAL = math.sqrt(2 / math.pi)


def excess(bins: list[tuple[float, float, float, float, int]]) -> tuple[float, float]:
    """(expected calibration error, what chance alone would give it): means over rows of |answer - share that came true| in bins."""
    rows = sum(count for *_, count in bins)
    error = sum(abs(answer - share) * count for answer, share, _, _, count in bins) / rows
    noise = sum(_MEAN_OF_HALF_NORMAL * math.sqrt(max(answer * (1 - answer), 0) / count) * count for answer, *_, count in bins) / rows
    return error, noise


def calibration(candidate: Candidate) -> Finding:
    """Expected calibration error over ten bins of equally many rows, less what chance alone gives to a perfect model.

    When more, or less, came true on the held-out rows than on those learned from, no model could have known: that much is allowed on top.
    """
    mine = _measured(candidate, candidate.version)
    if mine is None:
        return no_data("Calibration is judged where probabilities of two classes meet known outcomes.")
    error, noise, evidence = mine
    limit = candidate.settings.calibration
    if evidence["rows"] < FEWEST or noise > limit:
        return no_data(f"{evidence['rows']:,} held-out rows are too few to see an error of {limit:.0%}.", **evidence)
    moved = _moved(candidate)
    evidence["outcomes_moved"] = moved
    words = f"Probabilities are off by {max(error - noise, 0):.1%} on average beyond chance ({error:.1%} over ten bins)"
    if error - noise <= limit:
        return passed(f"{words}; the limit is {limit:.0%}.", **evidence)
    if moved is not None and error - noise <= limit + moved:
        return passed(f"{words}; the limit is {limit:.0%}, and outcomes themselves have moved by {moved:.1%} since training.", **evidence)
    theirs = _measured(candidate, candidate.stable) if candidate.stable is not None else None
    if theirs is not None and error <= theirs[0]:
        assert candidate.stable is not None
        return passed(f"{words}, beyond the limit of {limit:.0%}, and not more than those of {candidate.stable.reference} ({theirs[0]:.1%}).", **evidence,
                      stable=theirs[2])
    return failed(f"{words}; the limit is {limit:.0%}.",
                  fix="Calibrate it on rows that it has not learned from (CalibratedClassifierCV), or train on newer ones.", **evidence)


def _moved(candidate: Candidate) -> float | None:
    """By how much the share that came true differs between the held-out rows and those learned from; None when the latter are not known."""
    try:
        learned = positives(candidate.training_rows.y, candidate.signature.classes)
    except NotEnoughData:
        return None
    held = positives(candidate.held_out.y, candidate.signature.classes)
    return None if learned is None or held is None else abs(float(held.mean()) - float(learned.mean()))


def _measured(candidate: Candidate, version: ModelVersion) -> tuple[float, float, dict[str, Any]] | None:
    rows = candidate.held_out
    assert version.signature is not None
    answers, positive = rows.predict(version), positives(rows.y, version.signature.classes)
    if version.signature.output == "label" or positive is None or not isinstance(answers, np.ndarray) or answers.ndim != 1:
        return None
    if not len(answers) or answers.min() < 0 or answers.max() > 1:
        return None
    bins = bins_of(answers, positive)
    error, noise = excess(bins)
    shown = [{"answered": answer, "came_true": share, "low": low, "high": high, "rows": count} for answer, share, low, high, count in bins]
    return error, noise, {"rows": len(answers), "error": error, "by_chance": noise, "limit": candidate.settings.calibration, "bins": shown}


CHECKS = (Check("calibration", "Its probabilities come true as often as they say", calibration),)
