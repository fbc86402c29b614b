"""The stream monitor: a bank of bets against the training set, that may be looked at after every row and keeps its promise.

Each bet is a ratio whose expectation is at most 1 while nothing has moved; the product over rows is then an e-process, and the
sum of those begun at every moment (Shiryaev and Roberts) an e-detector: the expected time until the family of all columns gives
its first false alarm is at least what was promised, whatever the columns' dependence. That the reference is itself a sample is
priced into each bet, and rows that hang together in time count for as much as independent ones would.

Source: Shin, Ramdas and Rinaldo, "E-detectors", New England Journal of Statistics in Data Science 2 (2024), arXiv 2203.03532.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from davy.monitoring.distributions import normal_cdf, normal_quantile, upper_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from davy.monitoring.columns import ColumnReference

SHIFTS = tuple(sign * size for size in (0.1, 0.2, 0.4, 0.8) for sign in (-1, 1))
SCALES = (0.5, 0.8, 1.25, 2.0)
SPIKES = (0.02, 0.1)
# What is small takes long to find, and longer with little weight; what is large is found soon with any.
SHAPE_WEIGHTS = np.repeat([0.1, 0.2, 0.06, 0.02, 0.02, 0.04, 0.04, 0.02], [2, 2, 2, 2, 1, 1, 1, 1])
CONFIDENCE = 20.0
FEWEST_IN_HOUR = 50
NOTHING = -1e9


class BankState(msgspec.Struct, eq=False):
    """Where a bank stands: what must be stored to go on. Arrays have one row per column and one place per bet.

    Attributes:
        mass: log of each bet's sum of e-processes.
        run: log e-value since the bet last stood at its lowest, and `began` when that was (microseconds).
        last: the time of the last batch.
    """

    mass: np.ndarray
    run: np.ndarray
    began: np.ndarray
    last: int = 0
    rows: int = 0


class Alarm(msgspec.Struct, frozen=True):
    """A column that has moved: since when, by the bet that gained most, and how strong the evidence is (log of the e-detector, and its limit)."""

    feature: str
    began: int
    raised: int
    bet: str
    evidence: float
    limit: float


class Bank:
    """The bets on some columns.

    Args:
        columns: the references; a column of kind `none` is never bet on.
        budget: how much weight (see `update`) may pass, in expectation, before the family gives a false alarm.
        tolerance: the drift that is not to be found, in standard deviations.
    """

    def __init__(self, columns: Sequence[ColumnReference], *, budget: float, tolerance: float = 0.0) -> None:
        self.columns = [column for column in columns if column.kind != "none" and column.rows]
        count = max(len(self.columns), 1)
        self.limit = math.log(max(budget, 1e-300)) + math.log(count)
        widths = [column.coarse_bins + 1 for column in self.columns]
        self.width = max(widths, default=1)
        self.bets = len(SHIFTS) + len(SCALES) + len(SPIKES) * self.width
        self._log_odds = math.log(2 * CONFIDENCE * count * len(SPIKES) * self.width)  # half of what may go wrong is for the spikes
        self._quantile = -NormalDist().inv_cdf(1 / (2 * CONFIDENCE * count * (len(SHIFTS) + len(SCALES))))
        made = [self._column(column, tolerance) for column in self.columns]
        self._gains = [one[0] for one in made]  # per column: (hours or 1, bets, bins)
        self._weights = np.array([one[1] for one in made]).reshape(len(made), self.bets)
        self._levels = [(np.array([one[2][level] for one in made]).reshape(len(made), self.bets),
                         np.array([column.blocks[level].block if level < len(column.blocks) else 1 for column in self.columns], dtype=np.float64))
                        for level in range(max((len(column.blocks) for column in self.columns), default=0))]
        self._plain = [index for index, gains in enumerate(self._gains) if len(gains) == 1]
        self._stacked = np.array([self._gains[index][0] for index in self._plain]).reshape(len(self._plain), self.bets, self.width)

    def start(self) -> BankState:
        """A state that has seen nothing."""
        shape = (len(self.columns), self.bets)
        return BankState(np.full(shape, NOTHING), np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def update(self, state: BankState, counts: NDArray[np.int64], *, weight: float, time: int, rate: float = 0.0,
               hours: Sequence[tuple[int, NDArray[np.int64]]] = ()) -> None:
        """Take a small batch of rows: any number that was decided before they were seen.

        Args:
            counts: per column and coarse bin (the last is null), padded with zeros to `width`.
            weight: what of the budget the batch stands for, such as the time since the last one.
            time: microseconds, its last row's.
            rate: rows per microsecond lately, by which rows of one day are told to hang together.
            hours: (hour of the week, counts) of which the batch consists, for columns that the time determines.
        """
        gains = np.zeros((len(self.columns), self.bets))
        if self._plain:
            gains[self._plain] = np.matmul(self._stacked, counts[self._plain, :, None].astype(np.float64))[:, :, 0]
        for index, table in enumerate(self._gains):
            if len(table) > 1:
                for hour, part in hours:
                    gains[index] += table[hour % len(table)] @ part[index]
        if rate > 0 and self._levels:
            gains /= np.max([1 + within * np.maximum(rate * blocks - 1, 0)[:, None] for within, blocks in self._levels], axis=0)
        fresh = state.run <= 0
        state.began[fresh] = state.last or time
        state.run = np.where(fresh, gains, state.run + gains)
        state.mass = np.logaddexp(state.mass, math.log(weight) if weight > 0 else NOTHING) + gains
        state.last, state.rows = time, state.rows + int(counts[0].sum()) if len(counts) else state.rows

    def evidence(self, state: BankState) -> NDArray[np.float64]:
        """Per column the log of its e-detector; an alarm from `limit` on."""
        weighted = state.mass + self._weights
        top = weighted.max(axis=1, initial=NOTHING)
        found: NDArray[np.float64] = top + np.log(np.exp(weighted - top[:, None]).sum(axis=1))
        return found

    def alarms(self, state: BankState) -> list[Alarm]:
        """The columns whose evidence has reached the limit, the strongest first."""
        evidence = self.evidence(state)
        found = []
        for index in np.flatnonzero(evidence >= self.limit):
            best = int(np.argmax(state.mass[index] + self._weights[index]))
            found.append(Alarm(self.columns[index].name, int(state.began[index, best]), state.last, self.describe(int(index), best), float(evidence[index]),
                               self.limit))
        return sorted(found, key=lambda alarm: -alarm.evidence)

    def forget(self, state: BankState, feature: str) -> None:
        """Let one column begin anew."""
        for index, column in enumerate(self.columns):
            if column.name == feature:
                state.mass[index], state.run[index], state.began[index] = NOTHING, 0.0, 0

    def describe(self, index: int, bet: int) -> str:
        """What the bet says has happened, for people."""
        column = self.columns[index]
        if bet < len(SHIFTS):
            return f"{'up' if SHIFTS[bet] > 0 else 'down'} by about {abs(SHIFTS[bet]):g} standard deviations"
        if bet < len(SHIFTS) + len(SCALES):
            return f"spread times about {SCALES[bet - len(SHIFTS)]:g}"
        place = (bet - len(SHIFTS) - len(SCALES)) % self.width
        return f"more {_bin_name(column, place)}"

    def _column(self, column: ColumnReference, tolerance: float) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
        """Of one column the log gains per hour, bet and bin, the log weights of the bets, and how much the rows of each hang together."""
        width = column.coarse_bins + 1
        shapes = len(SHIFTS) + len(SCALES) if column.kind == "number" else 0
        weights = np.full(self.bets, -np.inf)
        weights[:shapes] = np.log(SHAPE_WEIGHTS[:shapes])
        withins = [column.blocks[level].within if level < len(column.blocks) else np.zeros(width + 1) for level in range(2)]
        depends = [np.full(self.bets, float(within[-1])) for within in withins]
        for number in range(len(SPIKES)):
            first = len(SHIFTS) + len(SCALES) + number * self.width
            weights[first:first + width] = math.log((1 - SHAPE_WEIGHTS[:shapes].sum()) / (len(SPIKES) * width))
            for of_bets, within in zip(depends, withins, strict=True):
                of_bets[first:first + width] = within[:width]
        whole = column.coarse_counts(column.counts, column.nulls)
        tables = [whole] if column.by_hour is None else list(column.by_hour)
        return np.array([self._gain(column, counts, tolerance) for counts in tables]), weights, depends

    def _gain(self, column: ColumnReference, counts: NDArray[np.int64], tolerance: float) -> NDArray[np.float64]:
        found = np.zeros((self.bets, self.width))
        rows = float(counts.sum())
        if column.by_hour is not None and rows < FEWEST_IN_HOUR:
            return found
        width = len(counts)
        p: NDArray[np.float64] = np.asarray((counts + 0.5) / (rows + 0.5 * width), dtype=np.float64)
        worth = rows / column.inflation()
        slack = tolerance + self._quantile / math.sqrt(worth[-1])
        if column.kind == "number":
            for place, tilted in enumerate(_tilts(p)):
                found[place, :width] = np.log(tilted / p) - math.log1p(slack * math.sqrt(max(float((tilted**2 / p).sum()) - 1, 0.0)))
        share = counts / rows
        if column.kind == "category":  # of values that the training set has not, its singletons say how many to expect
            share[-2] = max(share[-2], column.unseen * (1 - share[-1]))
        most = np.minimum(upper_bound(share, worth[:width], self._log_odds) + tolerance * np.sqrt(p * (1 - p)), 1.0)
        for number, size in enumerate(SPIKES):
            first = len(SHIFTS) + len(SCALES) + number * self.width
            found[first:first + width, :width] = math.log(1 - size)
            found[first + np.arange(width), np.arange(width)] = np.log(1 - size + size / most)
        return found


def _tilts(p: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The reference moved and stretched, as if its values were normal; the share of nulls (the last bin) stays."""
    known = 1 - p[-1]
    ends = normal_quantile(np.concatenate([[0.0], np.cumsum(p[:-1])[:-1] / known, [1.0]]))
    moved = [ends - shift for shift in SHIFTS] + [ends / scale for scale in SCALES]
    found = []
    for at in moved:
        masses = np.maximum(np.diff(normal_cdf(at)), 1e-12)
        found.append(np.append(masses / masses.sum() * known, p[-1]))
    return found


def _bin_name(column: ColumnReference, place: int) -> str:
    if place == column.coarse_bins:
        return "nulls"
    if column.kind == "category":
        names = [*(repr(text) for text in column.top[:column.coarse_bins - 2]), "rare values", "unseen values"]
        return names[place] if place < len(names) else "values"
    cuts = column.cuts
    if not len(cuts):
        return "values"
    low, high = (_plain(cuts[place - 1]) if place else None), (_plain(cuts[place]) if place < len(cuts) else None)
    if low is None:
        return f"values up to {high}"
    if high is None:
        return f"values above {low}"
    return f"values of {high}" if float(np.nextafter(cuts[place - 1], np.inf)) == float(cuts[place]) else f"values from {low} to {high}"


def _plain(cut: float) -> str:
    """A cut for people: the floats just beside 0 are 0."""
    return f"{0.0 if abs(cut) < np.finfo(np.float64).tiny else float(cut):.6g}"
