"""Derived features: what each rule promises, and what a wrong definition says."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from davy.core.time import to_micros
from davy.errors import DefinitionError, InvalidInput, InvalidTime
from davy.features import expression as davy
from davy.features.definition import DerivedSpec
from davy.features.expression import compile_kernel, kernel_digest, trace
from davy.features.expressions import zones

KINDS: dict[str, Any] = {"n": "int", "m": "int", "x": "float", "y": "float", "money": "decimal", "s": "str", "t": "str", "u": "time", "v": "time", "p": "bool",
                         "q": "bool"}


def value_of(function: Callable[..., Any], *values: Any) -> Any:
    """The derived value for these argument values."""
    spec = trace("feature", function, KINDS)
    (value,) = compile_kernel([spec], spec.inputs)(values)
    return value


def test_the_kind_of_the_result_is_known() -> None:
    kinds = {"int": lambda n: n * 2, "float": lambda n: n / 2, "bool": lambda s: s == "a", "str": lambda s: s + "!", "time": lambda u: u + timedelta(hours=1)}
    assert {trace("f", function, KINDS).kind for function in kinds.values()} == set(kinds)
    assert all(trace("f", function, KINDS).kind == kind for kind, function in kinds.items())
    assert trace("f", lambda money: money + 1, KINDS).kind == "float"
    assert trace("f", lambda n, x: davy.when(x > 0, n, 0.5), KINDS).kind == "float"


@pytest.mark.parametrize("function", [
    lambda n: n / 0, lambda n: n // 0, lambda n: n % 0, lambda x: 1 / (x - x), lambda x: x // 0.0, lambda x: x % 0, lambda x: davy.log(x - x),
    lambda x: davy.log(-x), lambda x: davy.log1p(-x), lambda x: davy.sqrt(-x), lambda x: davy.exp(x * 1000), lambda x: (x * 1e308) * 1e308,
    lambda x: x * 1e308 * 10 - x * 1e308 * 10, lambda x: (-x) ** 0.5, lambda x: (x - x) ** -1, lambda x: (x * 1e30).cast("int")])
def test_what_has_no_finite_value_is_null(function: Callable[..., Any]) -> None:
    assert value_of(function, 1 if "n" in inspect.signature(function).parameters else 1.0) is None


@pytest.mark.parametrize("function", [
    lambda n: n + 1, lambda n: n * n, lambda n: -(-n - 2), lambda n: abs(-n - 1), lambda n: (-n - 1) // -1, lambda n: n**3, lambda n: n - (-1)])
def test_an_int_beyond_64_bits_is_an_error_that_names_the_feature(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInput, match=r"'feature' computed -?[0-9a]"):
        value_of(function, 2**63 - 1)


def test_a_time_beyond_the_calendar_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="'feature'"):
        value_of(lambda u: u + timedelta(days=1), to_micros("9999-12-31T12:00:00Z"))


@pytest.mark.parametrize("impure", [math.nan, math.inf, -math.inf])
def test_no_nan_gets_in_or_out(impure: float) -> None:
    assert value_of(lambda x: davy.coalesce(x, 0.5), impure) == 0.5
    assert value_of(lambda x: x, impure) is None


def test_null_propagates_except_through_null_handling() -> None:
    assert value_of(lambda n, m: n + m, None, 1) is None
    assert value_of(lambda n: n > 1, None) is None
    assert value_of(lambda n: davy.minimum(n, 3), None) is None
    assert value_of(lambda n: davy.when(n > 1, "big", "small"), None) == "small"
    assert value_of(lambda n: davy.case((n > 1, "big"), (n.is_null(), "none"), otherwise="small"), None) == "none"
    assert value_of(lambda n: davy.case((n > 1, "big")), 0) is None
    assert value_of(lambda n, m: davy.coalesce(n, m, 7), None, None) == 7
    assert value_of(lambda n: n.fill_null(3) + 1, None) == 4
    assert value_of(lambda p, q: p & q, None, False) is False
    assert value_of(lambda p, q: p | q, None, True) is True
    assert value_of(lambda p, q: p & q, None, True) is None
    assert value_of(lambda p: ~p, None) is None


def test_floor_division_and_remainder_round_down() -> None:
    assert (value_of(lambda n: n // 2, -7), value_of(lambda n: n % 2, -7), value_of(lambda n: n % -3, 7)) == (-4, 1, -2)
    assert value_of(lambda x: x % 3, -7.5) == 1.5


def test_int_division_is_the_nearest_float_of_the_exact_quotient() -> None:
    assert value_of(lambda n, m: n / m, 2**63 - 1, 3) == (2**63 - 1) / 3


@pytest.mark.parametrize(("value", "digits", "rounded"), [(0.5, 0, 0.0), (1.5, 0, 2.0), (2.5, 0, 2.0), (-0.5, 0, -0.0), (2.675, 2, 2.67), (0.125, 2, 0.12)])
def test_halves_round_to_even(value: float, digits: int, rounded: float) -> None:
    assert repr(value_of(lambda x: davy.round(x, digits), value)) == repr(rounded)


def test_builtins_that_can_be_symbolic_are() -> None:
    assert value_of(lambda x: abs(round(x, 1)) + math.floor(x) + math.ceil(x), -1.25) == 1.2 - 2 - 1
    assert value_of(lambda n: abs(round(n)) + math.floor(n) + math.ceil(n), -2) == -2


def test_texts() -> None:
    assert value_of(lambda s: s.upper(), "straße İi") == "STRAßE İI"
    assert value_of(lambda s: s.lower(), "ÄİB") == "Äİb"
    assert value_of(lambda s: s.length(), "😀e\u0301") == 3
    assert value_of(lambda s, t: s.contains(t) & s.starts_with("a"), "abc", "bc") is True
    assert value_of(lambda s: s.is_in(["AA", "UA"]), "UA") is True
    assert value_of(lambda s: davy.hash_bucket(s, 2**31), "123456789") == 0xCBF43926 % 2**31
    assert value_of(lambda s: "<" + s.concat(">"), "a") == "<a>"


def test_calendar_parts_follow_the_zone() -> None:
    before, after = to_micros("2013-03-10T06:59:59.999999Z"), to_micros("2013-03-10T07:00:00Z")
    assert [value_of(lambda u: u.hour("America/New_York"), moment) for moment in (before, after)] == [1, 3]
    assert value_of(lambda u: u.weekday("UTC"), to_micros("2013-05-06T00:00:00Z")) == 0
    assert value_of(lambda u: u.day_of_year("UTC"), to_micros("2024-12-31T00:00:00Z")) == 366
    assert value_of(lambda u: u.month("Europe/Berlin"), to_micros("2012-12-31T23:30:00Z")) == 1
    assert value_of(lambda u: u.minute("Asia/Kathmandu"), to_micros("2024-01-01T00:00:00Z")) == 45
    assert value_of(lambda u, v: (v - u).seconds(), 0, 1_500_000) == 1.5
    assert value_of(lambda u: u > datetime(2013, 5, 1, tzinfo=UTC), to_micros("2013-05-01T00:00:00.000001Z")) is True


@pytest.mark.parametrize("name", [*sorted(zones._names())[::29], "America/New_York", "Europe/Dublin", "Africa/Casablanca", "Asia/Tehran"])
def test_offsets_are_those_of_pythons_calendar(name: str) -> None:
    zone, offset = zones.load_zone(name), zones.zone_offset(name)
    listed = [second * 1_000_000 + shift for second, _ in zones._transitions(name)[0] if second > -6e10 for shift in (-1, 0, 1)]
    spread = range(to_micros("1850-01-01T00:00:00Z"), to_micros("2110-01-01T00:00:00Z"), 97 * 86_400_000_000)
    for moment in [*listed, *spread, to_micros("2500-07-01T00:00:00Z"), to_micros("9999-06-01T00:00:00Z")]:
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).astimezone(zone)
        assert offset(moment) == (local.utcoffset() or timedelta()) // timedelta(microseconds=1), moment


def test_the_calendar_goes_on_at_its_ends() -> None:
    last, first = to_micros("9999-12-31T23:59:59.999999Z"), to_micros("0001-01-01T00:00:00Z")
    assert value_of(lambda u: u.hour("Asia/Tokyo"), last) == 8
    assert value_of(lambda u: u.hour("America/New_York"), last) == 18
    assert value_of(lambda u: u.month("America/New_York"), first) == 12


def test_the_systems_zone_files_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Mars").mkdir()
    (tmp_path / "Mars" / "Olympus").write_bytes(zones._content("UTC"))
    monkeypatch.setenv("PYTHONTZPATH", str(tmp_path))
    with pytest.raises(DefinitionError, match="no IANA time zone"):
        trace("f", lambda u: u.hour("Mars/Olympus"), KINDS)


def test_a_derived_feature_may_use_another_in_any_order() -> None:
    one = trace("one", lambda n: n * 2, KINDS)
    two = trace("two", lambda one, n: one + n * 2, {**KINDS, "one": one.kind})
    kernel = compile_kernel([two, one], ["s", "n"])
    assert kernel(["a", 3]) == (12, 6)
    assert kernel.names == ("two", "one")
    assert kernel.source.count("* 2") == 1


def test_a_circle_is_refused_and_named() -> None:
    kinds = {"a": "int", "b": "int", "c": "int"}
    derived = [trace("a", lambda b: b + 1, kinds), trace("b", lambda c: c + 1, kinds), trace("c", lambda a: a + 1, kinds)]
    with pytest.raises(DefinitionError, match=r"(a -> c -> b -> a|b -> a -> c -> b|c -> b -> a -> c)"):
        compile_kernel(derived, [])


def test_a_long_chain_is_no_recursion() -> None:
    def chain(n: Any) -> Any:
        for _ in range(2000):
            n = n + 1
        return n
    assert value_of(chain, 1) == 2001


def test_a_value_used_often_is_computed_once() -> None:
    def doubled(n: Any) -> Any:
        for _ in range(60):
            n = davy.minimum(n, 10) + davy.minimum(n, 10)
        return n
    spec = trace("f", doubled, KINDS)
    assert len(spec.expression) < 200
    assert compile_kernel([spec], ["n"])([1]) == (20,)


def test_constants_that_are_equal_in_python_stay_apart() -> None:
    spec = trace("f", lambda p, x: davy.when(p, x * 0.0, x * -0.0), KINDS)
    kernel = compile_kernel([spec], ["p", "x"])
    assert [math.copysign(1, kernel([flag, 1.0])[0]) for flag in (True, False)] == [1, -1]


def test_a_default_stays_where_no_feature_has_the_name() -> None:
    spec = trace("f", lambda n, factor=3: n * factor, KINDS)
    assert spec.inputs == ("n",)
    assert compile_kernel([spec], ["n"])([2]) == (6,)


def test_numpys_numbers_are_constants_too() -> None:
    assert value_of(lambda x: np.float64(2.5) * x, 2.0) == 5.0


def test_the_digest_is_stable() -> None:
    assert kernel_digest() == kernel_digest()
    assert kernel_digest().startswith("sha256:")


def python_if(n: Any) -> Any:
    if n > 1:
        return n
    return 0


SYMBOLS: list[Any] = []
BAD: list[tuple[Callable[..., Any], str]] = [
    (python_if, r"test_expression.py:\d+ asks whether a symbol is true.*\n.*\n.*davy.when"),
    (lambda p, q: p and q, "davy.when"), (lambda p: not p, "~a"), (lambda n: 1 < n < 3, r"\(a > 1\) & \(b > 2\)"), (lambda n: max(n, 3), "davy.maximum"),
    (lambda s: s in ["a"], "is_in"), (lambda s: "a" in s, "contains"), (lambda s: s in {"a"}, "is_in"), (lambda s: f"{s}!", "concat"),
    (lambda s: str(s), "concat"), (lambda x: math.log(x), "davy.log"), (lambda n: int(n), "cast"), (lambda s: len(s), "length"),
    (lambda s: s[0], "starts_with"),
    (lambda s: list(s), "loops"), (lambda n: range(n), "index or count"),
    (lambda s, n: s + n, r"test_expression.py:\d+: '\+' got str and int"), (lambda p, n: p + n, "cast"),
    (lambda u, s: u > s, "aware datetime"), (lambda u, v: u + v, "got time and time"), (lambda n: n == None, "is_null"),  # noqa: E711
    (lambda n: n + None, "fill_null"), (lambda n: n & 1, "parentheses|tighter"), (lambda n, m: n > 1 & m > 2, "tighter"), (lambda n: ~n, "It takes bool"),
    (lambda p, q: p < q, "got bool and bool"), (lambda s: -s, "It takes int or float"), (lambda s: davy.log(s), "log got str"),
    (lambda u: u.hour(), "only in a zone"), (lambda u: u.hour("America/New_Yrok"), "did you mean 'America/New_York'"), (lambda u: u.hour(-5), "in a zone"),
    (lambda n: n.hour("UTC"), "hour got int"), (lambda u: u.hours("UTC"), "did you mean 'hour'"), (lambda x: x.cast("str"), "can't be cast to str"),
    (lambda x: x.cast("integer"), "did you mean 'int'"), (lambda s: s.cast("int"), "can't be cast"), (lambda p: davy.when(p, 1, "a"), "got int, str"),
    (lambda n: davy.when(n, 1, 2), "condition got int"), (lambda p: davy.when(p, None, None), "not None"), (lambda p: davy.case((p, 1, 2)), "pair"),
    (lambda p: davy.case(), "no branch"), (lambda n: davy.clip(n), "no bound"), (lambda n: davy.clip(n, 5, 1), "low bound comes first"),
    (lambda x: davy.round(x, 16), "0 to 15"), (lambda x, n: davy.round(x, n), "number of decimals"), (lambda n: n**64, "at most 63"),
    (lambda s: s.is_in([]), "at least one"), (lambda s: s.is_in({"a"}), "list"), (lambda s: s.is_in("a"), "list"), (lambda s: s.is_in([1]), "str and int"),
    (lambda s: s.hash_bucket(0), "1 to 2\\^31"), (lambda n: n * math.nan, "NaN"), (lambda n: n * 2**63, "64 bits"), (lambda s: s + "\ud800", "surrogates"),
    (lambda n: n * [1], "A constant is"), (lambda n: None, "returned None"), (lambda n: 5, "returned 5"), (lambda nn: nn, "did you mean 'n'"),
    (lambda feature: feature, "takes 'feature'"), (lambda *n: n, "without \\*"), (lambda: 5, "takes no feature"), (lambda n: SYMBOLS[0] + n, "takes 'x'")]


@pytest.mark.parametrize(("function", "says"), BAD)
def test_a_wrong_definition_says_what_to_write(function: Callable[..., Any], says: str) -> None:
    trace("leak", lambda x: SYMBOLS.append(x) or x, KINDS)
    with pytest.raises(DefinitionError, match=says) as caught:
        trace("feature", function, {**KINDS, "feature": "int"})
    assert caught.value.came
    assert caught.value.allowed
    assert caught.value.fix


def test_a_constant_time_needs_a_zone() -> None:
    with pytest.raises(InvalidTime, match="has no zone"):
        trace("f", lambda u: u > datetime(2013, 5, 1), KINDS)  # noqa: DTZ001 - the naive time is the point


@pytest.mark.parametrize(("derived", "inputs", "says"), [
    ([DerivedSpec("a", ("b",), [["input", "int", [], "b"]], "int")], ["bb"], "did you mean 'bb'"),
    ([DerivedSpec("a", ("b",), [["input", "int", [], "b"]], "int")], ["a", "b"], "'a' is used twice"),
    ([DerivedSpec("a", ("b",), [["input", "int", [], "b"]], "float")], ["b"], "declared float"),
    ([DerivedSpec("a", ("b",), [["input", "int", [], "b"]], "int"), DerivedSpec("b", ("c",), [["input", "str", [], "c"]], "str")], ["c"], "takes 'b' as int")])
def test_derived_features_that_do_not_fit_are_refused(derived: list[DerivedSpec], inputs: list[str], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        compile_kernel(derived, inputs)
