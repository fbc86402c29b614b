"""The arithmetic between exact totals and a value: over arrays as over one, and rounded once."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davy.core.fields import Field
from davy.errors import InvalidInput
from davy.features.definition import FeatureSpec
from davy.features.kernel import divide_many, finalise, finalise_many, finalise_mean, finalise_std, finalise_sum, output_kind

WORD = st.integers(-(2**63), 2**63 - 1)
HUGE = st.integers(-(2**190), 2**190)
EDGES = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63), 10**18 - 1])
POSITIVE = st.integers(1, 2**63 - 1) | st.sampled_from([1, 3, 10**6, 10**15, 2**53, 2**53 + 1])


def bits(values: Any) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORD | EDGES, POSITIVE), max_size=20))
def test_quotients_of_words_are_pythons(pairs: list[tuple[int, int]]) -> None:
    found = divide_many(np.array([a for a, _ in pairs], dtype=np.int64), np.array([b for _, b in pairs], dtype=np.int64))
    assert found.dtype == np.float64
    assert bits(found) == bits(a / b for a, b in pairs)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(HUGE | EDGES, POSITIVE | st.integers(2**64, 2**100)), max_size=20))
def test_quotients_of_any_integers_are_pythons(pairs: list[tuple[int, int]]) -> None:
    numerators, denominators = (np.array([pair[place] for pair in pairs], dtype=object) for place in (0, 1))
    assert bits(divide_many(numerators, denominators)) == bits(a / b for a, b in pairs)


FIELDS = [Field("x", "int"), Field("x", "float", 6), Field("x", "float", 15), Field("x", "decimal", 0), Field("x", "decimal", 2), Field("x", "bool")]


@st.composite
def totals(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Counts, sums and sums of squares that belong together."""
    limit = draw(st.sampled_from([3, 10**6, 2**62]))
    rows = draw(st.lists(st.lists(st.integers(-limit, limit), max_size=6), max_size=10))
    return [(len(row), sum(row), sum(value * value for value in row)) for row in rows]


def column(values: list[int], wide: bool) -> np.ndarray:
    fits = all(-(2**63) <= value < 2**63 for value in values)
    return np.array(values, dtype=object if wide or not fits else np.int64)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), st.sampled_from(["sum", "mean", "std"]), totals(), st.booleans())
def test_many_are_finalised_as_one_is(field: Field, aggregate: Any, rows: list[tuple[int, int, int]], wide: bool) -> None:
    feature = FeatureSpec("f", aggregate, "x", 60, 1)
    one = finalise(feature, field)
    n = np.array([row[0] for row in rows], dtype=np.int64)
    total, squares = (column([row[place] for row in rows], wide) for place in (1, 2))
    wanted, refused = [], ""
    try:
        wanted = [one(*row[: 3 if aggregate == "std" else 2]) for row in rows]
    except InvalidInput as error:
        refused = error.came
    if refused:
        with pytest.raises(InvalidInput) as caught:
            finalise_many(feature, field, n, total, squares)
        assert caught.value.came == refused
        return
    values, valid = finalise_many(feature, field, n, total, squares)
    assert len(values) == len(valid) == len(rows)
    assert values.dtype == (np.int64 if output_kind(feature, field) == "int" else np.float64)
    found = [value if ok else None for value, ok in zip(values.tolist(), valid.tolist(), strict=True)]
    assert list(map(exactly, found)) == list(map(exactly, wanted))


def exactly(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=8), st.sampled_from([1, 10, 10**6, 10**15]))
def test_a_mean_is_rounded_once_and_a_deviation_twice(values: list[int], power: int) -> None:
    n, total, squares = len(values), sum(values), sum(value * value for value in values)
    assert finalise_mean(n, total, power) == float(Fraction(total, n * power))
    if n > 1:
        mean = Fraction(total, n)
        variance = sum((value - mean) ** 2 for value in values) / (n - 1) / power**2
        assert finalise_std(n, total, squares, power) == math.sqrt(float(variance))


@given(st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_no_result_depends_on_the_order(values: list[int], random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    for row in (values, shuffled):
        assert finalise_std(len(row), sum(row), sum(value * value for value in row), 1000) == finalise_std(
            len(values), sum(values), sum(value * value for value in values), 1000
        )


def test_nothing_is_null_or_zero() -> None:
    assert finalise_mean(0, 0, 10) is None
    assert finalise_std(1, 5, 25, 10) is None
    assert finalise_std(0, 0, 0, 10) is None
    assert (finalise_sum(0, 0, 1, True), finalise_sum(0, 0, 10, False)) == (0, 0.0)
    assert finalise_std(3, 15, 75, 10) == 0.0


@pytest.mark.parametrize(("total", "allowed"), [(2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False)])
def test_an_integer_sum_stays_within_64_bits(total: int, allowed: bool) -> None:
    if allowed:
        assert finalise_sum(3, total, 1, True) == total
    else:
        with pytest.raises(InvalidInput, match=f"over 3 events is {total}, beyond 64 bits") as caught:
            finalise_sum(3, total, 1, True)
        assert "shorter window" in caught.value.fix
    assert finalise_sum(3, total, 100, False) == total / 100


@pytest.mark.parametrize(
    ("kind", "scale", "aggregate", "expected"),
    [
        ("int", 0, "sum", "int"), ("bool", 0, "sum", "int"), ("float", 6, "sum", "float"), ("decimal", 0, "sum", "float"), ("str", 0, "count", "int"),
        ("int", 0, "mean", "float"), ("bool", 0, "std", "float"), ("time", 0, "max", "time"), ("decimal", 2, "min", "float"), ("bool", 0, "last", "bool"),
    ],
)  # fmt: skip
def test_kinds(kind: Any, scale: int, aggregate: Any, expected: str) -> None:
    assert output_kind(FeatureSpec("f", aggregate, "x", 60, 1), Field("x", kind, scale)) == expected
