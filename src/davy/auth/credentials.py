"""What a request brings to show who sends it: `Authorization: Basic` or `Bearer`, or the session's cookie."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

from davy.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterable

COOKIE = "davy_session"
MOST_CHARACTERS = 4096


class Basic(NamedTuple):
    """A name with a password, or with a token in its place."""

    name: str
    secret: str


class Bearer(NamedTuple):
    """A token."""

    secret: str


class Cookie(NamedTuple):
    """A session."""

    secret: str


def read_credentials(headers: Any) -> Basic | Bearer | Cookie | None:
    """What the headers bring; `Authorization` counts more than a cookie.

    Raises:
        Unauthenticated: a header that is not as it should be.
    """
    text = headers.get("authorization")
    if text is not None:
        return _authorization(text)
    secret = read_cookie(headers.get_all("cookie"), COOKIE) if "cookie" in headers else None
    return Cookie(secret) if secret else None


def read_cookie(texts: Iterable[str], name: str) -> str | None:
    """One cookie's value. HTTP/2 may send each cookie in a header of its own."""
    for part in ";".join(texts).split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return None


def _authorization(text: str) -> Basic | Bearer:
    scheme, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if len(text) > MOST_CHARACTERS:
        raise _malformed(f"The header Authorization has {len(text)} characters.")
    if scheme.lower() == "bearer" and rest:
        return Bearer(rest)
    if scheme.lower() != "basic":
        raise _malformed("The header Authorization is neither Basic nor Bearer.")
    try:
        name, colon, secret = b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeError, ValueError):
        raise _malformed("The header Authorization is not Basic as it should be.") from None
    if not colon or not name or "\0" in name:
        raise _malformed("The header Authorization is not Basic as it should be.")
    return Basic(name.strip().lower(), secret)


def _malformed(came: str) -> Unauthenticated:
    return Unauthenticated(came, "It is `Basic` with base64 of name:password, or `Bearer` with a token.", "Make a token: davy token new")
