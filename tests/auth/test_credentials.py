"""What a request brings, however badly written, is read or refused with a 401."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davy.auth.credentials import MOST_CHARACTERS, Basic, Bearer, Cookie, read_cookie, read_credentials
from davy.errors import Unauthenticated

from .conftest import Headers


def basic(data: bytes) -> str:
    return f"Basic {b64encode(data).decode()}"


@pytest.mark.parametrize(("headers", "found"), [
    ({}, None),
    ({"cookie": "theme=dark"}, None),
    ({"cookie": "davy_session="}, None),
    ({"authorization": basic(b"ada:pass:word")}, Basic("ada", "pass:word")),
    ({"authorization": basic(b"Ada@Example.com:x")}, Basic("ada@example.com", "x")),
    ({"authorization": basic("ada:pässwört".encode())}, Basic("ada", "pässwört")),
    ({"authorization": basic(b"ada:")}, Basic("ada", "")),
    ({"authorization": "bAsIc   " + b64encode(b"a:b").decode() + "  "}, Basic("a", "b")),
    ({"authorization": "Bearer davy_x"}, Bearer("davy_x")),
    ({"authorization": "bearer  davy_x "}, Bearer("davy_x")),
    ({"cookie": "a=b; davy_session=s3cret; c=d"}, Cookie("s3cret")),
    ({"cookie": "a=b\ndavy_session=s3cret\nc=d"}, Cookie("s3cret")),
    ({"authorization": "Bearer t", "cookie": "davy_session=s"}, Bearer("t")),
])
def test_what_is_well_written_is_read(headers: dict[str, str], found: object) -> None:
    assert read_credentials(Headers(headers)) == found


@pytest.mark.parametrize("text", [
    " ", "Basic", "Basic ", "Bearer", "Bearer ", "Digest x", "Negotiate YII=", "davy_x", "Basic x", "Basic ====", "Basic YTpi!", "Basic YTp",
    basic(b"no colon"), basic(b":nameless"), basic(b"\xff\xfe:x"), basic(b"a\0b:c"), "Basic \xe9\xe9\xe9\xe9", "Basic " + "A" * (MOST_CHARACTERS + 4),
    "Bearer " + "x" * (MOST_CHARACTERS + 1),
])
def test_what_is_not_is_a_401(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read_credentials(Headers({"authorization": text, "cookie": "davy_session=good"}))


@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=200))
def test_nothing_else_ever_comes_of_a_header(text: str) -> None:
    try:
        found = read_credentials(Headers({"authorization": text}))
    except Unauthenticated:
        return
    assert isinstance(found, Basic | Bearer)


@given(st.text(max_size=200))
def test_a_cookie_is_found_or_not(text: str) -> None:
    assert read_cookie([text], "davy_session") is None or "davy_session" in text
