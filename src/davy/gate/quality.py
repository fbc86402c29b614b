"""How good the answers are on rows with known outcomes: against thresholds, and against stable, overall and slice by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from davy.errors import NotEnoughData
from davy.gate.check import Check, Finding, failed, no_data, passed, plain
from davy.gate.paired import LEVEL, MEANS, Comparison, compare, holm, loss_comparison, row_losses
from davy.training.evaluation import auc_interval, positives, scores

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate
    from davy.gate.rows import Rows

METRICS = ("auc", "accuracy", "logloss", "brier", "rmse", "mae")
HIGHER_IS_BETTER = frozenset(("auc", "accuracy"))
MOST_SLICES = 200
SHOWN_SLICES = 30


class Slice(msgspec.Struct, frozen=True):
    """The rows with one value of one column. `p` is adjusted for the number of slices."""

    column: str
    value: Any
    comparison: Comparison
    p: float

    @property
    def is_worse(self) -> bool:
        """Worse beyond chance among all slices, and by more than the margin."""
        return self.p < LEVEL and self.comparison.gain < -self.comparison.margin

    def evidence(self) -> dict[str, Any]:
        """For the report."""
        return {"column": self.column, "value": self.value, "p": self.p, **self.comparison.evidence()}


def quality(candidate: Candidate) -> Finding:
    rows, version, signature = candidate.held_out, candidate.version, candidate.signature
    answers = rows.predict(version)
    found = scores(signature.output, signature.classes, answers, rows.y)
    positive = positives(rows.y, signature.classes)
    if positive is not None and isinstance(answers, np.ndarray) and answers.ndim == 1 and (ends := auc_interval(answers, positive)) is not None:
        found["auc_low"], found["auc_high"] = ends
    evidence: dict[str, Any] = {"rows": len(rows), "held_out_by": rows.origin.reference, "digest": rows.digest, "metrics": found}
    limits = evidence["limits"] = _limits(candidate)
    absent = [metric for metric in limits if metric not in found]
    if absent:
        return failed(f"[gate.quality] asks for {', '.join(absent)}, and these answers have {', '.join(found)}.",
                      fix=f"Ask for another metric, or hold out rows of both classes: davy train {candidate.model} --test-start TIME", **evidence)
    short = [f"{metric} is {found[metric]:.4g}, and {_sense(metric)} {limit:g} is asked" for metric, limit in limits.items() if _misses(found, metric, limit)]
    if short:
        return failed(f"On {len(rows):,} held-out rows {'; '.join(short)}.", fix="Train a better model, or change [gate.quality] in davy.toml.", **evidence)
    told = ", ".join(f"{metric} {value:.4f}" for metric, value in list(found.items())[:2])
    if candidate.stable is None:
        if limits:
            return passed(f"{told} on {len(rows):,} held-out rows, within the limits; {candidate.alone}.", **evidence)
        return no_data(f"{told} on {len(rows):,} held-out rows; no limit is set, and {candidate.alone}.",
                       fix="Set a limit in davy.toml: [gate.quality] auc = 0.65", **evidence)
    return _beside_stable(candidate, rows, told, evidence)


def _beside_stable(candidate: Candidate, rows: Rows, told: str, evidence: dict[str, Any]) -> Finding:
    stable = candidate.stable
    assert stable is not None
    assert stable.signature is not None
    found = compare(candidate.signature, rows.predict(candidate.version), stable.signature, rows.predict(stable), rows.y, candidate.settings.margin,
                    rows.blocks)
    if found is None:
        return no_data(f"{told}; {len(rows):,} rows are too few, or of another kind, to compare with {stable.reference}.", **evidence)
    evidence["against"] = {"version": stable.reference, "learned_from_these_rows": _overlap(candidate, rows), **found.evidence()}
    words = (f"{found.metric} {found.candidate:.4f} against {found.reference:.4f} of {stable.reference} on the same {found.rows:,} rows: "
             f"a gain of {found.gain:+.4f}, 95 % [{found.low:+.4f}, {found.high:+.4f}]")
    if found.is_worse:
        return failed(f"{words}.", fix="It is worse than what serves. Look at its features and its training set.", **evidence)
    if found.is_as_good:
        return passed(f"{words}.", **evidence)
    return no_data(f"{words}: neither as good (within {found.margin:.2g}) nor worse is shown.", fix="Hold out more rows: --test-start, --test-end", **evidence)


def slices(candidate: Candidate) -> Finding:
    """No part of the held-out rows is served worse; several slices are judged together by Holm's method."""
    rows, stable = candidate.held_out, candidate.stable
    mine = row_losses(candidate.signature, rows.predict(candidate.version), rows.y)
    if mine is None:
        return no_data("Answers of this kind have no loss row by row.")
    metric, losses = mine
    if stable is not None and stable.signature is not None:
        theirs = row_losses(stable.signature, rows.predict(stable), rows.y)
        beside = stable.reference
    else:
        theirs, beside = _of_a_constant(candidate, rows), "a constant answer"
    if theirs is None or theirs[0] != metric:
        return no_data(f"The answers of {beside} are of another kind.")
    groups = _groups(candidate, rows)
    if not groups:
        return no_data(f"No value of a text feature or entity key has {candidate.settings.slice_rows} held-out rows.")
    found = judge(metric, losses, theirs[1], groups, candidate.settings.slice_margin, rows.blocks)
    worse = [item for item in found if item.is_worse]
    evidence = {"beside": beside, "metric": metric, "slices": len(found), "method": f"{MEANS}, Holm over all slices at level {LEVEL}",
                "margin": candidate.settings.slice_margin, "rows_at_least": candidate.settings.slice_rows,
                "worst": plain([item.evidence() for item in found[:SHOWN_SLICES]])}
    first = found[0]
    told = (f"{first.column}={first.value} ({metric} {first.comparison.candidate:.4g} against {first.comparison.reference:.4g} of {beside} on "
            f"{first.comparison.rows:,} rows, p {first.p:.2g})")
    if worse:
        others = f", and {len(worse) - 1} more" if len(worse) > 1 else ""
        return failed(f"{len(worse)} of {len(found)} slices are worse: {told}{others}.",
                      fix=f"Look at the rows with {first.column}={first.value} in its training set.", **evidence)
    return passed(f"None of {len(found)} slices is worse than with {beside}; the nearest to it is {told}.", **evidence)


def judge(metric: str, losses: np.ndarray, reference: np.ndarray, groups: list[tuple[str, Any, np.ndarray]], margin: float,
          blocks: np.ndarray | None = None) -> list[Slice]:
    """The slices with p-values adjusted for their number, the worst first."""
    compared = [loss_comparison(metric, losses[picked], reference[picked], margin, None if blocks is None else blocks[picked]) for _, _, picked in groups]
    adjusted = holm([item.p_worse for item in compared])
    found = [Slice(column, value, item, p) for (column, value, _), item, p in zip(groups, compared, adjusted, strict=True)]
    return sorted(found, key=lambda item: (not item.is_worse, item.p, item.comparison.gain))


def _groups(candidate: Candidate, rows: Rows) -> list[tuple[str, Any, np.ndarray]]:
    """(column, value, which rows) for each value of text features and entity keys that has enough rows, the largest first."""
    features = rows.feature_set
    names = [name for name, kind in zip(features.outputs, features.kinds, strict=True) if kind in ("str", "bool")]
    names += [field.name for field in features.entities if field.name not in names]
    vectors, found = rows.features(rows.origin), []
    for name in names:
        column = vectors[name] if name in vectors.columns else rows.frame[name]
        counts = column.drop_nulls().value_counts().filter(pl.col("count") >= candidate.settings.slice_rows)
        if counts.height > 1 or (counts.height == 1 and counts["count"][0] < len(rows)):
            found += [(name, value, (column == value).fill_null(False).to_numpy()) for value in counts[name].to_list()]
    return sorted(found, key=lambda item: (-int(item[2].sum()), item[0], str(item[1])))[:MOST_SLICES]


def _of_a_constant(candidate: Candidate, rows: Rows) -> tuple[str, np.ndarray] | None:
    """The losses of answering every row with the average of what was learned from: what a version must beat when nothing serves yet."""
    try:
        learned = candidate.training_rows.y
    except NotEnoughData:
        learned = rows.y
    signature, count = candidate.signature, len(rows)
    if signature.output == "label":
        values, counts = np.unique(learned, return_counts=True)
        return row_losses(signature, [values.tolist()[int(counts.argmax())]] * count, rows.y)
    if signature.output == "probability" and len(signature.classes) > 2:
        shares = np.array([float(np.mean(learned == label)) for label in signature.classes])
        return row_losses(signature, np.tile(shares, (count, 1)), rows.y)
    positive = positives(learned, signature.classes)
    return row_losses(signature, np.full(count, float(np.mean(learned if positive is None else positive))), rows.y)


def _limits(candidate: Candidate) -> dict[str, float]:
    """The limits that hold for this model: `auc` for all, `late.auc` for one."""
    found = {name: limit for name, limit in candidate.settings.quality.items() if "." not in name}
    prefix = f"{candidate.model}."
    return found | {name.removeprefix(prefix): limit for name, limit in candidate.settings.quality.items() if name.startswith(prefix)}


def _misses(found: dict[str, float], metric: str, limit: float) -> bool:
    return found[metric] < limit if metric in HIGHER_IS_BETTER else found[metric] > limit


def _sense(metric: str) -> str:
    return "at least" if metric in HIGHER_IS_BETTER else "at most"


def _overlap(candidate: Candidate, rows: Rows) -> bool | None:
    """Whether stable may have learned from these rows, which would flatter it; None when that is not known."""
    from davy.gate.rows import record_of

    assert candidate.stable is not None
    try:
        learned, tested = record_of(candidate.home, candidate.stable).data, record_of(candidate.home, rows.origin).test
    except NotEnoughData:
        return None
    if tested is None or tested.start is None:
        return None
    return (learned.end is None or learned.end > tested.start) and (learned.start is None or tested.end is None or learned.start < tested.end)


CHECKS = (
    Check("quality", "Its answers on held-out rows are within the limits, and not worse than stable's", quality),
    Check("slices", "No slice of the held-out rows is served worse", slices),
)
