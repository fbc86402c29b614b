"""Two sets of answers to the same rows, compared with an interval that knows that the rows are the same.

For two classes the area under the curve is compared by DeLong's method for correlated curves (DeLong, DeLong and Clarke-Pearson,
Biometrics 44, 1988; the mid-rank form of Sun and Xu, IEEE Signal Processing Letters 21, 2014). For everything that is a mean over
rows (Brier score, squared error, log loss, error rate) the difference of each row's loss is taken, and its mean has the normal interval
of the central limit theorem. Rows of one block (an hour, say) may hang together: both variances are then those of sums over blocks
(Obuchowski, Biometrics 53, 1997; Liang and Zeger, Biometrika 73, 1986), and never less than those of single rows. Several slices
are judged together by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979), which keeps the chance of a single false
alarm among all of them at the level of one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from davy.training.evaluation import NORMAL_95, SMALLEST, auc, mid_ranks, positives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from davy.registry.signature import Signature

    Floats = NDArray[np.float64]

FEWEST_OF_A_CLASS = 10
FEWEST_ROWS = 30
LEVEL = 0.05
DELONG, MEANS = "DeLong for paired curves", "normal interval of the paired difference"
FEWEST_BLOCKS = 30


class Comparison(msgspec.Struct, frozen=True):
    """One metric of two versions on the same rows.

    Attributes:
        candidate, reference: the metric of each.
        gain: how much better the candidate is, in the metric's own unit; positive is better whichever way the metric points.
        low, high: the 95 % interval of the gain.
        p_worse: one-sided p-value of "it is not worse".
        margin: how much worse is still as good.
    """

    metric: str
    rows: int
    candidate: float
    reference: float
    gain: float
    low: float
    high: float
    p_worse: float
    margin: float
    method: str

    @property
    def is_worse(self) -> bool:
        """Worse beyond chance, and by more than the margin."""
        return self.high < 0 and self.gain < -self.margin

    @property
    def is_as_good(self) -> bool:
        """Shown to be not worse than by the margin."""
        return self.low >= -self.margin

    def evidence(self) -> dict[str, Any]:
        """For the report."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


def compare(signature: Signature, candidate: Any, other: Signature, reference: Any, y: NDArray[Any], margin: float,
            blocks: NDArray[np.int64] | None = None) -> Comparison | None:
    """The metric that fits this output: AUC for two classes (its margin is absolute), else the mean loss (its margin is a share of the reference's).

    Args:
        blocks: for each row which rows it may hang together with; None: every row stands for itself.

    None when there are too few rows of a class, or nothing to compare in kind.
    """
    if signature.output != other.output or len(y) < FEWEST_ROWS:
        return None
    positive = positives(y, signature.classes) if signature.output != "label" else None
    if positive is not None and _is_flat(candidate) and _is_flat(reference):
        if min(int(positive.sum()), int((~positive).sum())) < FEWEST_OF_A_CLASS:
            return None
        return compare_auc(np.asarray(candidate, dtype=np.float64), np.asarray(reference, dtype=np.float64), positive, margin, blocks)
    ours, theirs = row_losses(signature, candidate, y), row_losses(other, reference, y)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    return loss_comparison(ours[0], ours[1], theirs[1], margin, blocks)


def compare_auc(candidate: Floats, reference: Floats, positive: NDArray[np.bool_], margin: float,
                blocks: NDArray[np.int64] | None = None) -> Comparison:
    """DeLong's interval for the difference of two correlated areas under the curve."""
    (above, below), (its_above, its_below) = (_placements(answers, positive) for answers in (candidate, reference))
    up, down = above - its_above, below - its_below
    gain = float(up.mean())
    variance = float(up.var(ddof=1)) / len(up) + float(down.var(ddof=1)) / len(down)
    components = np.zeros(len(positive))
    components[positive], components[~positive] = (up - gain) / len(up), (down - gain) / len(down)
    variance, method = _by_blocks(variance, components, blocks, DELONG)
    return _comparison("auc", len(positive), auc(candidate, positive), auc(reference, positive), gain, math.sqrt(variance), margin, method)


def loss_comparison(metric: str, mine: Floats, its: Floats, margin: float, blocks: NDArray[np.int64] | None = None) -> Comparison:
    """The interval of the mean difference of the rows' losses; the margin is a share of the reference's loss."""
    difference = its - mine
    variance = float(difference.var(ddof=1)) / len(difference) if len(difference) > 1 else math.inf
    variance, method = _by_blocks(variance, (difference - difference.mean()) / len(difference), blocks, MEANS)
    base = float(its.mean())
    return _comparison(metric, len(mine), float(mine.mean()), base, float(difference.mean()), math.sqrt(variance), margin * base, method)


def row_losses(signature: Signature, answers: Any, y: NDArray[Any]) -> tuple[str, Floats] | None:
    """The name of the loss that fits this output, and each row's."""
    if signature.output == "label":
        return "error rate", np.array([float(answer != label) for answer, label in zip(list(answers), y.tolist(), strict=True)])
    found = np.asarray(answers, dtype=np.float64)
    if found.ndim == 2:
        places = {label: place for place, label in enumerate(signature.classes or range(found.shape[1]))}
        known = np.array([places.get(label, -1) for label in y.tolist()])
        likely = np.where(known >= 0, found[np.arange(len(known)), known], 0.0)
        return "logloss", -np.log(np.clip(likely, SMALLEST, 1))
    positive = positives(y, signature.classes)
    if positive is not None and len(found) and 0 <= found.min() <= found.max() <= 1:
        return "brier", np.asarray((found - positive) ** 2)
    return ("squared error", np.asarray((found - y) ** 2)) if y.dtype.kind in "biuf" else None


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being many, by Holm's step-down method, in the order in which they came.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _placements(answers: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, for each negative the share of positives above it; ties count half."""
    ups, downs = answers[positive], answers[~positive]
    ranks = mid_ranks(answers)
    return (ranks[positive] - mid_ranks(ups)) / len(downs), 1 - (ranks[~positive] - mid_ranks(downs)) / len(ups)


def _by_blocks(variance: float, components: Floats, blocks: NDArray[np.int64] | None, method: str) -> tuple[float, str]:
    """The variance of the sum of centred components when only blocks are independent of each other, if it is the larger one; and how it was found."""
    if blocks is None:
        return variance, method
    _, places = np.unique(blocks, return_inverse=True)
    sums = np.bincount(places, weights=components)
    if len(sums) < FEWEST_BLOCKS:
        return variance, method
    return max(variance, float((sums**2).sum()) * len(sums) / (len(sums) - 1)), f"{method}, rows of {len(sums):,} hours taken together"


def _comparison(metric: str, count: int, ours: float, theirs: float, gain: float, error: float, margin: float, method: str) -> Comparison:
    p = 0.5 * math.erfc(-gain / (error * math.sqrt(2))) if error > 0 else float(gain >= 0)
    reach = NORMAL_95 * error
    return Comparison(metric, count, ours, theirs, gain, gain - reach, gain + reach, p, margin, method)


def _is_flat(answers: Any) -> bool:
    return isinstance(answers, np.ndarray) and answers.ndim == 1
