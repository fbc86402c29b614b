"""Bodies become typed rows, or an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest

from davy.core.fields import Field
from davy.errors import InvalidInput, InvalidTime
from davy.serving.requests import MOST_ROWS, RequestSchema

SCHEMA = RequestSchema("late", [Field("origin", "str"), Field("tail", "int")],
                       [Field("distance", "int"), Field("fare", "decimal", 2), Field("wind", "float", 6), Field("night", "bool"), Field("scheduled", "time")])
BODY = b'{"origin": "JFK", "tail": 7, "distance": 100, "fare": 9.99, "wind": 3, "night": true, "scheduled": "2013-05-01T12:00:00-04:00"}'


def test_one_object_is_one_row_in_stored_form() -> None:
    (row,), many = SCHEMA.decode(BODY)
    assert not many
    assert row.entities == {"origin": "JFK", "tail": 7}
    assert row.request == {"distance": 100, "fare": 999, "wind": 3_000_000, "night": 1, "scheduled": 1367424000000000}


def test_an_array_is_many_rows_whatever_blanks_come_before_it() -> None:
    assert [len(SCHEMA.decode(text)[0]) for text in (b"[]", b" \n[" + BODY + b"," + BODY + b"]")] == [0, 2]


def test_every_field_may_be_null() -> None:
    (row,), _ = SCHEMA.decode(b'{"origin":null,"tail":null,"distance":null,"fare":null,"wind":null,"night":null,"scheduled":null}')
    assert set({**row.entities, **row.request}.values()) == {None}


@pytest.mark.parametrize(("old", "new", "message"), [
    (b"100", b"100.5", "'distance' is of the type float"),
    (b"100", b"1e3", "'distance' is of the type float"),
    (b"100", b"99999999999999999999", "distance"),
    (b"true", b"1", "'night' is of the type int"),
    (b'"JFK"', b"{}", "'origin' is of the type object"),
    (b"9.99", b'"9.99"', "'fare' is of the type str"),
    (b"9.99", b"1e17", "'fare' got 1e+17"),
    (b'"fare"', b'"fair"', "unknown"),
    (b'"tail": 7, ', b"", "'tail' is missing"),
    (b"9.99", b"Infinity", "not JSON"),
])
def test_what_is_wrong_is_named(old: bytes, new: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.decode(BODY.replace(old, new))
    assert message in caught.value.came


def test_a_naive_time_is_an_invalid_time_that_names_the_field_and_the_row() -> None:
    naive = BODY.replace(b"-04:00", b"")
    with pytest.raises(InvalidTime, match=r"The field 'scheduled': .* has no zone"):
        SCHEMA.decode(naive)
    with pytest.raises(InvalidTime, match="Row 1: The field 'scheduled'"):
        SCHEMA.decode(b"[" + BODY + b"," + naive + b"]")


def test_an_unknown_field_says_what_was_meant() -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.decode(BODY.replace(b'"night"', b'"nigth"'))
    assert "night" in str(caught.value)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(InvalidInput, match="10001 rows"):
        SCHEMA.decode(b"[" + b",".join([BODY] * (MOST_ROWS + 1)) + b"]")


def test_several_versions_ask_for_what_all_need() -> None:
    one = RequestSchema("late@1", [Field("origin", "str")], [Field("distance", "int")])
    two = RequestSchema("late@2", [Field("origin", "str")], [Field("carrier", "str")])
    both: Any = RequestSchema.union("late", [one, two])
    assert both.decode(b'{"origin": "JFK", "distance": 1, "carrier": "B6"}')[0][0].request == {"distance": 1, "carrier": "B6"}
    with pytest.raises(InvalidInput, match="'carrier' is missing"):
        both.decode(b'{"origin": "JFK", "distance": 1}')
