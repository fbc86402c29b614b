"""How a version is written, and what can't be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davy.errors import InvalidInput
from davy.registry.reference import Reference, check_alias, check_name, parse_reference


@pytest.mark.parametrize(("text", "reference"), [
    ("late", Reference("late")),
    ("late@latest", Reference("late")),
    ("late@2", Reference("late", version=2)),
    ("late@production", Reference("late", alias="production")),
    ("a model.v1@challenger-2", Reference("a model.v1", alias="challenger-2")),
])
def test_what_is_written_is_meant(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["", "@2", "late@", "late@0", "late@-1", "late@1.5", "late@v2", "late@99999999999", "a/b@1",
                                  "a:b", "late@a@b", " late", ".", ".."])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_reference(text)


@given(st.text(max_size=8), st.integers(1, 2**31 - 1))
def test_a_name_that_is_allowed_can_always_be_referred_to(name: str, version: int) -> None:
    try:
        check_name(name)
    except InvalidInput:
        return
    found = Reference(name, version=version)
    assert parse_reference(str(found)) == found


@given(st.text(max_size=8))
def test_an_alias_that_is_allowed_is_never_taken_for_a_number(alias: str) -> None:
    try:
        check_alias(alias)
    except InvalidInput:
        return
    assert parse_reference(f"late@{alias}") == Reference("late", alias=alias)
