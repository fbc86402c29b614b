"""Batches against a training set: calibrated where nothing moved, right about what did, and calm about odd columns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from davy.errors import CorruptData
from davy.monitoring.columns import Reference, count, make_reference
from davy.monitoring.drift import ColumnDrift, drift, drifted, psi, psi_threshold
from davy.monitoring.packed import pack, unpack

RANDOM = np.random.default_rng(11)


def frame(rows: int, seed: int, *, moved: bool = False) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 201) ** 1.1
    codes = random.choice(200, rows, p=weights / weights.sum())
    amounts = random.normal(size=rows) + (0.2 if moved else 0.0)
    spread = random.gamma(2, 1, rows)
    nulls = random.random(rows) < (0.2 if moved else 0.02)
    zeros = np.where(random.random(rows) < 0.7, 0.0, random.lognormal(size=rows))
    if moved:
        spread[random.random(rows) < 0.05] = 0.0
        codes[random.random(rows) < 0.01] = 200
    return pl.DataFrame({"amount": amounts, "calm": random.normal(size=rows), "spread": spread, "items": random.poisson(3, rows),
                         "sparse": pl.Series(np.where(nulls, np.nan, random.random(rows))).fill_nan(None), "zeros": zeros,
                         "paid": random.random(rows) < 0.3, "shop": [f"s{code}" for code in codes], "constant": np.full(rows, 7.0)})


def against(reference: Reference, now: pl.DataFrame, **settings: object) -> dict[str, ColumnDrift]:
    return {column.feature: column for column in drift(reference, count(reference, now), **settings)}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference(frame(20_000, 1), training_set="sha256:1")


def test_what_moved_is_found_and_nothing_else(reference: Reference) -> None:
    for rows in (5_000, 20_000):
        found = drift(reference, count(reference, frame(rows, 2, moved=True)))
        assert set(drifted(found)) == {"amount", "spread", "sparse", "shop"}
        assert [column.psi for column in found] == sorted((column.psi for column in found), reverse=True)  # type: ignore[type-var]
        assert drifted(drift(reference, count(reference, frame(rows, 3)))) == []


def test_p_values_are_uniform_where_nothing_moved() -> None:
    small = []
    for seed in range(12):
        reference = make_reference(frame(4_000, 100 + seed))
        for part in range(12):
            found = against(reference, frame(500, 1000 + 20 * seed + part))
            small += [column.p < 0.05 for column in found.values() if column.p is not None and column.feature != "constant"]
    share = np.mean(small)
    assert len(small) == 12 * 12 * 8
    assert 0.02 < share < 0.09


def test_the_golden_thresholds_of_psi() -> None:
    statistics = pytest.importorskip("scipy.stats")
    for n, m, bins, alpha in [(100_000, 1_000, 10, 0.01), (5_000, 200, 10, 0.05), (1_000_000, 1_000_000, 52, 0.01)]:
        assert psi_threshold(n, m, bins, alpha) == pytest.approx((1 / n + 1 / m) * statistics.chi2.ppf(1 - alpha, bins - 1), rel=1e-9)
    assert 0.1 / psi_threshold(100_000, 1_000, 10, 0.01) == pytest.approx(4.6, abs=0.05)


def test_psi_of_a_shift_is_its_square(reference: Reference) -> None:
    assert psi(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.0
    moved = against(reference, pl.DataFrame({"calm": RANDOM.normal(size=200_000) + 0.2}))["calm"]
    assert moved.psi == pytest.approx(0.04, rel=0.2)
    assert moved.w1 == pytest.approx(0.2, rel=0.1)
    assert moved.ks == pytest.approx(0.08, rel=0.1)


def test_distances_are_those_of_the_whole_samples(reference: Reference) -> None:
    statistics = pytest.importorskip("scipy.stats")
    before, now = frame(20_000, 1), frame(20_000, 2, moved=True)
    found = against(reference, now)
    for name in ("amount", "spread", "calm"):
        assert found[name].ks == pytest.approx(statistics.ks_2samp(before[name], now[name]).statistic, abs=0.002)
        exact = statistics.wasserstein_distance(before[name], now[name]) / before[name].std()
        assert found[name].w1 == pytest.approx(exact, rel=0.1, abs=0.005)


def test_one_outlier_is_out_of_range_and_no_drift(reference: Reference) -> None:
    values = np.random.default_rng(8).normal(size=5_000)
    values[0] = 1e9
    found = against(reference, pl.DataFrame({"amount": values}))["amount"]
    assert found.verdict == "same"
    assert found.w1 is not None
    assert found.w1 < 0.1
    assert 0 < found.outside < 0.001


@pytest.mark.parametrize("value", [7.0000001, 6.9999999, 8.0, -1e12])
def test_a_constant_that_becomes_another_has_drifted(reference: Reference, value: float) -> None:
    rows = frame(2_000, 4).with_columns(pl.lit(value).alias("constant"))
    assert drifted(drift(reference, count(reference, rows))) == ["constant"]


def test_odd_columns_are_told_and_break_nothing() -> None:
    random = np.random.default_rng(4)
    odd = pl.DataFrame({"nothing": pl.Series([None] * 400, dtype=pl.Float64), "no_text": pl.Series([None] * 400, dtype=pl.String),
                        "infinite": np.where(random.random(400) < 0.01, np.inf, random.normal(size=400)), "unique": [f"u{i}" for i in range(400)],
                        "huge": 1e15 + random.normal(size=400), "when": pl.Series(range(400)).cast(pl.Datetime("us", "UTC"))})
    reference = make_reference(odd)
    assert drifted(drift(reference, count(reference, odd))) == []
    same = against(reference, odd.with_columns(unique=pl.Series([f"v{i}" for i in range(400)])))
    assert all(column.verdict == "same" for column in same.values()), "texts that are all different stay so"
    assert "when" not in same
    now = odd.with_columns(nothing=pl.Series(random.normal(size=400)), no_text=pl.Series(["a"] * 400), infinite=pl.lit(float("nan")))
    assert set(drifted(drift(reference, count(reference, now)))) == {"nothing", "no_text", "infinite"}


@pytest.mark.parametrize("rows", [0, 1, 2, 49])
def test_too_few_rows_are_no_verdict(reference: Reference, rows: int) -> None:
    found = against(reference, frame(100, 2, moved=True)[:rows])
    assert {column.verdict for column in found.values()} <= {"not enough data"}
    tiny = make_reference(frame(max(rows, 1), 3))
    assert {column.verdict for column in against(tiny, frame(1_000, 4)).values()} <= {"not enough data"}


def test_a_tolerance_says_what_does_not_matter(reference: Reference) -> None:
    now = frame(20_000, 2, moved=True)
    assert drifted(drift(reference, count(reference, now), tolerance=5.0)) == []
    assert "amount" not in drifted(drift(reference, count(reference, now), tolerance={"amount": 0.5}))
    assert set(drifted(drift(reference, count(reference, now), correction="bonferroni"))) == {"amount", "spread", "sparse", "shop"}


def test_counts_are_those_of_a_histogram_and_add_up(reference: Reference) -> None:
    now = frame(3_000, 5)
    whole, lazy = count(reference, now), count(reference, now.lazy())
    parts = count(reference, now[:700])
    for name, more in count(reference, now[700:]).items():
        total = parts[name] + more
        assert total.counts.tolist() == whole[name].counts.tolist() == lazy[name].counts.tolist()
        assert (total.rows, total.nulls, total.below, total.above) == (whole[name].rows, whole[name].nulls, whole[name].below, whole[name].above)
    column = reference.by_name["amount"]
    edges, values = column.edges, now["amount"].to_numpy()
    expected = [int(((values > low) & (values <= high)).sum()) for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)]
    assert whole["amount"].counts.tolist() == expected
    assert whole["sparse"].nulls == now["sparse"].null_count()
    coarse = column.coarse_counts(whole["amount"].counts, whole["amount"].nulls)
    assert coarse.tolist() == np.bincount(column.coarse_codes(now["amount"]), minlength=column.coarse_bins + 1).tolist()
    shop = reference.by_name["shop"]
    assert shop.coarse_counts(whole["shop"].counts, 0).tolist() == np.bincount(shop.coarse_codes(now["shop"]), minlength=shop.coarse_bins + 1).tolist()


def test_a_reference_is_stored_in_little_and_read_back(reference: Reference) -> None:
    data = pack(reference)
    assert len(data) < 80_000
    again = unpack(data, Reference)
    now = frame(1_000, 6)
    assert drift(again, count(again, now)) == drift(reference, count(reference, now))
    with pytest.raises(CorruptData, match="can't be read"):
        unpack(data[:-20], Reference)
    with pytest.raises(CorruptData, match="can't be read"):
        unpack(b"nothing", Reference)
