"""What the programs share: each step is named, and the first wrong value ends the program."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

warnings.filterwarnings("ignore")
os.environ.setdefault("MPLBACKEND", "agg")
_started = time.perf_counter()


def same(found: object, wanted: object, what: str = "") -> None:
    """Refuse anything but what is wanted."""
    if found != wanted:
        raise SystemExit(f"wrong{' ' + what if what else ''}: {found!r} instead of {wanted!r}")


def true(condition: object, what: str) -> None:
    if not condition:
        raise SystemExit(f"wrong: {what}")


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """One thing that is checked."""
    before = time.perf_counter()
    yield
    print(f"ok {name} ({time.perf_counter() - before:.2f} s)", flush=True)


@contextlib.contextmanager
def refused(code: str, *parts: str) -> Iterator[None]:
    """The client sees this code, and these parts in the text."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        same(error.error_code, code, f"code of {str(error)[:300]!r}")
        for part in parts:
            true(part in str(error), f"{part!r} is not in {error!s}")
    else:
        raise SystemExit(f"wrong: nothing was refused, {code} was expected")
