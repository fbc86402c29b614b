"""How good the answers were, over cohorts whose outcomes have had their time, and what they were worth.

A cohort is what a version answered in one hour. It is mature when the last of its outcomes is due; until then its labels are not a
fair sample (what comes first is seldom like the rest), so that younger ones are only counted. Cohorts add up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.monitoring.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from davy.features.kpi import Kpi
    from davy.registry.signature import Signature

HOUR = 3_600_000_000
SCORE_BINS = 1000
SMALLEST = 1e-15


class KpiSum(msgspec.Struct):
    """A KPI over some predictions: how many, their sum and sum of squares, the bad ones, and those for which its function failed."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    bad: int = 0
    failed: int = 0

    def __add__(self, other: KpiSum) -> KpiSum:
        return KpiSum(self.count + other.count, self.total + other.total, self.squares + other.squares, self.bad + other.bad, self.failed + other.failed)

    @property
    def mean(self) -> float | None:
        """Per prediction."""
        return self.total / self.count if self.count else None

    @property
    def error(self) -> float | None:
        """The standard error of the mean."""
        if self.count < 2 or self.mean is None:
            return None
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0) / (self.count - 1))


class Cohort(msgspec.Struct, eq=False):
    """What a version answered in some time, and what is known of it.

    Attributes:
        predictions, labelled: how many were answered; of how many it is known what turned out.
        corrected, before: labels that changed later; labels that are older than the prediction.
        lag: microseconds from a prediction until its outcome arrived.
        positives, correct: of two classes, or of labels.
        ups, downs: counts of answers per thousandth, of positives and of negatives.
        losses, errors, absolute: sums of log losses; of (answer - outcome), and of its size.
    """

    predictions: int = 0
    labelled: int = 0
    corrected: int = 0
    before: int = 0
    lag: Quantiles = msgspec.field(default_factory=Quantiles)
    positives: int = 0
    correct: int = 0
    judged: int = 0
    ups: np.ndarray = msgspec.field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    downs: np.ndarray = msgspec.field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    losses: float = 0.0
    errors: float = 0.0
    absolute: float = 0.0
    kind: str = ""
    kpis: dict[str, KpiSum] = msgspec.field(default_factory=dict)

    def __add__(self, other: Cohort) -> Cohort:
        kpis = dict(self.kpis)
        for name, value in other.kpis.items():
            kpis[name] = kpis[name] + value if name in kpis else value
        return Cohort(self.predictions + other.predictions, self.labelled + other.labelled, self.corrected + other.corrected, self.before + other.before,
                      self.lag + other.lag, self.positives + other.positives, self.correct + other.correct, self.judged + other.judged,
                      _grown(self.ups, other.ups), _grown(self.downs, other.downs), self.losses + other.losses, self.errors + other.errors,
                      self.absolute + other.absolute, self.kind or other.kind, kpis)

    @property
    def coverage(self) -> float | None:
        """The share of answers whose outcome is known."""
        return self.labelled / self.predictions if self.predictions else None

    def metrics(self) -> dict[str, float]:
        """Of two classes: auc, logloss, accuracy (at one half), positive_rate and mean_prediction. Of labels: accuracy. Of numbers: mae and bias."""
        if not self.judged:
            return {}
        if self.kind == "value":
            return {"mae": self.absolute / self.judged, "bias": self.errors / self.judged}
        if self.kind == "label":
            return {"accuracy": self.correct / self.judged}
        found = {"logloss": self.losses / self.judged, "accuracy": self.correct / self.judged, "positive_rate": self.positives / self.judged,
                 "mean_prediction": (self.errors + self.positives) / self.judged}
        area = histogram_auc(self.ups, self.downs)
        return found if area is None else {"auc": area, **found}


def histogram_auc(ups: NDArray[np.int64], downs: NDArray[np.int64]) -> float | None:
    """The probability that a positive is ranked above a negative, from counts per bin; those of one bin count half.

    >>> histogram_auc(np.array([0, 1, 3]), np.array([2, 1, 1]))
    0.8125
    """
    pairs = int(ups.sum()) * int(downs.sum())
    if not pairs:
        return None
    below = np.cumsum(downs) - downs
    return float((ups * (below + downs / 2)).sum()) / pairs


def cohorts(frame: pl.DataFrame, *, label: Any, signatures: Mapping[int, Signature | None], kpis: Sequence[Kpi] = ()) -> dict[tuple[int, str, int], Cohort]:
    """Per version, arm and hour what was answered and is known.

    Args:
        frame: as `labelled` gives it.
        label: the model's own function from an outcome's value to the label, or None.
        signatures: per version what its output means.
    """
    if not frame.height:
        return {}
    answered = frame.filter(pl.col("status").is_in(["ok", "fallback"]) & ~pl.col("pinned"))
    sliced = answered.with_columns((pl.col("time") // HOUR * HOUR).alias("_hour"))
    found = {}
    for (version, arm, hour), part in sliced.partition_by("version", "arm", "_hour", as_dict=True).items():
        found[int(version), str(arm), int(hour)] = cohort_of(part, label=label, signature=signatures.get(int(version)), kpis=kpis)
    return found


def cohort_of(part: pl.DataFrame, *, label: Any, signature: Signature | None, kpis: Sequence[Kpi] = ()) -> Cohort:
    """The cohort of these answers of one version."""
    known = part.filter(pl.col("value").is_not_null())
    made = Cohort(part.height, known.height, known.filter(pl.col("values") > 1).height, known.filter(pl.col("known") < pl.col("time")).height,
                  Quantiles.of((known["arrived"] - known["time"]).to_numpy()) if known.height else Quantiles())
    if not known.height:
        return made
    outputs = outputs_of(known)
    _judge(made, outputs, known["value"].to_list(), label, signature)
    made.kpis = {kpi.name: _summed(kpi, outputs, known["value"].to_list()) for kpi in kpis}
    return made


def outputs_of(frame: pl.DataFrame) -> list[Any]:
    """The answers: numbers as they are, others from their JSON."""
    return [number if number is not None else None if text is None else msgspec.json.decode(text)
            for number, text in frame.select("output", "output_json").iter_rows()]


def _judge(made: Cohort, outputs: list[Any], values: list[Any], label: Any, signature: Signature | None) -> None:
    function = label if label is not None else lambda value: value
    cache: dict[Any, Any] = {}
    labels = []
    for value in values:
        if value not in cache:
            try:
                cache[value] = function(value)
            except Exception:  # noqa: BLE001 - the user's function: a value that it can't label has no label
                cache[value] = None
        labels.append(cache[value])
    pairs = [(output, found) for output, found in zip(outputs, labels, strict=True) if output is not None and found is not None]
    made.judged = len(pairs)
    kind = signature.output if signature is not None else "value"
    classes = signature.classes if signature is not None else ()
    if (kind == "probability" and all(isinstance(output, (int, float)) for output, _ in pairs)) or (kind == "value" and _are_chances(pairs)):
        _two_classes(made, np.array([float(output) for output, _ in pairs]), np.array([_is_positive(found, classes) for _, found in pairs]))
    elif kind == "value" and all(isinstance(found, (int, float)) for _, found in pairs):
        off = np.array([float(output) - float(found) for output, found in pairs])
        made.kind, made.errors, made.absolute = "value", float(off.sum()), float(np.abs(off).sum())
    else:
        made.kind = "label"
        made.correct = sum(_chosen(output, classes) == found for output, found in pairs)


def _are_chances(pairs: list[tuple[Any, Any]]) -> bool:
    """Whether these are chances of something that is true or false, from a model that does not say so itself."""
    return all(isinstance(found, bool) and isinstance(output, (int, float)) and 0 <= output <= 1 for output, found in pairs)


def _two_classes(made: Cohort, answers: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
    places = np.clip((answers * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
    made.kind, made.positives = "probability", int(positive.sum())
    made.ups = np.bincount(places[positive], minlength=SCORE_BINS).astype(np.int64)
    made.downs = np.bincount(places[~positive], minlength=SCORE_BINS).astype(np.int64)
    made.correct = int(((answers >= 0.5) == positive).sum())
    made.losses = float(-np.log(np.clip(np.where(positive, answers, 1 - answers), SMALLEST, 1)).sum())
    made.errors = float((answers - positive).sum())


def _is_positive(found: Any, classes: Sequence[Any]) -> bool:
    return bool(found == classes[1]) if len(classes) == 2 else bool(found)


def _chosen(output: Any, classes: Sequence[Any]) -> Any:
    """The label that an answer stands for: itself, or the likeliest class."""
    if isinstance(output, list):
        place = int(np.argmax(output))
        return classes[place] if place < len(classes) else place
    return output


def _summed(kpi: Kpi, outputs: list[Any], values: list[Any]) -> KpiSum:
    found = KpiSum()
    for output, value in zip(outputs, values, strict=True):
        number = kpi_value(kpi, output, value)
        if number is None:
            found.failed += 1
            continue
        found.count += 1
        found.total += number
        found.squares += number * number
        found.bad += kpi.is_bad(number)
    return found


def kpi_value(kpi: Kpi, output: Any, value: Any) -> float | None:
    """A KPI of one prediction; None when its function fails or gives no finite number."""
    try:
        number = float(kpi(output, value))
    except Exception:  # noqa: BLE001 - the user's function may raise anything; the row is counted as failed
        return None
    return number if math.isfinite(number) else None


def _grown(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(one) or not len(other):
        return other if not len(one) else one
    return one + other
