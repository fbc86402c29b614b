"""Davy: features that are the same in training and in serving, and predictions that can be proven.

A feature is a function of (entity, what was known at time *t*). Training and serving call the same function:

    events ──▶ features ──▶ training ──▶ tracking ──▶ registry ──▶ serving ──▶ predictions ──▶ replay
    (log)      (one def)    (snapshot,   (runs)       (versions)   (traffic     (vector, t,    (equal,
       ▲                     capture)                               split)       watermark)     bit for bit)
       └───────────────────────── outcomes (what turned out to be true) ◀──────────────┘

The folders are the stages of that route: `events`, `features` (with `engines`, which move rows), `training`,
`tracking`, `registry`, `gate` (what a version shows before it may serve), `serving`, `release`. Below them lie `core`
(pure rules), `store` (where bytes live) and `schema` (the tables); above them `server`, `web` and `cli`. Every name here is
imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from davy import errors as errors
    from davy.api import online as online
    from davy.api import push as push
    from davy.api import runs as runs
    from davy.api import traffic as traffic
    from davy.api import training_set as training_set
    from davy.core.fields import Decimal as Decimal
    from davy.core.fields import Float as Float
    from davy.core.fields import Time as Time
    from davy.features.define import Outcome as Outcome
    from davy.features.define import Stream as Stream
    from davy.features.define import View as View
    from davy.features.define import agg as agg
    from davy.features.define import derive as derive
    from davy.features.define import model as model
    from davy.features.define import udf as udf
    from davy.features.expression import abs as abs  # noqa: A004 - named as the builtin that it stands for
    from davy.features.expression import case as case
    from davy.features.expression import ceil as ceil
    from davy.features.expression import clip as clip
    from davy.features.expression import coalesce as coalesce
    from davy.features.expression import exp as exp
    from davy.features.expression import floor as floor
    from davy.features.expression import hash_bucket as hash_bucket
    from davy.features.expression import is_null as is_null
    from davy.features.expression import log as log
    from davy.features.expression import log1p as log1p
    from davy.features.expression import maximum as maximum
    from davy.features.expression import minimum as minimum
    from davy.features.expression import round as round  # noqa: A004 - named as the builtin that it stands for
    from davy.features.expression import sqrt as sqrt
    from davy.features.expression import when as when
    from davy.features.kpi import kpi as kpi
    from davy.features.training_set import TrainingSet as TrainingSet
    from davy.gate.check import check as check
    from davy.gate.check import failed as failed
    from davy.gate.check import no_data as no_data
    from davy.gate.check import passed as passed
    from davy.tracking import run as run

__version__ = "0.1.0"

_HOMES = {
    "davy.core.fields": ("Decimal", "Float", "Time"),
    "davy.features.define": ("Outcome", "Stream", "View", "agg", "derive", "model", "udf"),
    "davy.features.expression": ("abs", "case", "ceil", "clip", "coalesce", "exp", "floor", "hash_bucket", "is_null", "log", "log1p", "maximum",
                                 "minimum", "round", "sqrt", "when"),
    "davy.features.kpi": ("kpi",),
    "davy.api": ("alias_history", "online", "push", "runs", "traffic", "training_set"),
    "davy.features.training_set": ("TrainingSet",),
    "davy.gate.check": ("check", "failed", "no_data", "passed"),
    "davy.tracking": ("run",),
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
