"""What a gateway tells a worker to load, and what a worker tells when it can't."""

from __future__ import annotations

from typing import Literal

import msgspec

from davy.core.fields import Kind
from davy.errors import DavyError
from davy.features.definition import DerivedSpec


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker loads: the files of one version in a folder, with their digests.

    Attributes:
        memory: megabytes beyond which it ends, 0 for most of the machine's.
        columns, kinds: the names and kinds of its columns, when it was logged elsewhere.
        derived: the derived features that it computes itself, as udfs are among them; from `inputs`, in this order.
    """

    model: str
    version: int
    format: str
    folder: str
    files: dict[str, str]
    output: Literal["probability", "value", "label"]
    width: int
    project: str
    allow_globals: tuple[str, ...] = ()
    memory: int = 0
    columns: tuple[str, ...] = ()
    derived: tuple[DerivedSpec, ...] = ()
    inputs: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()

    @property
    def texts(self) -> bool:
        """Whether its rows hold texts (see frames.py)."""
        return "str" in self.kinds


class Problem(msgspec.Struct, frozen=True):
    """An error's parts, as they travel from a worker to a gateway."""

    code: str
    came: str
    allowed: str = ""
    fix: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """The parts of any error."""
        if isinstance(error, DavyError):
            return cls(error.code, error.came, error.allowed, error.fix)
        return cls("ModelFailed", f"The model's predict raised {type(error).__name__}: {error}.", "It must answer every row of its signature.",
                   "Find the prediction's features in the request, and mend the model.")
