"""Typed values become the model's floats the same way for one request and for a training matrix."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davy.errors import DefinitionError, InvalidInput
from davy.registry.signature import Column, Signature

KINDS = ("int", "float", "decimal", "str", "bool", "time")
CATEGORIES = ("", "B6", "DL", "Zürich", "ü")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**62), 2**62), "float": st.floats(allow_nan=False, allow_infinity=False), "decimal": st.floats(-1e12, 1e12),
    "str": st.sampled_from([*CATEGORIES, "unseen", "B"]), "bool": st.booleans(), "time": st.integers(-(2**55), 2**57),
}


def _signature(kinds: list[str]) -> Signature:
    names = [f"c{index}" for index in range(len(kinds))]
    return Signature.of(names, kinds, dict.fromkeys(names, CATEGORIES), output="probability", classes=[False, True])  # type: ignore[arg-type]


def _oracle(kind: str, value: Any) -> float:
    if value is None:
        return math.nan
    if kind == "str":
        return float(CATEGORIES.index(value)) if value in CATEGORIES else math.nan
    return float(value)


def _bits(row: list[float]) -> list[bytes]:
    return [struct.pack("<d", value) for value in row]


@given(st.data())
def test_encoding_is_the_obvious_one_bit_for_bit_and_numpy_agrees(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
    signature = _signature(kinds)
    rows = [[data.draw(st.none() | VALUES[kind]) for kind in kinds] for _ in range(3)]
    expected = [[_oracle(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows]
    found = signature.encode_many(rows)
    assert [_bits(row) for row in found] == [_bits(row) for row in expected]
    assert [_bits(signature.encode(row)) for row in rows] == [_bits(row) for row in expected]
    for index, kind in enumerate(kinds):
        column = [row[index] for row in rows]
        if kind != "str" and None not in column:
            assert np.asarray(column).astype(np.float64).tobytes() == b"".join(_bits([row[index] for row in found]))


@given(st.lists(st.sampled_from(KINDS), max_size=6))
def test_a_signature_comes_back_from_json_and_encodes_alike(kinds: list[str]) -> None:
    signature = _signature(kinds)
    again = msgspec.json.decode(msgspec.json.encode(signature), type=Signature)
    assert again == signature
    row = [None] * len(kinds)
    assert _bits(again.encode(row)) == _bits(signature.encode(row))


def test_names_and_categorical_columns() -> None:
    signature = Signature.of(["a", "b"], ["str", "int"], {"a": ["x"]})
    assert signature.names == ("a", "b")
    assert signature.categorical == [0]
    assert signature.columns[0] == Column("a", "str", ("x",))


@pytest.mark.parametrize(("kind", "value"), [("int", "1"), ("float", [1.0]), ("str", 1), ("str", ["x"]), ("bool", "yes"),
                                            ("float", object()), ("int", 10**400)])
def test_a_value_of_another_kind_is_named(kind: str, value: object) -> None:
    with pytest.raises(InvalidInput, match="'c1'"):
        _signature(["int", kind]).encode([1, value])
    with pytest.raises(InvalidInput, match="'c1'"):
        _signature(["int", kind]).encode_many([[1, None], [1, value]])


@pytest.mark.parametrize("row", [[], [1], [1, 2, 3]])
def test_another_number_of_values_is_told(row: list[int]) -> None:
    with pytest.raises(InvalidInput, match="2 columns"):
        _signature(["int", "int"]).encode(row)


def test_a_model_without_inputs_encodes_nothing() -> None:
    assert _signature([]).encode([]) == []
    with pytest.raises(InvalidInput):
        _signature([]).encode([1])


@pytest.mark.parametrize("categories", [{}, {"a": ["b", "a"]}, {"a": ["a", "a"]}])
def test_a_text_column_needs_a_sorted_vocabulary(categories: dict[str, list[str]]) -> None:
    with pytest.raises(DefinitionError, match="'a'"):
        Signature.of(["a"], ["str"], categories)


def test_a_text_without_a_vocabulary_stays_a_text() -> None:
    made = Signature((Column("city", "str"), Column("amount", "float"), Column("plan", "str", ("free", "gold"))))
    assert made.texts
    assert made.encode(["東京", 2, "gold"]) == ["東京", 2.0, 1.0]
    assert made.encode([None, 1.5, "free"]) == [None, 1.5, 0.0]
    with pytest.raises(InvalidInput, match="'city' got 7"):
        made.encode([7, 1.0, "free"])
    again = msgspec.json.decode(msgspec.json.encode(made), type=Signature)
    assert again.encode_many([["a", 1, None]])[0][:2] == ["a", 1.0]
    assert not _signature(["str", "int"]).texts
