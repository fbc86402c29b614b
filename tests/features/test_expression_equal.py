"""The generated kernel against the obvious interpreter, bit for bit, over random trees and rows."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from davy.errors import DefinitionError, InvalidInput
from davy.features.definition import DerivedSpec
from davy.features.expression import compile_kernel, trace
from features.expression_oracle import OutOfReach, TooLarge, evaluate, spell
from features.expression_trees import KINDS, ROWS, typed_trees

HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def bits(value: Any) -> Any:
    return type(value).__name__, struct.pack("<d", value) if type(value) is float else value


def traced(name: str, tree: Any) -> DerivedSpec:
    arguments = ", ".join(KINDS)
    return trace(name, eval(f"lambda {arguments}: spell(tree, dict({', '.join(f'{key}={key}' for key in KINDS)}))", {"spell": spell, "tree": tree}), KINDS)


def expected(tree: Any, row: dict[str, Any]) -> Any:
    try:
        return bits(evaluate(tree, row))
    except TooLarge:
        return TooLarge
    except OutOfReach:
        return assume(False)


@settings(max_examples=200, deadline=None, suppress_health_check=HEALTH)
@given(typed_trees(), st.lists(ROWS, min_size=1, max_size=5))
def test_kernel_equals_interpreter(typed: tuple[str, Any], rows: list[dict[str, Any]]) -> None:
    kind, tree = typed
    spec = traced("feature", tree)
    assert spec.kind == kind
    kernel = compile_kernel([spec], list(KINDS))
    for row in rows:
        want = expected(tree, row)
        if want is TooLarge:
            with pytest.raises(InvalidInput, match="'feature'"):
                kernel([row[name] for name in KINDS])
        else:
            assert bits(kernel([row[name] for name in KINDS])[0]) == want, kernel.source


@settings(max_examples=40, deadline=None, suppress_health_check=HEALTH)
@given(st.lists(typed_trees(), min_size=2, max_size=5), ROWS)
def test_features_compiled_together_are_what_they_are_alone(typed: list[tuple[str, Any]], row: dict[str, Any]) -> None:
    trees = [tree for _, tree in typed]
    kernel = compile_kernel([traced(f"f{number}", tree) for number, tree in enumerate(trees)], list(KINDS))
    want = [expected(tree, row) for tree in trees]
    if TooLarge in want:
        with pytest.raises(InvalidInput):
            kernel([row[name] for name in KINDS])
    else:
        assert [bits(value) for value in kernel([row[name] for name in KINDS])] == want


@settings(max_examples=50, deadline=None, suppress_health_check=HEALTH)
@given(typed_trees())
def test_json_gives_the_same_kernel(typed: tuple[str, Any]) -> None:
    spec = traced("feature", typed[1])
    stored = msgspec.json.decode(msgspec.json.encode(spec), type=DerivedSpec)
    assert stored == spec
    assert compile_kernel([stored], list(KINDS)).source == compile_kernel([spec], list(KINDS)).source


def test_a_stored_expression_of_another_version_says_so() -> None:
    spec = DerivedSpec("f", ("x",), [["input", "float", [], "x"], ["sqroot", "float", [0], None]], "float")
    with pytest.raises(DefinitionError, match="did you mean 'sqrt'"):
        compile_kernel([spec], ["x"])


@pytest.mark.parametrize("expression", [[], [["add", "int", [0, 1], None]], [["input"]], 5])
def test_a_damaged_expression_is_refused(expression: Any) -> None:
    with pytest.raises(DefinitionError, match="stored expression"):
        compile_kernel([DerivedSpec("f", (), expression, "int")], [])
