"""Typed fields, and the one place where a value becomes the integer that all feature arithmetic works on.

A number is quantised once, when it enters the log: an int stays as it is; a float or decimal becomes
round-half-even(value x 10^scale). The product is one IEEE multiplication below 2^51 and exact above, so that
encoding what was decoded always gives the same integer. Everything after that is exact, so that no result can depend on order, batching, threads or engine.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, InvalidOperation
from decimal import Decimal as StdDecimal
from typing import Any, Literal

import msgspec

from davy.core.time import to_micros
from davy.errors import DefinitionError, InvalidInput, nearest

Kind = Literal["int", "float", "decimal", "str", "bool", "time"]
FLOAT_SCALE = 6
UNSCALED = -1
LARGEST_INT = 2**62
LARGEST_SCALED = 10**18 - 1
ONE_PRODUCT = 2.0**51
_PYTHONS = frozenset({int, float, str, bool})
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_ONE = StdDecimal(1)
_POWERS = tuple(float(10**scale) for scale in range(16))


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named column of a stream or request: its kind, and for floats and decimals the number of decimals kept.

    A float that no stream holds and no aggregate reads, a mere request field, may be `UNSCALED`: it is kept as it came.
    """

    name: str
    kind: Kind
    scale: int = 0

    @property
    def numeric(self) -> bool:
        """Whether sums and means of it make sense."""
        return self.kind in ("int", "float", "decimal", "bool")

    @property
    def described(self) -> str:
        """Its kind for people: `float with 6 decimals`."""
        return f"{self.kind} with {self.scale} decimals" if self.kind in ("float", "decimal") and self.scale != UNSCALED else self.kind

    def encode(self, value: Any) -> int | float | str | None:
        """The stored form: an int (scaled for floats and decimals, microseconds for times, 0/1 for bools), the text, or the unscaled float.

        Raises:
            InvalidInput: another type, NaN, infinity, or out of range; names the field and the value.
        """
        if value is None:
            return None
        kind = self.kind
        if type(value) not in _PYTHONS:
            value = plain(value)
        if kind == "float" or kind == "decimal":
            return self._quantise(value)
        if kind == "int":
            if type(value) is not int:
                raise self._refused(value)
            if not -LARGEST_INT <= value <= LARGEST_INT:
                raise self._refused(value, "An int field holds -2^62 to 2^62.")
            return value
        if kind == "str":
            if type(value) is not str:
                raise self._refused(value)
            return value
        if kind == "bool":
            if type(value) is not bool:
                raise self._refused(value)
            return int(value)
        return to_micros(value)

    def decode(self, stored: int | float | str | None) -> Any:
        """The value that features and models see: floats and decimals as the float nearest to stored / 10^scale."""
        if stored is None or self.kind == "str" or self.kind == "int" or self.kind == "time" or self.scale == UNSCALED:
            return stored
        if self.kind == "bool":
            return bool(stored)
        return stored / 10**self.scale

    def _quantise(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float, StdDecimal)):
            raise self._refused(value)
        if self.scale == UNSCALED:
            return self._unscaled(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self._refused(value, "NaN and infinity never enter the log; a missing value is null (None).")
            product = value * _POWERS[self.scale]
            scaled = round(product) if abs(product) < ONE_PRODUCT else _exactly(StdDecimal(value), self.scale)
        elif isinstance(value, int):
            scaled = value * 10**self.scale
        else:
            scaled = _exactly(value, self.scale)
        if not -LARGEST_SCALED <= scaled <= LARGEST_SCALED:
            raise self._refused(value, f"With {self.scale} decimals it holds less than 10^{18 - self.scale} either side of 0.")
        return scaled

    def _unscaled(self, value: float | StdDecimal) -> float:
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise self._refused(value, "It holds finite numbers; a missing value is null (None).")
        return found

    def _refused(self, value: Any, allowed: str = "") -> InvalidInput:
        allowed = allowed or f"It is declared as {self.described}."
        return InvalidInput(f"The field {self.name!r} got {value!r} ({type(value).__name__}).", allowed,
                            "Send the declared type, or change the field's declaration.")


def plain(value: Any) -> Any:
    """A NumPy number, bool or text as Python's own; anything else as it is."""
    if type(value).__module__ != "numpy" or getattr(getattr(value, "dtype", None), "kind", "") not in "iufbU" or getattr(value, "shape", True):
        return value
    return value.item()


def _exactly(value: StdDecimal, scale: int) -> int:
    try:
        return int(value.scaleb(scale, _EXACT).quantize(_ONE, context=_EXACT))
    except (InvalidOperation, ValueError):
        return LARGEST_SCALED + 1


class Float(msgspec.Struct, frozen=True):
    """A float field kept to `scale` decimals (the default for plain `float` is 6)."""

    scale: int = FLOAT_SCALE


class Decimal(msgspec.Struct, frozen=True):
    """A decimal field with exactly `scale` decimals, such as money."""

    scale: int = 2


class Time(msgspec.Struct, frozen=True):
    """A moment: ISO 8601 with a zone, an aware datetime, or microseconds in UTC."""


_PLAIN: dict[Any, tuple[Kind, int]] = {int: ("int", 0), float: ("float", FLOAT_SCALE), str: ("str", 0), bool: ("bool", 0),
                                       Time: ("time", 0), Decimal: ("decimal", 2), Float: ("float", FLOAT_SCALE)}


def make_field(name: str, declared: Any) -> Field:
    """The field that a declaration such as `float`, `davy.Float(scale=3)` or `davy.Time` stands for.

    Raises:
        DefinitionError: not a type that a field can have.
    """
    if not name.isidentifier() or name.startswith("_"):
        raise DefinitionError(f"{name!r} can't be a field's name.", "A field is named like a Python variable, without a leading underscore.",
                              "Rename it, also in the source.")
    if isinstance(declared, (Float, Decimal)):
        if not 0 <= declared.scale <= 15:
            raise DefinitionError(f"The field {name!r} has scale {declared.scale}.", "A scale is 0 to 15 decimals.", "Write for example davy.Float(scale=3).")
        return Field(name, "float" if isinstance(declared, Float) else "decimal", declared.scale)
    if isinstance(declared, Time):
        return Field(name, "time")
    found = _PLAIN.get(declared) if isinstance(declared, type) else None
    if found is None:
        spelled = declared if isinstance(declared, str) else str(getattr(declared, "__name__", declared))
        if spelled in ("datetime", "date", "time", "Timestamp"):
            advice = "A moment is davy.Time."
        elif isinstance(declared, str) and spelled in ("int", "float", "str", "bool"):
            advice = f"Write it without quotes: {spelled}"
        else:
            advice = nearest(spelled, ["int", "float", "str", "bool", "Time", "Float", "Decimal"])
        raise DefinitionError(f"The field {name!r} is declared as {declared!r}.",
                              "A field is int, float, str, bool, davy.Time, davy.Float(scale=...) or davy.Decimal(scale=...).",
                              advice)
    return Field(name, *found)
