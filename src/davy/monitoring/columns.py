"""The reference of a column: what it looked like in the training set, as bins that everything later is counted into.

Numbers get up to 1,000 bins of equal mass, each heavy value a bin of its own; texts their most frequent values, *other* (known,
but rare) and *unseen*. The reference also learns how much its rows hang together in time, because a day of weather is no thousand
independent observations.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import polars as pl

from davy.monitoring.distributions import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

BINS, COARSE = 1000, 20
CUTS = (10, *range(50, 951, 50), 990)  # thousandths: the tails tell the most of a shift
TOP, VOCABULARY, AT_ONCE = 50, 20_000, 8
HOUR, DAY = 3_600_000_000, 86_400_000_000
HOURS_OF_WEEK = 168
FEWEST_BLOCKS, DIURNAL = 8, 0.01

Kind = Literal["number", "category", "none"]


class Dependence(msgspec.Struct, frozen=True, eq=False):
    """How much rows hang together that lie within so many microseconds.

    Attributes:
        per_block: how many rows there were in that time.
        within: per coarse bin (last: null) and at the end for the whole column, the correlation of two rows of one block, 0 to 1.
    """

    block: int
    per_block: float
    within: np.ndarray


class ColumnReference(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One column of a training set.

    Attributes:
        kind: `none` for a column that has no distribution to compare, such as a time that only ever grows.
        rows, nulls: how many; nulls are among the rows.
        edges: of numbers, increasing; bin i holds edges[i-1] < value <= edges[i], and there is one more bin than edges.
        counts: per bin. Of texts: one for each of `top`, then other, then unseen (always 0 here).
        coarse: the edges that the stream monitor uses, as positions in `edges`.
        top, known: texts with a bin of their own, the most frequent first; and those that are counted as other.
        unseen: the expected share of values that the training set has not: the share of those it has once (Good and Turing).
        blocks: how much its rows hang together, over a day and over an hour; none when their times are not known.
        by_hour: for a column that follows the clock, counts per hour and coarse bin (last: null): of the week where the time determines it,
            of the day where it goes with it.
    """

    name: str
    kind: Kind
    rows: int
    nulls: int
    edges: np.ndarray
    counts: np.ndarray
    coarse: np.ndarray
    top: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    unseen: float = 0.0
    mean: float = 0.0
    sd: float = 0.0
    low: float = 0.0
    high: float = 0.0
    blocks: tuple[Dependence, ...] = ()
    by_hour: np.ndarray | None = None

    @property
    def bins(self) -> int:
        """How many bins there are, without the nulls'."""
        return len(self.counts)

    @cached_property
    def cuts(self) -> NDArray[np.float64]:
        """The edges of the coarse bins of numbers."""
        found: NDArray[np.float64] = self.edges[self.coarse]
        return found

    @cached_property
    def codes(self) -> dict[str, int]:
        """Text -> its bin; what is not here is unseen."""
        found = {text: len(self.top) for text in self.known}
        found.update({text: place for place, text in enumerate(self.top)})
        return found

    @property
    def coarse_bins(self) -> int:
        """How many coarse bins there are, without the nulls'."""
        return len(self.coarse) + 1 if self.kind == "number" else min(len(self.top), COARSE) + 2

    def inflation(self, rate: float | None = None) -> NDArray[np.float64]:
        """Per coarse bin (last: null) and for the whole column, how many rows count for as much as one independent one would.

        Args:
            rate: rows per microsecond; default: that of the training set.
        """
        found = np.ones(self.coarse_bins + 2)
        for level in self.blocks:
            rows = level.per_block if rate is None else rate * level.block
            found = np.maximum(found, 1 + level.within * max(rows - 1, 0.0))
        return found

    def coarse_counts(self, counts: NDArray[np.int64], nulls: int) -> NDArray[np.int64]:
        """Counts of the fine bins, summed into the coarse ones; the nulls are the last."""
        if self.kind == "number":
            running = np.concatenate([[0], np.cumsum(counts)])
            found = np.diff(np.concatenate([[0], running[self.coarse + 1], [running[-1]]]))
        else:
            width = min(len(self.top), COARSE)
            found = np.concatenate([counts[:width], [counts[width:-1].sum(), counts[-1]]])
        return np.append(found, nulls).astype(np.int64)

    def coarse_codes(self, values: pl.Series) -> NDArray[np.int64]:
        """Per row its coarse bin; a null's is the last."""
        if self.kind == "number":
            numbers = _numbers(values)
            missing = np.isnan(numbers)
            codes = np.searchsorted(self.cuts, np.where(missing, 0.0, numbers), side="left")
            codes[missing] = len(self.cuts) + 1
            return codes.astype(np.int64)
        width = min(len(self.top), COARSE)
        mapping = {text: min(place, width) for text, place in self.codes.items()}
        filled = values.replace_strict(mapping, default=width + 1, return_dtype=pl.Int64) if mapping else pl.repeat(width + 1, len(values), eager=True)
        return filled.set(values.is_null(), width + 2).to_numpy().astype(np.int64)


class Reference(msgspec.Struct, frozen=True, eq=False, dict=True):
    """The columns of a training set, and by which digest it is known."""

    training_set: str
    rows: int
    columns: tuple[ColumnReference, ...]
    days: float = 0.0

    @cached_property
    def by_name(self) -> dict[str, ColumnReference]:
        """The columns by name."""
        return {column.name: column for column in self.columns}


def make_reference(frame: pl.DataFrame, *, times: NDArray[np.int64] | None = None, timed: Iterable[str] = (), training_set: str = "") -> Reference:
    """The reference of a frame's columns.

    Args:
        times: microseconds per row, from which it is learnt how much rows of a day hang together; without them, they don't.
        timed: columns that the time of the row determines, such as the hour: they are compared within the hours of a week.
    """
    determined = set(timed)
    columns = tuple(_column(series, times, series.name in determined) for series in frame.iter_columns())
    days = 0.0 if times is None or not len(times) else float(times.max() - times.min()) / DAY
    return Reference(training_set, frame.height, columns, days)


def _column(values: pl.Series, times: NDArray[np.int64] | None, timed: bool) -> ColumnReference:
    if values.dtype.is_temporal() or values.dtype.is_nested() or not len(values):
        empty = np.zeros(0, dtype=np.int64)
        return ColumnReference(values.name, "none", len(values), values.null_count(), np.zeros(0), empty, empty)
    made = _numeric(values) if values.dtype.is_numeric() or values.dtype == pl.Boolean else _categorical(values)
    if times is None:
        return made
    codes = made.coarse_codes(values)
    hours = hours_of_week(times) if timed else hours_of_week(times) % 24 if _goes_with_the_hour(made, codes, times) else None
    by_hour = None
    if hours is not None:
        width, count = made.coarse_bins + 1, HOURS_OF_WEEK if timed else 24
        by_hour = np.bincount(hours * width + codes, minlength=count * width).reshape(count, width).astype(np.int64)
    groups = np.zeros(len(codes), dtype=np.int64) if hours is None else hours
    return msgspec.structs.replace(made, blocks=_dependence(made, codes, times, groups), by_hour=by_hour)


def _numeric(values: pl.Series) -> ColumnReference:
    numbers = _numbers(values)
    found = np.sort(numbers[~np.isnan(numbers)])
    count = len(found)
    if not count:
        empty = np.zeros(0, dtype=np.int64)
        return ColumnReference(values.name, "number", len(values), len(values), np.zeros(0), np.zeros(1, dtype=np.int64), empty)
    quantiles = found[np.arange(1, BINS) * count // BINS]
    thick = quantiles[np.array(CUTS) - 1]
    edges = np.unique(np.concatenate([quantiles, np.nextafter(_repeated(quantiles), -np.inf)]))
    coarse = np.unique(np.searchsorted(edges, np.concatenate([thick, np.nextafter(_repeated(thick), -np.inf)])))
    counts = np.diff(np.concatenate([[0], np.searchsorted(found, edges, side="right"), [count]])).astype(np.int64)
    return ColumnReference(values.name, "number", len(values), len(values) - count, edges, counts, coarse.astype(np.int64), mean=float(found.mean()),
                           sd=float(found.std()), low=float(found[0]), high=float(found[-1]))


def _repeated(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values so frequent that they are several quantiles at once: they get bins of their own."""
    distinct, times = np.unique(quantiles, return_counts=True)
    heavy: NDArray[np.float64] = distinct[times > 1]
    return heavy


def _categorical(values: pl.Series) -> ColumnReference:
    frame = values.cast(pl.String).alias("value").drop_nulls().value_counts(name="count").sort(["count", "value"], descending=[True, False])
    texts, counts = frame["value"].to_list(), frame["count"].to_numpy().astype(np.int64)
    total = int(counts.sum())
    rest = counts[VOCABULARY:].sum()  # so rare that they are not told from unseen ones
    unseen = float((counts == 1).sum() + rest) / total if total else 1.0
    bins = np.concatenate([counts[:TOP], [counts[TOP:].sum(), 0]]).astype(np.int64)
    return ColumnReference(values.name, "category", len(values), values.null_count(), np.zeros(0), bins, np.zeros(0, dtype=np.int64), tuple(texts[:TOP]),
                           tuple(texts[TOP:VOCABULARY]), min(unseen, 1.0))


def _dependence(column: ColumnReference, codes: NDArray[np.int64], times: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[Dependence, ...]:
    """How much more the means of days, and of hours, differ than those of independent rows would.

    One-way analysis of variance; in a column that follows the clock, of what is left after the hour's own mean.
    """
    span = int(times.max() - times.min()) + 1
    lengths = (DAY, HOUR) if span >= FEWEST_BLOCKS * DAY else (max(span // FEWEST_BLOCKS, 1),)
    width = column.coarse_bins + 1
    scores = _scores(np.bincount(codes, minlength=width))[codes]
    parts = [*((codes == place).astype(np.float64) for place in range(width)), scores, scores**2]
    found = []
    for block in lengths:
        _, places = np.unique((times - times.min()) // block, return_inverse=True)
        sizes = np.bincount(places).astype(np.float64)
        if len(sizes) < 2:
            return (Dependence(block, float(len(codes)), np.ones(width + 1)),)
        typical = (len(codes) - float((sizes**2).sum()) / len(codes)) / (len(sizes) - 1)
        within = np.array([_correlation(part, places, sizes, groups, typical) for part in parts])
        found.append(Dependence(block, len(codes) / len(sizes), np.append(within[:width], within[width:].max())))
    return tuple(found)


def _goes_with_the_hour(column: ColumnReference, codes: NDArray[np.int64], times: NDArray[np.int64]) -> bool:
    """Whether the hour of the day explains more than a hundredth of how often any bin, or null, is met."""
    if times.max() - times.min() < FEWEST_BLOCKS * DAY:
        return False
    hours, width = hours_of_week(times) % 24, column.coarse_bins + 1
    table = np.bincount(hours * width + codes, minlength=24 * width).reshape(24, width).astype(np.float64)
    rows, share = table.sum(axis=1, keepdims=True), table.sum(axis=0) / len(codes)
    means = table / np.maximum(rows, 1)
    between = (rows * (means - share) ** 2).sum(axis=0) / len(codes) - share * (1 - share) * 23 / len(codes)
    return bool((between > DIURNAL * share * (1 - share)).any())


def _correlation(values: NDArray[np.float64], days: NDArray[np.int64], sizes: NDArray[np.float64], groups: NDArray[np.int64], typical: float) -> float:
    counts = np.bincount(groups)
    left = values - (np.bincount(groups, values) / np.maximum(counts, 1))[groups]
    variance = float((left**2).mean())
    if variance <= 0 or typical <= 1:
        return 0.0
    means = np.bincount(days, left) / sizes
    between = float((sizes * means**2).sum()) / (len(sizes) - 1)
    return float(np.clip((between / variance - 1) / (typical - 1), 0.0, 1.0))


def _scores(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per coarse bin the normal score of its middle; the nulls' is 0."""
    inside = counts[:-1].astype(np.float64)
    if not inside.sum():
        return np.zeros(len(counts))
    ends = np.cumsum(inside) / inside.sum()
    return np.append(np.clip(normal_quantile(ends - inside / inside.sum() / 2), -4, 4), 0.0)


def hours_of_week(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hour of the week (UTC, from a Thursday's midnight) of moments in microseconds."""
    return (times // HOUR % HOURS_OF_WEEK).astype(np.int64)


def _numbers(values: pl.Series) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isinf(found), np.nan, found) if np.isinf(found).any() else found


class ColumnProfile(msgspec.Struct, eq=False):
    """What was counted of one column in some time; the sum of two is the profile of both times.

    Attributes:
        below, above: values outside the range that the training set had.
        total, squares: sums of (value - the reference's mean) and of its square.
    """

    counts: np.ndarray
    rows: int = 0
    nulls: int = 0
    below: int = 0
    above: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: ColumnProfile) -> ColumnProfile:
        return ColumnProfile(self.counts + other.counts, self.rows + other.rows, self.nulls + other.nulls, self.below + other.below,
                             self.above + other.above, self.total + other.total, self.squares + other.squares)

    def mean(self, reference: ColumnReference) -> float | None:
        """The mean of the values of a column of numbers."""
        count = self.rows - self.nulls
        return reference.mean + self.total / count if count and reference.kind == "number" else None

    def sd(self, reference: ColumnReference) -> float | None:
        """Their standard deviation."""
        count = self.rows - self.nulls
        if not count or reference.kind != "number":
            return None
        return float(np.sqrt(max(self.squares / count - (self.total / count) ** 2, 0.0)))


def count(reference: Reference, frame: pl.DataFrame | pl.LazyFrame) -> dict[str, ColumnProfile]:
    """Count the columns of a frame into the reference's bins. A lazy frame is read column by column, and never held as a whole.

    A column that the frame lacks is left out.
    """
    names = frame.collect_schema().names() if isinstance(frame, pl.LazyFrame) else frame.columns
    wanted = [column for column in reference.columns if column.name in names]
    numbers = [column for column in wanted if column.kind == "number"]
    texts = [column for column in wanted if column.kind == "category"]
    lazy = frame.lazy()
    profiles: dict[str, ColumnProfile] = {}
    rows = int(lazy.select(pl.len()).collect().item()) if wanted else 0
    for first in range(0, len(numbers), AT_ONCE):
        part = numbers[first:first + AT_ONCE]
        found = lazy.select(pl.col(column.name).cast(pl.Float64).drop_nulls().sort().implode() for column in part).collect()
        profiles |= {column.name: _from_sorted(column, rows, found[column.name][0].to_numpy()) for column in part}
    if texts:
        told = lazy.select(pl.col(column.name).cast(pl.String).value_counts().implode() for column in texts).collect().to_dict(as_series=False)
        profiles |= {column.name: _from_texts(column, rows, told[column.name][0]) for column in texts}
    return profiles


def _from_sorted(column: ColumnReference, rows: int, values: NDArray[np.float64]) -> ColumnProfile:
    """Counts by binary search; infinities, at the ends, and NaN, at the very end, are nulls."""
    known = values[np.searchsorted(values, -np.inf, side="right"):np.searchsorted(values, np.inf, side="left")]
    counts = np.diff(np.concatenate([[0], np.searchsorted(known, column.edges, side="right"), [len(known)]])).astype(np.int64)
    off = known - column.mean
    empty = column.rows == column.nulls  # a range that is none
    below = 0 if empty else int(np.searchsorted(known, column.low, side="left"))
    above = 0 if empty else len(known) - int(np.searchsorted(known, column.high, side="right"))
    return ColumnProfile(counts, rows, rows - len(known), below, above, float(off.sum()), float(off @ off))


def _from_texts(column: ColumnReference, rows: int, found: list[dict[str, Any]]) -> ColumnProfile:
    counts, nulls, codes = np.zeros(column.bins, dtype=np.int64), 0, column.codes
    for item in found:
        text, count = item[column.name], item["count"]
        if text is None:
            nulls += count
        else:
            counts[codes.get(text, column.bins - 1)] += count
    return ColumnProfile(counts, rows, nulls)
