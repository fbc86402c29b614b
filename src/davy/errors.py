"""Every error that Davy raises, on one screen.

Each says three things: what came, what is allowed, what to type next. `status` is the HTTP status it
becomes, `exit_code` the command line's, and `retry` says whether trying the same again can help.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DavyError(Exception):
    """The root: `came` is what was met, `allowed` what would have been right, `fix` what to type next."""

    status = 500
    exit_code = 1
    retry = False

    def __init__(self, came: str, allowed: str = "", fix: str = "") -> None:
        super().__init__(came, allowed, fix)
        self.came, self.allowed, self.fix = came, allowed, fix

    @property
    def code(self) -> str:
        """The name that clients branch on."""
        return type(self).__name__

    def __str__(self) -> str:
        return "\n".join(part for part in (self.came, self.allowed, self.fix) if part)


class InvalidInput(DavyError):
    """A value, a row or a request that can't be taken as it is."""

    status = 400
    exit_code = 2


class DefinitionError(InvalidInput):
    """A stream, view, derived feature or model that contradicts itself or the data."""


class ConfigError(InvalidInput):
    """A setting in davy.toml, or on the command line, that isn't one."""


class InvalidTime(InvalidInput):
    """A time without a zone, out of range, or not a time at all."""


class UnsafeModel(InvalidInput):
    """A model file that would run code which is not on the allow-list."""


class Forbidden(InvalidInput):
    """A request from where none is taken, or for which its sender's role does not suffice."""

    status = 403


class Unauthenticated(InvalidInput):
    """A request of nobody that is known here."""

    status = 401


class TooLarge(InvalidInput):
    """A request body beyond what is taken at once."""

    status = 413


class NotFound(DavyError):
    """There is nothing of that name."""

    status = 404
    exit_code = 2


class Conflict(DavyError):
    """It contradicts what is already there."""

    status = 409
    exit_code = 2


class CorruptData(DavyError):
    """Stored bytes are not the bytes that were written."""

    exit_code = 4


class Different(DavyError):
    """A comparison that had to come out equal did not."""


class NotEnoughData(DavyError):
    """There is too little to judge by: neither a pass nor a failure."""

    status = 409


class Unavailable(DavyError):
    """A part is away for the moment; the same call may succeed later."""

    status = 503
    exit_code = 3
    retry = True


class TimedOut(Unavailable):
    """A part did not answer in the time that it is given."""

    status = 504


class StorageFull(Unavailable):
    """The disk takes no more; what was acknowledged before is safe."""

    status = 507


class TooManyAttempts(Unavailable):
    """Logins that failed one after another; `after` is the number of seconds until the next is looked at."""

    status = 429
    after = 1


class ModelFailed(DavyError):
    """A model's own code raised an error for a request that was in order."""


class UdfFailed(DavyError):
    """A udf raised an error, returned another kind of value than it declares, or two values for one row."""


class MissingExtra(DavyError):
    """A package that an optional part needs is not installed."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the whole list when nothing is near.

    >>> nearest("wether", ["weather", "flights"])
    "did you mean 'weather'?"
    """
    names = sorted(known)
    match = get_close_matches(name, names, n=1)
    if match:
        return f"did you mean {match[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is defined yet"
