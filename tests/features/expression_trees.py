"""Random typed expression trees and rows with the values that break things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

KINDS = {"n": "int", "m": "int", "x": "float", "y": "float", "s": "str", "t": "str", "u": "time", "v": "time", "p": "bool", "q": "bool"}
ZONES = ["America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns", "UTC"]
COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]


def instant(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


MOMENTS = [instant(1900, 1, 1), instant(1969, 12, 31, 23, 59, 59, 999_999), instant(2013, 3, 10, 6, 59, 59, 999_999), instant(2013, 3, 10, 7),
           instant(2013, 11, 3, 5, 59, 59), instant(2013, 11, 3, 6), instant(2024, 2, 29, 23), instant(2024, 12, 31, 23, 59),
           instant(2100, 2, 28, 23), instant(2100, 7, 1), instant(2400, 2, 29, 12), instant(9999, 12, 31), instant(1, 1, 1)]
EPOCH = instant(1970, 1, 1)
YEAR = 31_556_952_000_000
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.sampled_from([0, 1, -1, 2, 3, -7, 63, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)])
    | st.integers(-1000, 1000) | st.integers(-(2**63), 2**63 - 1),
    "float": st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -1.0, 2.675, 5e-324, 1e-300, 1e300, 1.7976931348623157e308, 9.3e18, 709.782712893384, 710.0])
    | st.floats(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False),
    "str": st.sampled_from(["", "a", "AbC", "ß", "İ", "STRASSE", "ab", "'\"\\\n{}", "😀z"]) | st.text("abAB ßİ", max_size=4),
    "bool": st.booleans()}
CONSTANTS = {**VALUES, "time": st.sampled_from(MOMENTS) | st.integers(-200 * YEAR, 600 * YEAR).map(lambda shift: EPOCH + timedelta(microseconds=shift))}
VALUES["time"] = CONSTANTS["time"].map(lambda moment: (moment - EPOCH) // timedelta(microseconds=1))
ROWS = st.fixed_dictionaries({name: st.none() | VALUES[kind] for name, kind in KINDS.items()})


@st.composite
def trees(draw: st.DrawFn, kind: str, depth: int) -> Any:
    """A tree of a kind. Its left-most leaf is always an input, so that no operation has constants alone."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return "input", draw(st.sampled_from([name for name, of in KINDS.items() if of == kind]))
    return draw(st.sampled_from(RULES[kind]))(draw, depth - 1)


def other(draw: st.DrawFn, kind: str, depth: int) -> Any:
    """A tree or a constant."""
    if draw(st.integers(0, 3)) == 0:
        return "constant", draw(CONSTANTS[kind])
    return draw(trees(kind, depth))


def of(operation: str, *kinds: str) -> Any:
    def rule(draw: st.DrawFn, depth: int) -> Any:
        return operation, draw(trees(kinds[0], depth)), *(other(draw, kind, depth) for kind in kinds[1:])
    return rule


def given(operation: str, kind: str, parameters: st.SearchStrategy[Any]) -> Any:
    def rule(draw: st.DrawFn, depth: int) -> Any:
        return operation, draw(trees(kind, depth)), draw(parameters)
    return rule


def clip(kind: str) -> Any:
    def rule(draw: st.DrawFn, depth: int) -> Any:
        low = other(draw, kind, depth)
        return "clip", draw(trees(kind, depth)), low, other(draw, kind, depth) if low[0] != "constant" else draw(trees(kind, depth))
    return rule


def choices(kind: str) -> list[Any]:
    return [of("coalesce", kind, kind), of("when", "bool", kind, kind)]


def pairs(operations: list[str], *kinds: tuple[str, str]) -> list[Any]:
    return [of(operation, *pair) for operation in operations for pair in kinds]


MIXED = (("int", "float"), ("float", "int"), ("float", "float"))
RULES: dict[str, list[Any]] = {
    "int": [*pairs(["add", "subtract", "multiply", "floor_divide", "modulo", "minimum", "maximum"], ("int", "int")), of("negate", "int"),
            of("absolute", "int"), given("power_int", "int", st.integers(0, 63)), clip("int"), of("to_int", "float"),
            of("count", "bool"), of("stamp", "time"), of("length", "str"), given("hash_bucket", "str", st.integers(1, 2**31)), of("between", "time", "time"),
            *(given(part, "time", st.sampled_from(ZONES)) for part in ("hour", "minute", "weekday", "month", "day_of_year")), *choices("int")],
    "float": [*pairs(["add", "subtract", "multiply", "floor_divide", "modulo", "divide", "power"], *MIXED), of("divide", "int", "int"),
              of("minimum", "float", "float"), of("maximum", "float", "float"), clip("float"), of("negate", "float"),
              of("absolute", "float"), *(of(name, kind) for name in ("sqrt", "log", "log1p", "exp") for kind in ("int", "float")), of("floor", "float"),
              of("ceil", "float"), given("round", "float", st.integers(0, 15)), of("to_float", "int"), of("to_float", "bool"), of("seconds", "int"),
              *choices("float")],
    "bool": [*pairs(COMPARISONS, *MIXED, ("int", "int"), ("str", "str"), ("time", "time")), *pairs(["equal", "not_equal"], ("bool", "bool")),
             of("and", "bool", "bool"), of("or", "bool", "bool"), of("not", "bool"), *(of("is_null", kind) for kind in ("int", "str", "time", "bool")),
             of("contains", "str", "str"), of("starts_with", "str", "str"), of("to_bool", "int"), of("to_bool", "float"),
             *(given("is_in", kind, st.lists(CONSTANTS[kind], min_size=1, max_size=3)) for kind in ("int", "float", "str", "time", "bool")), *choices("bool")],
    "str": [of("concat", "str", "str"), of("lower", "str"), of("upper", "str"), of("to_str", "int"), *choices("str")],
    "time": [of("later", "time", "int"), of("earlier", "time", "int"), of("minimum", "time", "time"), of("maximum", "time", "time"), *choices("time")]}


@st.composite
def typed_trees(draw: st.DrawFn) -> tuple[str, Any]:
    """A kind and a tree of it."""
    kind = draw(st.sampled_from(sorted(RULES)))
    return kind, draw(trees(kind, 4))
