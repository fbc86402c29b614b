"""What a request brings to show who sends it: `Authorization: Basic` or `Bearer`, or the session's cookie."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any, NamedTuple

from davy.errors import Unauthenticated

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
    text = header(headers, "authorization")
    if text is not None:
        return _authorization(text)
    secret = read_cookie(header(headers, "cookie"), COOKIE)
    return Cookie(secret) if secret else None


def header(headers: Any, name: str) -> str | None:
    """A header's value; one whose bytes are no text is told from one that is missing.

    Raises:
        Unauthenticated: the bytes are no text.
    """
    try:
        found: str | None = headers.get(name)
    except UnicodeError:
        raise _malformed(f"The header {name} is not text.") from None
    return found


def read_cookie(text: str | None, name: str) -> str | None:
    """One cookie's value."""
    for part in (text or "").split(";"):
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
