"""Derived features: row-wise expressions over features and request fields, the same in training and in serving.

`trace` runs a plain function once with symbols and keeps what it did as JSON in a `DerivedSpec`. `compile_kernel`
generates one plain Python function for all derived features of a model: that row kernel is the definition.
The parts are in `davy.features.expressions`.

>>> spec = trace("rush", lambda departures, scheduled: when(scheduled.hour("UTC") >= 15, departures * 2, departures),
...              {"departures": "int", "scheduled": "time"})
>>> compile_kernel([spec], ["departures", "scheduled"])([4, 16 * 3_600_000_000])
(8,)
"""

from __future__ import annotations

from davy.features.expressions.compiler import Kernel, compile_kernel, kernel_digest
from davy.features.expressions.functions import (
    abs,  # noqa: A004
    case,
    ceil,
    clip,
    coalesce,
    exp,
    floor,
    hash_bucket,
    is_null,
    log,
    log1p,
    maximum,
    minimum,
    round,  # noqa: A004
    sqrt,
    when,
)
from davy.features.expressions.symbols import Symbol
from davy.features.expressions.trace import trace

__all__ = ["Kernel", "Symbol", "abs", "case", "ceil", "clip", "coalesce", "compile_kernel", "exp", "floor", "hash_bucket", "is_null",
           "kernel_digest", "log", "log1p", "maximum", "minimum", "round", "sqrt", "trace", "when"]
