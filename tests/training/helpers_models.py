"""Models of a user's own, importable by name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


class Mean:
    """Answers with the mean of the labels."""

    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return np.full(len(matrix), self.value)


class Forgetful(Mean):
    """Loses what it knows when it is saved."""

    def __getstate__(self) -> dict[str, Any]:
        return {"value": 0.0}


class Gadget(Mean):
    """Would run a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


class Names(Mean):
    """Answers with texts."""

    classes_ = np.array(["no", "yes"])

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return self.classes_[(matrix[:, 0] > 0).astype(int)]
