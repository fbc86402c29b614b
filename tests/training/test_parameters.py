"""Parameters are typed by the training function itself."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from davy.errors import InvalidInput
from davy.training.parameters import bind_parameters, parse_assignments


def late(data: Any, *, learning_rate: float = 0.1, leaves: int = 31, deep: bool = False, kind: Literal["gbdt", "dart"] = "gbdt",
         columns: list[str] | None = None, depth: int | None = None, seed: int = 0, plain="x") -> None:  # type: ignore[no-untyped-def]
    """A training function."""


def untyped(data, rate=0.1, anything=None):  # type: ignore[no-untyped-def]
    """One without annotations."""


def open_ended(data: Any, *, needed: int, **more: Any) -> None:
    """One that takes anything."""


def test_texts_become_what_the_function_declares() -> None:
    given = {"learning_rate": "0.05", "leaves": "7", "deep": "true", "kind": "dart", "columns": '["a","b"]', "depth": "4", "plain": "3"}
    assert bind_parameters(late, given, seed=9) == {"learning_rate": 0.05, "leaves": 7, "deep": True, "kind": "dart", "columns": ["a", "b"], "depth": 4,
                                                    "seed": 9, "plain": "3"}
    assert bind_parameters(late, {"depth": "null", "seed": "5"})["depth"] is None
    assert bind_parameters(late, {"seed": "5"}, seed=9)["seed"] == 5
    assert bind_parameters(late, {})["seed"] == 0


def test_defaults_are_recorded_and_values_pass() -> None:
    assert bind_parameters(untyped, {"rate": "0.5", "anything": "[1, 2]"}) == {"rate": 0.5, "anything": [1, 2]}
    assert bind_parameters(untyped, {}) == {"rate": 0.1, "anything": None}
    assert bind_parameters(late, {"leaves": 5})["leaves"] == 5
    assert bind_parameters(open_ended, {"needed": 1, "extra": "no", "number": "3"}) == {"needed": 1, "extra": "no", "number": 3}


@pytest.mark.parametrize(("given", "said", "advice"), [
    ({"learning_rat": "0.1"}, "no parameter 'learning_rat'", "learning_rate"),
    ({"learning_rate": "fast"}, "got 'fast'", "learning_rate=0.05"),
    ({"leaves": "1.5"}, "got '1.5'", "leaves=3"),
    ({"leaves": 1.5}, "got 1.5", "leaves=3"),
    ({"deep": "maybe"}, "got 'maybe'", "deep=true"),
    ({"kind": "tree"}, "got 'tree'", "kind="),
    ({"learning_rate": "nan"}, "NaN", "default"),
    ({"data": "x"}, "no parameter 'data'", ""),
])
def test_bad_parameters_say_what_exists(given: dict[str, Any], said: str, advice: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        bind_parameters(late, given)
    assert advice in refused.value.fix


def test_a_parameter_without_default_must_come() -> None:
    with pytest.raises(InvalidInput, match="needs the parameter 'needed'"):
        bind_parameters(open_ended, {})


def test_assignments() -> None:
    assert parse_assignments(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for wrong in (["a"], ["=1"], ["a b=1"], ["a=1", "a=2"]):
        with pytest.raises(InvalidInput):
            parse_assignments(wrong)
