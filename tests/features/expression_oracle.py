"""An obvious interpreter of expression trees: what each operation means, said a second time and never optimized.

A tree is a tuple (operation, operand, ...) over ("input", name), ("constant", value); `spell` writes the same tree
as a user would, with symbols.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any

from davy.features import expression as davy
from davy.features.expressions.zones import load_zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIGITS = Context(prec=800)


class TooLarge(Exception):
    """An int beyond 64 bits, or a time beyond the calendar."""


class OutOfReach(Exception):
    """A time that Python's own calendar can't show in that zone; the example says nothing."""


def evaluate(tree: Any, row: Mapping[str, Any]) -> Any:
    operation, *rest = tree
    if operation == "input":
        return row[rest[0]]
    if operation == "constant":
        return micros(rest[0])
    if operation in PARAMETERS:
        value = evaluate(rest[0], row)
        return None if value is None else PARAMETERS[operation](value, rest[1])
    values = [evaluate(operand, row) for operand in rest]
    if operation in NULL_AWARE:
        return NULL_AWARE[operation](*values)
    if any(value is None for value in values):
        return None
    return bounded(operation, PLAIN[operation](*values))


def micros(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    return value // timedelta(microseconds=1) if isinstance(value, timedelta) else value


def bounded(operation: str, value: Any) -> Any:
    if operation in ("later", "earlier") and not -62_135_596_800_000_000 <= value <= 253_402_300_799_999_999:
        raise TooLarge
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise TooLarge
    if type(value) is float and not math.isfinite(value):
        return None
    return value


def quiet(function: Any) -> Any:
    """The function, null where Python or IEEE has no finite number to give."""
    def call(*values: Any) -> Any:
        try:
            return function(*values)
        except (ZeroDivisionError, ValueError, OverflowError):
            return None
    return call


def divide(left: Any, right: Any) -> Any:
    if right == 0:
        return None
    return float(Fraction(left, right)) if type(left) is type(right) is int else left / right


def local(moment: int, zone: str) -> datetime:
    try:
        return (EPOCH + timedelta(microseconds=moment)).astimezone(load_zone(zone))
    except OverflowError as error:
        raise OutOfReach from error


def whole(value: float, direction: str) -> float:
    return math.copysign(float(Decimal(value).to_integral_value(direction)), value)


def decimals(value: Any, digits: int) -> Any:
    if type(value) is int:
        return value
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN, DIGITS))


def to_int(value: float) -> int | None:
    return int(value) if -(2**63) <= int(value) < 2**63 else None


def both(left: Any, right: Any) -> Any:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def either(left: Any, right: Any) -> Any:
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def ascii_case(text: str, first: str, shift: int) -> str:
    last = chr(ord(first) + 25)
    return "".join(chr(ord(letter) + shift) if first <= letter <= last else letter for letter in text)


NULL_AWARE = {
    "is_null": lambda a: a is None, "coalesce": lambda a, b: b if a is None else a, "when": lambda c, a, b: a if c is True else b,
    "and": both, "or": either}
PARAMETERS = {
    "round": decimals, "is_in": lambda a, values: any(a == micros(value) for value in values),
    "hash_bucket": lambda a, n: zlib.crc32(a.encode()) % n, "power_int": lambda a, n: bounded("", math.prod([a] * n)),
    "hour": lambda a, zone: local(a, zone).hour, "minute": lambda a, zone: local(a, zone).minute,
    "weekday": lambda a, zone: local(a, zone).weekday(), "month": lambda a, zone: local(a, zone).month,
    "day_of_year": lambda a, zone: local(a, zone).timetuple().tm_yday}
PLAIN = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b, "divide": divide,
    "floor_divide": quiet(lambda a, b: a // b), "modulo": quiet(lambda a, b: a % b), "power": quiet(math.pow), "negate": lambda a: -a,
    "absolute": lambda a: -a if a < 0 else a if a != 0 else a * 0 + 0, "equal": lambda a, b: a == b, "not_equal": lambda a, b: a != b,
    "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b, "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
    "not": lambda a: not a, "minimum": lambda a, b: b if b < a else a, "maximum": lambda a, b: b if b > a else a,
    "clip": lambda a, low, high: low if a < low else high if a > high else a, "sqrt": quiet(math.sqrt), "log": quiet(math.log),
    "log1p": quiet(math.log1p), "exp": quiet(math.exp), "floor": lambda a: whole(a, ROUND_FLOOR), "ceil": lambda a: whole(a, ROUND_CEILING),
    "to_float": float, "to_int": to_int, "to_bool": lambda a: a != 0, "count": int, "to_str": str, "stamp": lambda a: a,
    "length": len, "lower": lambda a: ascii_case(a, "A", 32), "upper": lambda a: ascii_case(a, "a", -32),
    "contains": lambda a, b: a.find(b) >= 0, "starts_with": lambda a, b: a[:len(b)] == b, "concat": lambda a, b: a + b,
    "later": lambda a, b: a + b, "earlier": lambda a, b: a - b, "between": lambda a, b: a - b, "seconds": lambda a: float(Fraction(a, 1_000_000))}


def spell(tree: Any, symbols: Mapping[str, Any]) -> Any:
    operation, *rest = tree
    if operation == "input":
        return symbols[rest[0]]
    if operation == "constant":
        return rest[0]
    if operation in PARAMETERS:
        return PARAMETER_SPELLINGS[operation](spell(rest[0], symbols), rest[1])
    return SPELLINGS[operation](*(spell(operand, symbols) for operand in rest))


PARAMETER_SPELLINGS = {
    "round": davy.round, "is_in": lambda a, values: a.is_in(values), "hash_bucket": davy.hash_bucket, "power_int": lambda a, n: a**n,
    "hour": lambda a, zone: a.hour(zone), "minute": lambda a, zone: a.minute(zone), "weekday": lambda a, zone: a.weekday(zone),
    "month": lambda a, zone: a.month(zone), "day_of_year": lambda a, zone: a.day_of_year(zone)}
SPELLINGS = {
    **PLAIN, "power": lambda a, b: a**b, "floor_divide": lambda a, b: a // b, "modulo": lambda a, b: a % b, "divide": lambda a, b: a / b,
    "absolute": davy.abs, "not": lambda a: ~a, "and": lambda a, b: a & b, "or": lambda a, b: a | b, "is_null": davy.is_null,
    "coalesce": davy.coalesce, "when": davy.when, "minimum": davy.minimum, "maximum": davy.maximum, "clip": davy.clip,
    "sqrt": davy.sqrt, "log": davy.log, "log1p": davy.log1p, "exp": davy.exp, "floor": davy.floor, "ceil": davy.ceil,
    "to_float": lambda a: a.cast("float"), "to_int": lambda a: a.cast("int"), "to_bool": lambda a: a.cast("bool"), "count": lambda a: a.cast("int"),
    "to_str": lambda a: a.cast("str"), "stamp": lambda a: a.cast("int"), "length": lambda a: a.length(), "lower": lambda a: a.lower(),
    "upper": lambda a: a.upper(), "contains": lambda a, b: a.contains(b), "starts_with": lambda a, b: a.starts_with(b),
    "concat": lambda a, b: a.concat(b), "seconds": lambda a: a.seconds()}
