"""Davy: features that are the same in training and in serving, and predictions that can be proven.

A feature is a function of (entity, what was known at time *t*). Training and serving call the same function:

    events ──▶ features ──▶ training ──▶ tracking ──▶ registry ──▶ serving ──▶ predictions ──▶ replay
    (log)      (one def)    (snapshot,   (runs)       (versions)   (traffic     (vector, t,    (equal,
       ▲                     capture)                               split)       watermark)     bit for bit)
       └───────────────────────── outcomes (what turned out to be true) ◀──────────────┘

The folders are the stages of that route: `events`, `features` (with `engines`, which move rows), `training`,
`tracking`, `registry`, `serving`, `release`. Below them lie `core` (pure rules), `store` (where bytes live) and `schema`
(the tables); above them `server`, `web` and `cli`. Every name here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from davy import errors as errors
    from davy.core.fields import Decimal as Decimal
    from davy.core.fields import Float as Float
    from davy.core.fields import Time as Time
    from davy.features.define import Outcome as Outcome
    from davy.features.define import Stream as Stream
    from davy.features.define import View as View
    from davy.features.define import agg as agg
    from davy.features.define import derive as derive
    from davy.features.define import model as model

__version__ = "0.1.0"

_HOMES = {
    "davy.core.fields": ("Decimal", "Float", "Time"),
    "davy.features.define": ("Outcome", "Stream", "View", "agg", "derive", "model"),
}
_PUBLIC = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["errors", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("davy.errors")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'davy' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
