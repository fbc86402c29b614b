"""What each operation means: the Python that the row kernel runs for it. This is the definition; there is no other.

Unless an operation says otherwise, its result is null when an operand is. `null_if` names further conditions
under which it is null, `check` what is done with a result out of range: an int or time is an error, a float becomes null.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from datetime import date
from typing import Any, Literal, NamedTuple, Protocol

from davy.core.time import EARLIEST, LATEST
from davy.errors import InvalidInput
from davy.features.expressions.nodes import LARGEST, SMALLEST
from davy.features.expressions.zones import zone_offset

Check = Literal["", "int", "float", "time"]
LARGEST_EXP = 709.782712893384
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_BEFORE_MONTH = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_FIRST_DAY = 719_162
_CYCLE_DAYS = 146_097


class Operand(NamedTuple):
    """An operand in the generated source: its text, whether it can be null, and its value if it is a constant."""

    text: str
    kind: str
    nullable: bool
    constant: Any = None


class Call(NamedTuple):
    """One use of an operation; `bind` gives an object a name in the generated source."""

    operands: tuple[Operand, ...]
    kind: str
    parameter: Any
    bind: Callable[[str, Any], str]


class Code(NamedTuple):
    """The generated expression: with `nullable` set it handles null operands itself."""

    value: str
    null_if: tuple[str, ...] = ()
    check: Check = ""
    nullable: bool | None = None


class Operation(Protocol):
    """Writes the code of one use."""

    def __call__(self, call: Call) -> Code: ...


def overflow(feature: str, value: int) -> InvalidInput:
    """The error for an int beyond 64 bits, or a time beyond the calendar."""
    text = str(value) if value.bit_length() <= 200 else f"a number of {value.bit_length()} bits"
    return InvalidInput(f"The derived feature {feature!r} computed {text}.", "An int is 64 bits wide, and a time lies in the years 1 to 9999.",
                        'Cast to "float" before the arithmetic, or bound the inputs with davy.clip.')


def lower(text: str) -> str:
    """ASCII letters in lower case."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def upper(text: str) -> str:
    """ASCII letters in upper case."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def bucket(text: str, buckets: int) -> int:
    """CRC-32 of the UTF-8 bytes modulo `buckets`."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % buckets


def power(base: float, exponent: float) -> float | None:
    """libm's pow, null where it has no finite value."""
    try:
        return math.pow(base, exponent)
    except (ValueError, OverflowError):
        return None


def civil(local: int) -> date:
    """The day of local microseconds, moved by whole cycles of 400 years into the years 1 to 400."""
    return date.fromordinal((local // 86_400_000_000 + _FIRST_DAY) % _CYCLE_DAYS + 1)


def day_of_year(local: int) -> int:
    """1 on the first of January."""
    day = civil(local)
    return _BEFORE_MONTH[day.month] + day.day + (day.month > 2 and day.year % 4 == 0 and (day.year % 100 != 0 or day.year == 400))


HELPERS: dict[str, Any] = {
    "overflow": overflow, "lower": lower, "upper": upper, "bucket": bucket, "power": power, "civil": civil, "day_of_year": day_of_year,
    "sqrt": math.sqrt, "log": math.log, "log1p": math.log1p, "exp": math.exp, "abs": abs, "round": round, "len": len, "int": int,
    "float": float, "str": str}


def _infix(sign: str) -> Operation:
    def write(call: Call) -> Code:
        left, right = call.operands
        check: Check = call.kind if call.kind in ("int", "float", "time") and left.kind + right.kind != "timetime" else ""  # type: ignore[assignment]
        return Code(f"{left.text} {sign} {right.text}", check=check)
    return write


def _template(template: str, null_if: str = "", check: Check = "") -> Operation:
    def write(call: Call) -> Code:
        text = {"a": call.operands[0].text, "b": call.operands[-1].text, "p": repr(call.parameter)}
        return Code(template.format(**text), (null_if.format(**text),) if null_if else (), check)
    return write


def _divide(sign: str) -> Operation:
    def write(call: Call) -> Code:
        left, right = call.operands
        zero = () if right.constant else (f"not {right.text}",)
        check: Check = ""
        if sign == "//" and call.kind == "int":
            check = "" if right.constant not in (None, 0, -1) else "int"
        elif sign != "%" and "float" in (left.kind, right.kind):
            check = "" if right.constant is not None and abs(right.constant) >= 1 else "float"
        return Code(f"{left.text} {sign} {right.text}", zero, check)
    return write


def _negate(call: Call) -> Code:
    return Code(f"-{call.operands[0].text}", check="int" if call.kind == "int" else "")


def _absolute(call: Call) -> Code:
    return Code(f"abs({call.operands[0].text})", check="int" if call.kind == "int" else "")


def _power(call: Call) -> Code:
    left, right = call.operands
    value, empty = f"power({left.text}, {right.text})", nulls(call.operands)
    return Code(f"None if {empty} else {value}" if empty else value, nullable=True)


def _and(call: Call) -> Code:
    left, right = call.operands
    if not left.nullable and not right.nullable:
        return Code(f"{left.text} and {right.text}")
    return Code(f"False if {left.text} is False or {right.text} is False else None if {nulls(call.operands)} else True", nullable=True)


def _or(call: Call) -> Code:
    left, right = call.operands
    if not left.nullable and not right.nullable:
        return Code(f"{left.text} or {right.text}")
    return Code(f"True if {left.text} is True or {right.text} is True else None if {nulls(call.operands)} else False", nullable=True)


def _is_null(call: Call) -> Code:
    operand = call.operands[0]
    return Code(f"{operand.text} is None" if operand.nullable else "False", nullable=False)


def _coalesce(call: Call) -> Code:
    first, second = call.operands
    if not first.nullable:
        return Code(first.text, nullable=False)
    return Code(f"{second.text} if {first.text} is None else {first.text}", nullable=second.nullable)


def _when(call: Call) -> Code:
    condition, then, otherwise = call.operands
    return Code(f"{then.text} if {condition.text} else {otherwise.text}", nullable=then.nullable or otherwise.nullable)


def _clip(call: Call) -> Code:
    value, low, high = (operand.text for operand in call.operands)
    return Code(f"{low} if {value} < {low} else {high} if {value} > {high} else {value}")


def _cast(call: Call) -> Code:
    operand = call.operands[0]
    if operand.kind == "time":
        return Code(operand.text)
    if call.kind == "bool":
        return Code(f"{operand.text} != 0")
    if call.kind == "int" and operand.kind == "float":
        return Code(f"int({operand.text})", (f"not -9.223372036854775808e18 <= {operand.text} < 9.223372036854775808e18",))
    return Code(f"{call.kind}({operand.text})")


def _is_in(call: Call) -> Code:
    return Code(f"{call.operands[0].text} in {{{', '.join(repr(value) for value in call.parameter)}}}")


def _local(call: Call) -> Code:
    offset = call.bind("offset", zone_offset(call.parameter))
    return Code(f"{call.operands[0].text} + {offset}({call.operands[0].text})")


def nulls(operands: tuple[Operand, ...]) -> str:
    """The condition that an operand is null, or an empty text when none can be."""
    return " or ".join(dict.fromkeys(f"{operand.text} is None" for operand in operands if operand.nullable))


CHECKS = {"int": f"if not {SMALLEST} <= {{0}} <= {LARGEST}: raise overflow({{1!r}}, {{0}})",
          "time": f"if not {EARLIEST} <= {{0}} <= {LATEST}: raise overflow({{1!r}}, {{0}})",
          "float": "if {0} - {0} != 0.0: {0} = None"}

OPERATIONS: dict[str, Operation] = {
    "add": _infix("+"), "subtract": _infix("-"), "multiply": _infix("*"), "divide": _divide("/"), "floor_divide": _divide("//"),
    "modulo": _divide("%"), "power": _power, "power_int": _template("{a} ** {p}", check="int"), "negate": _negate, "absolute": _absolute,
    "equal": _template("{a} == {b}"), "not_equal": _template("{a} != {b}"), "less": _template("{a} < {b}"), "less_equal": _template("{a} <= {b}"),
    "greater": _template("{a} > {b}"), "greater_equal": _template("{a} >= {b}"), "and": _and, "or": _or, "not": _template("not {a}"),
    "is_null": _is_null, "coalesce": _coalesce, "when": _when, "cast": _cast, "is_in": _is_in,
    "minimum": _template("{a} if {a} <= {b} else {b}"), "maximum": _template("{a} if {a} >= {b} else {b}"), "clip": _clip,
    "sqrt": _template("sqrt({a})", "{a} < 0"), "log": _template("log({a})", "{a} <= 0"), "log1p": _template("log1p({a})", "{a} <= -1"),
    "exp": _template("exp({a})", f"{{a}} > {LARGEST_EXP}"), "floor": _template("{a} // 1.0"), "ceil": _template("-(-{a} // 1.0)"),
    "round": _template("round({a}, {p})"), "length": _template("len({a})"), "lower": _template("lower({a})"), "upper": _template("upper({a})"),
    "contains": _template("{b} in {a}"), "starts_with": _template("{a}.startswith({b})"), "hash_bucket": _template("bucket({a}, {p})"),
    "local": _local, "hour": _template("{a} // 3600000000 % 24"), "minute": _template("{a} // 60000000 % 60"),
    "weekday": _template("({a} // 86400000000 + 3) % 7"), "month": _template("civil({a}).month"), "day_of_year": _template("day_of_year({a})")}
