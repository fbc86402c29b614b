"""The only feature arithmetic: from exact integer totals to a feature's value.

Every engine hands over the same integers: n (events), and per field the count, sum and sum of squares of its
non-null stored values, its smallest and largest, and its last by (time, offset). From there each value takes at
most two correctly rounded steps, so that it has the same bits wherever, whenever and in whatever order it was
computed. `finalise` is the definition; `finalise_many` may take numpy's way only where IEEE 754 promises the
same bits, and takes the definition's everywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from davy.core.digest import digest_bytes, digest_json
from davy.core.fields import Field, Kind
from davy.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from davy.features.definition import FeatureSpec

INT64 = 1 << 63
EXACT = 1 << 53


@cache
def code_digest() -> str:
    """12 hex digits that stand for all code between events and values: this file, the tiles, and the expressions with what they rely on."""
    from davy.features.expression import kernel_digest

    own = [digest_bytes(resources.files("davy.features").joinpath(name).read_bytes()) for name in ("kernel.py", "tiles.py")]
    return digest_json([*own, kernel_digest()]).removeprefix("sha256:")[:12]


def output_kind(feature: FeatureSpec, field: Field | None) -> Kind:
    """The kind of a feature's value: counts are ints, means are floats, the rest as the field (decimals become floats)."""
    if feature.aggregate == "count":
        return "int"
    assert field is not None
    if feature.aggregate in ("mean", "std"):
        return "float"
    kind: Kind = "float" if field.kind == "decimal" else field.kind
    return "int" if feature.aggregate == "sum" and kind in ("int", "bool") else kind


def finalise_sum(n: int, total: int, power: int, integral: bool) -> int | float:
    """The sum; 0 over nothing. `power` is 10^scale of the field.

    Raises:
        InvalidInput: an integer sum beyond 64 bits.
    """
    if not integral:
        return total / power
    if not -INT64 <= total < INT64:
        raise InvalidInput(
            f"A sum over {n} events is {total}, beyond 64 bits.",
            "Integer features are int64.",
            "Declare the field as a float or decimal, or take a shorter window.",
        )
    return total


def finalise_mean(n: int, total: int, power: int) -> float | None:
    """total / (n x 10^scale), rounded once; null over nothing."""
    return total / (n * power) if n else None


def finalise_std(n: int, total: int, squares: int, power: int) -> float | None:
    """The sample standard deviation: exact numerator and denominator, one division, one root; null below two values."""
    if n < 2:
        return None
    return math.sqrt((n * squares - total * total) / (n * (n - 1) * power * power))


def finalise(feature: FeatureSpec, field: Field | None) -> Callable[..., Any]:
    """The function from a feature's totals to its value.

    Its arguments: count (n), sum (n, total), mean (n, total), std (n, total, squares), min, max and last (stored value or None).
    """
    aggregate = feature.aggregate
    if aggregate == "count":
        return int
    assert field is not None
    power = 10**field.scale
    if aggregate == "sum":
        integral = output_kind(feature, field) == "int"
        return lambda n, total: finalise_sum(n, total, power, integral)
    if aggregate == "mean":
        return lambda n, total: finalise_mean(n, total, power)
    if aggregate == "std":
        return lambda n, total, squares: finalise_std(n, total, squares, power)
    return field.decode


def divide_many(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Correctly rounded quotients of integers (int64 or object arrays; denominators are not 0), as float64.

    Where both fit into 53 bits, the hardware's division is correctly rounded already; Python's is used for the rest.
    """
    import numpy as np

    if numerators.dtype == object or denominators.dtype == object:
        return np.array([a / b for a, b in zip(numerators.tolist(), denominators.tolist(), strict=True)], dtype=np.float64)
    quotients: np.ndarray = numerators.astype(np.float64) / denominators.astype(np.float64)
    large = np.flatnonzero((np.abs(numerators) > EXACT) | (denominators > EXACT))
    if len(large):
        quotients[large] = [int(numerators[i]) / int(denominators[i]) for i in large.tolist()]
    return quotients


def finalise_many(feature: FeatureSpec, field: Field, n: np.ndarray, total: np.ndarray, squares: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """`finalise` of sum, mean and std over arrays of shape (rows,): the values, and a mask that is true where they are not null.

    Args:
        n: int64 counts of non-null values.
        total, squares: int64, or Python ints in object arrays where 64 bits are too few.
    """
    import numpy as np

    power = 10**field.scale
    if feature.aggregate == "sum":
        if output_kind(feature, field) == "int":
            if total.dtype == object:
                total = np.array([finalise_sum(events, value, 1, True) for events, value in zip(n.tolist(), total.tolist(), strict=True)], dtype=np.int64)
            return total, np.ones(len(n), dtype=bool)
        return divide_many(total, np.full(len(n), power, dtype=np.int64)), np.ones(len(n), dtype=bool)
    if feature.aggregate == "mean":
        valid = n > 0
        return divide_many(total, _product(np.maximum(n, 1), power)), valid
    assert squares is not None
    valid = n > 1
    counts, sums, quads = np.maximum(n, 2).tolist(), total.tolist(), squares.tolist()
    values = [
        math.sqrt((k * q - s * s) / (k * (k - 1) * power * power)) if ok else 0.0 for k, s, q, ok in zip(counts, sums, quads, valid.tolist(), strict=True)
    ]
    return np.array(values, dtype=np.float64), valid


def _product(counts: np.ndarray, power: int) -> np.ndarray:
    if power * int(counts.max(initial=0)) < INT64:
        return counts * power
    return counts.astype(object) * power
