"""Plots of an evaluation as SVG, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

from davy.training.evaluation import auc, auc_interval, calibration, roc_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from davy.serving.logged import Matrix

MOST_POINTS, MOST_BARS = 2000, 20
INK, SOFT = "#2a6f97", "#9aa5b1"


def available() -> bool:
    """Whether matplotlib can be imported."""
    return importlib.util.find_spec("matplotlib") is not None


def roc_svg(answers: Matrix, positive: NDArray[np.bool_], title: str) -> bytes:
    """The ROC curve with its area and the area's 95 % interval."""
    rates = roc_curve(answers, positive)
    step = -(-len(rates[0]) // MOST_POINTS)
    false, true = (_thinned(rate, step) for rate in rates)
    interval = auc_interval(answers, positive)
    span = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
    figure, axes = _canvas()
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1, label="guessing")
    axes.plot(false, true, color=INK, label=f"AUC {auc(answers, positive):.4f}{span}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1), aspect="equal",
             title=f"{title}: {len(answers):,} rows, {int(positive.sum()):,} positive")
    axes.legend(loc="lower right")
    return _svg(figure)


def calibration_svg(answers: Matrix, positive: NDArray[np.bool_], title: str) -> bytes:
    """What was answered against what turned out, in ten bins of equally many rows, with 95 % intervals."""
    bins = calibration(answers, positive)
    means, shares = [entry[0] for entry in bins], [entry[1] for entry in bins]
    reach = [[entry[1] - entry[2] for entry in bins], [entry[3] - entry[1] for entry in bins]]
    top = min(1.0, 1.1 * max(*means, *(entry[3] for entry in bins)))
    figure, axes = _canvas()
    axes.plot([0, top], [0, top], color=SOFT, linestyle="--", linewidth=1, label="calibrated")
    axes.errorbar(means, shares, yerr=reach, color=INK, marker="o", markersize=4, capsize=2, label=f"{bins[0][4]:,} rows a bin")
    axes.set(xlabel="mean predicted probability", ylabel="share of positives", xlim=(0, top), ylim=(0, top), aspect="equal",
             title=f"{title}: {len(answers):,} rows")
    axes.legend(loc="upper left")
    return _svg(figure)


def importance_svg(values: Mapping[str, float], title: str) -> bytes:
    """The largest values as bars."""
    shown = list(values.items())[:MOST_BARS][::-1]
    figure, axes = _canvas(height=0.3 * len(shown) + 1.2)
    axes.barh([name for name, _ in shown], [value for _, value in shown], color=INK)
    axes.set(xlabel="importance (the model's own measure)", title=f"{title}: {len(shown)} of {len(values)} features")
    return _svg(figure)


def _thinned(values: Matrix, step: int) -> list[float]:
    return [*values[:-1:step].tolist(), float(values[-1])]


def _canvas(height: float = 5.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _svg(figure: Any) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "davy", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
