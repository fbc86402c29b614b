"""How a version is written: `late` (the newest), `late@2` (by number), `late@production` (by alias)."""

from __future__ import annotations

import re

import msgspec

from davy.errors import InvalidInput

LONGEST_NAME, LONGEST_ALIAS = 500, 255
_NAME = re.compile(r"[^/:@\x00-\x1f\x7f]+")
_ALIAS = re.compile(r"[\w\-]+")
_RESERVED = re.compile(r"[v-]?\d+|latest", re.IGNORECASE)


class Reference(msgspec.Struct, frozen=True):
    """A model, and at most one of version and alias; neither means the newest version."""

    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        end = self.version if self.version is not None else self.alias
        return self.model if end is None else f"{self.model}@{end}"


def parse_reference(text: str) -> Reference:
    """Read `late`, `late@2`, `late@production` or `late@latest`.

    Raises:
        InvalidInput: none of these.

    >>> parse_reference("late@2")
    Reference(model='late', version=2, alias=None)
    """
    model, at, end = text.partition("@")
    check_name(model)
    if not at or end == "latest":
        return Reference(model)
    if end.isascii() and end.isdigit() and 0 < int(end) < 2**31:
        return Reference(model, version=int(end))
    if _ALIAS.fullmatch(end) and not _RESERVED.fullmatch(end):
        return Reference(model, alias=end)
    raise InvalidInput(f"{text!r} does not name a version.", "A version is MODEL (the newest), MODEL@NUMBER or MODEL@ALIAS.",
                       f"Write for example {model}@1.")


def check_name(name: str) -> str:
    """The name, if a model may have it."""
    if not _NAME.fullmatch(name) or name.strip() != name or set(name) <= {"."} or len(name) > LONGEST_NAME:
        raise InvalidInput(f"{name!r} can't be a model's name.",
                           f"A name has 1 to {LONGEST_NAME} characters without '/', ':' or '@', and no blank at its ends.",
                           "Rename the model.")
    return name


def check_alias(alias: str) -> str:
    """The alias, if a version may have it: not one that reads as a number or as `latest`."""
    if not _ALIAS.fullmatch(alias) or len(alias) > LONGEST_ALIAS or _RESERVED.fullmatch(alias):
        raise InvalidInput(f"{alias!r} can't be an alias.",
                           f"An alias has 1 to {LONGEST_ALIAS} letters, digits, '_' or '-'; 'latest', numbers and 'v' with a number are taken.",
                           "Write for example production.")
    return alias
