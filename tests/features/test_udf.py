"""Udfs: what travels with a version, what is refused, and that they compute the same everywhere."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import hypot
from typing import Any

import msgspec
import pytest

import davy
from davy.errors import DefinitionError, InvalidInput, UdfFailed
from davy.features.define import Resolver, Stream, Udf, View, agg
from davy.features.definition import DerivedSpec, FeatureSet
from davy.features.expression import compile_kernel
from davy.features.udf import _literal as literal

LIMIT, NAMES, PATTERN = 2.5, {"books": 1, "food": 2}, re.compile("x")
TABLE = list(range(200_000))
calls = 0


class Shop(StrEnum):
    BOOKS = "books"


MEMBER = Shop.BOOKS
payments = Stream("payments", time="at", fields={"card": str, "amount": float})


class Card(View):
    stream, entity = payments, "card"
    count_1h = agg.count(window="1h")
    mean_1d = agg.mean("amount", window="1d")


def scaled(value: float) -> float:
    return value * LIMIT


@davy.udf
def digits(amount, shop) -> int | None:  # type: ignore[no-untyped-def]
    """The digits of a text, and more."""
    if amount is None:
        return None
    while amount > 10:
        amount = scaled(amount) / 5
    return NAMES.get(shop, 0) + int(amount) + len(re.findall("[0-9]", shop or ""))


@davy.udf(kind=float)
def far(digits, double):  # type: ignore[no-untyped-def]
    return None if double is None else hypot(digits or 0, double) + math.pi + statistics.fmean([1.0, 2.0])


@davy.derive
def double(amount):  # type: ignore[no-untyped-def]
    return amount * 2


@davy.derive
def after(far, count_1h):  # type: ignore[no-untyped-def]
    return far + count_1h


@davy.udf
def tomorrow(asked) -> davy.Time:  # type: ignore[no-untyped-def]
    return asked + timedelta(days=1)


KINDS: dict[str, Any] = {"amount": "float", "shop": "str", "asked": "time", "n": "int"}


def feature_set(*listed: Any) -> FeatureSet:
    return Resolver([Card], [digits, far, double, after, tomorrow]).feature_set(
        listed, entities=["card"], request={"amount": float, "shop": str, "asked": davy.Time})


def test_udfs_and_derived_features_use_each_other_in_any_order() -> None:
    found = feature_set(Card, after, far)
    assert [spec.name for spec in found.derived] == ["digits", "double", "far", "after"]
    inputs = ["count_1h", "amount", "shop"]
    rows = [(3, 40.0, "food4"), (0, 1.0, "books"), (1, None, None)]
    obvious = []
    for count, amount, shop in rows:
        twice = None if amount is None else amount * 2
        value = far(digits(amount, shop), twice)
        obvious.append([digits(amount, shop), twice, value, None if value is None else value + count])
    assert compile_kernel(found.derived, inputs).many(rows) == obvious  # type: ignore[attr-defined]
    here = compile_kernel(found.derived, inputs, udfs_here=True)
    assert [list(here(row)) for row in rows] == obvious
    assert list(compile_kernel(found.derived, inputs)(rows[0])) == obvious[0]


def test_times_come_and_go_as_aware_datetimes() -> None:
    (spec,) = feature_set(tomorrow).derived
    assert spec.kind == "time"
    assert compile_kernel([spec], ["asked"], udfs_here=True)([86_400_000_000]) == (2 * 86_400_000_000,)


def test_the_program_holds_all_that_the_function_names_and_survives_as_json() -> None:
    (spec,) = feature_set(digits).derived
    assert spec.program is not None
    namespace: dict[str, Any] = {}
    exec(spec.program, namespace)
    assert namespace["digits"](40.0, "food4") == digits(40.0, "food4")
    assert "PATTERN" not in spec.program
    assert "@" not in spec.program
    assert msgspec.json.decode(msgspec.json.encode(spec), type=DerivedSpec) == spec


def test_what_a_udf_names_changes_the_digest_of_its_feature_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = feature_set(digits).digest
    assert feature_set(digits).digest == before
    monkeypatch.setitem(globals(), "LIMIT", 3.5)
    assert feature_set(digits).digest != before


def test_a_davy_that_does_not_know_udfs_refuses_to_compute_one() -> None:
    """It would read the expression alone."""
    (spec,) = feature_set(tomorrow).derived
    with pytest.raises(DefinitionError, match="operation 'udf'"):
        compile_kernel([msgspec.structs.replace(spec, program=None)], ["asked"])


def test_an_interrupted_udf_leaves_no_answer_behind() -> None:
    kernel: Any = compile_kernel([spec_of("import time; time.sleep(30 if n == 0 else 0); return n")], ["n"])
    assert kernel([1]) == (1,)
    handler = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            kernel([0])
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert kernel([2]) == (2,)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_feature_set_without_udfs_keeps_its_digest() -> None:
    assert b"program" not in msgspec.json.encode(feature_set(double))


def lines(function: Callable[..., Any]) -> DerivedSpec:
    return Udf(function).spec(KINDS)


def with_chance(n) -> float:  # type: ignore[no-untyped-def]
    return random.random() * n


def with_import(n) -> str:  # type: ignore[no-untyped-def]
    import os.path

    return os.path.sep * n


def with_package(n) -> int:  # type: ignore[no-untyped-def]
    import numpy

    return int(numpy.abs(n))


def with_today(n) -> int:  # type: ignore[no-untyped-def]
    return datetime.today().year + n  # type: ignore[no-any-return] # noqa: DTZ002


def with_object(n) -> bool:  # type: ignore[no-untyped-def]
    return PATTERN.search(str(n)) is not None


def with_file(n) -> str:  # type: ignore[no-untyped-def]
    return open(str(n)).read()


def with_memory(n) -> int:  # type: ignore[no-untyped-def]
    global calls
    calls += 1
    return calls


def with_feature(n) -> int:  # type: ignore[no-untyped-def]
    return digits(n, "")  # type: ignore[no-any-return]


def with_nobody(n) -> int:  # type: ignore[no-untyped-def]
    return nobody(n)  # type: ignore[name-defined] # noqa: F821


def with_default(n, m=1) -> int:  # type: ignore[no-untyped-def]
    return n + m  # type: ignore[no-any-return]


def without_kind(n):  # type: ignore[no-untyped-def]
    return n


def with_a_list(n) -> list[int]:  # type: ignore[no-untyped-def]
    return [n]


@pytest.mark.parametrize(("function", "says"), [
    (with_chance, "module 'random'"), (with_import, "module 'os.path'"), (with_package, "module 'numpy'"), (with_today, "asks for 'today'"),
    (with_object, "'PATTERN', a Pattern"),
    (with_file, "'open', which reaches beyond"), (with_memory, "changes the global 'calls'"), (with_feature, "'digits', a Udf"),
    (with_nobody, "'nobody', which is not defined"), (with_default, "takes m=1"), (without_kind, "does not say what it returns"),
    (with_a_list, "returns list"), (lambda n: n, "plain function"), (math.sin, "plain function")])
def test_what_can_not_travel_is_refused(function: Callable[..., Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        Udf(function).spec({"n": "int", "m": "int"} if function is with_default else {"n": "int"})


def with_table(n) -> int:  # type: ignore[no-untyped-def]
    return len(TABLE) + n  # type: ignore[no-any-return]


def with_member(n) -> int:  # type: ignore[no-untyped-def]
    return len(MEMBER) + n  # type: ignore[no-any-return]


def test_a_program_is_bounded_and_holds_plain_values_only() -> None:
    with pytest.raises(DefinitionError, match="at most 1,000,000"):
        lines(with_table)
    with pytest.raises(DefinitionError, match="'MEMBER', a Shop"):
        lines(with_member)


@pytest.mark.parametrize("value", [
    None, True, -3, 2.5, math.inf, -0.0, "a'\n\u00df", b"\x00", (), (1,), [1, [2.0, None]], {"a": (1, 2), 3: {"b"}}, frozenset("xyz")])
def test_a_constant_survives_as_text(value: Any) -> None:
    text = literal(value)
    assert text is not None
    found = eval(text)
    assert (type(found), found) == (type(value), value)
    assert not isinstance(value, float) or repr(found) == repr(value)


def test_an_argument_that_names_nothing_is_refused() -> None:
    @davy.udf
    def lost(amont) -> float:  # type: ignore[no-untyped-def]
        return amont  # type: ignore[no-any-return]

    with pytest.raises(DefinitionError, match="'amont'"):
        feature_set(lost)


def spec_of(body: str, kind: str = "int", name: str = "f") -> DerivedSpec:
    return DerivedSpec(name, ("n",), [["input", "int", [], "n"]], kind, f"def {name}(n):\n    {body}\n")  # type: ignore[arg-type]


@pytest.mark.parametrize(("body", "kind", "says"), [
    ("return 1 // n", "int", "raised ZeroDivisionError: .* in 'return 1 // n'"), ("return 'x'", "int", r"returned 'x' \(str\), and it is declared int"),
    ("return True", "int", "declared int"), ("return 2**63", "int", "declared int"), ("return float('nan')", "float", "declared float"),
    ("return 10**400", "float", "declared float"), ("return 1", "bool", "declared bool"), ("return '\\ud800'", "str", "declared str"),
    ("import datetime; return datetime.datetime(2020, 1, 1)", "time", "no zone"), ("raise SystemExit(3)", "int", "raised SystemExit"),
    ("return f(n)", "int", "raised RecursionError")])
def test_a_failure_is_an_error_that_names_the_udf(body: str, kind: str, says: str) -> None:
    with pytest.raises(UdfFailed, match=f"'f' .*{says}|{says}") as caught:
        compile_kernel([spec_of(body, kind)], ["n"], udfs_here=True)([0])
    assert "'f'" in caught.value.came


def test_an_error_elsewhere_names_the_row_and_spares_the_process() -> None:
    kernel: Any = compile_kernel([spec_of("return 6 // n")], ["n"])
    with pytest.raises(UdfFailed, match=r"^Row 2: The udf 'f' raised ZeroDivisionError"):
        kernel.many([[1], [2], [0]])
    assert kernel.many([[1], [3]]) == [[6], [2]]


def test_a_udf_that_ends_its_process_is_told_and_the_next_row_finds_a_new_one() -> None:
    kernel: Any = compile_kernel([spec_of("import os; return os._exit(3) if n == 0 else n")], ["n"])
    with pytest.raises(UdfFailed, match=r"'?f'? ended with 3"):
        kernel.many([[1], [0]])
    assert kernel([5]) == (5,)


def test_an_overflow_of_a_derived_feature_stays_the_caller_s_error() -> None:
    big = DerivedSpec("big", ("f",), [["input", "int", [], "f"], ["multiply", "int", [0, 0], None]], "int")
    with pytest.raises(InvalidInput, match="'big' computed"):
        compile_kernel([spec_of("return n"), big], ["n"])([2**62])


def test_what_a_udf_prints_does_not_disturb_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert compile_kernel([spec_of("print('hello'); return n")], ["n"])([7]) == (7,)
    assert "hello" in capfd.readouterr().err


def test_it_runs_in_another_process() -> None:
    assert compile_kernel([spec_of("import os; return os.getpid()")], ["n"])([7]) != (os.getpid(),)


@pytest.mark.parametrize("body", ["import random; return random.getrandbits(60)", "import time; return time.time_ns()", "return hash(str(n))",
                                  "f.calls = getattr(f, 'calls', 0) + 1; return f.calls",
                                  "return int(''.join(str(ord(text)) for text in {'a', 'b', 'c', 'd', 'e'}))"])
def test_a_result_that_does_not_depend_on_its_arguments_alone_is_refused(body: str) -> None:
    kernel: Any = compile_kernel([spec_of(body)], ["n"])
    rows = [(number,) for number in range(40)]
    with pytest.raises(UdfFailed, match=r"'f' gave .* and then .* for the same row"):
        kernel.check_repeatable(rows, kernel.many(rows))


def test_a_function_edited_after_it_was_loaded_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "edited.py"
    path.write_text("def f(n) -> int:\n    return n + 1\n")
    namespace: dict[str, Any] = {"__name__": "edited"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    path.write_text("def f(n) -> int:\n    return max(n, 2)\n")
    with pytest.raises(DefinitionError, match="is not what runs"):
        Udf(namespace["f"]).spec({"n": "int"})


def test_the_function_can_still_be_called() -> None:
    assert tomorrow(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 2, tzinfo=UTC)
    assert repr(tomorrow) == "udf 'tomorrow'"
