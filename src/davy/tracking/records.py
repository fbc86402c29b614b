"""What the tracking store speaks, and what it accepts. Times are microseconds here and milliseconds in the tables."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from davy.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG, LONGEST_EXPERIMENT, LONGEST_PATH = 250, 6000, 8000, 500, 2000
RUN_NAME, USER, SOURCE, COMMIT, PARENT = "mlflow.runName", "mlflow.user", "mlflow.source.name", "mlflow.source.git.commit", "mlflow.parentRunId"
_KEY = re.compile(r"[/\w.\- :]+")
_BAD_PATH = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")
LARGEST_STEP = 2**63 - 1
_ASIDE = ("_rows", "_seconds", "_low", "_high")


class Experiment(msgspec.Struct, frozen=True):
    """A named set of runs."""

    id: int
    name: str
    lifecycle: Literal["active", "deleted"]
    artifact_location: str
    created: int
    updated: int
    tags: dict[str, str] = {}


class RunRecord(msgspec.Struct, frozen=True):
    """A run as stored: `metrics` holds the latest value of each key, the one with the highest step."""

    id: str
    name: str
    experiment_id: int
    experiment: str
    status: Status
    user: str
    started: int
    ended: int | None
    lifecycle: Literal["active", "deleted"]
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}

    @property
    def commit(self) -> str | None:
        """The git commit that it ran from."""
        return self.tags.get(COMMIT)

    @property
    def parent(self) -> str | None:
        """The id of the run that it belongs to."""
        return self.tags.get(PARENT)


class Artifact(msgspec.Struct, frozen=True):
    """A file, or a folder (without digest and size), of a run or logged model."""

    path: str
    is_dir: bool
    size: int | None = None
    digest: str | None = None


@lru_cache(4096)
def check_key(kind: str, key: str) -> str:
    """The key of a metric, param or tag, if it may be one."""
    if not isinstance(key, str) or len(key) > LONGEST_KEY or not _KEY.fullmatch(key) or _not_normal(key):
        raise InvalidInput(f"{key!r} can't be the key of a {kind}.",
                           f"A key has 1 to {LONGEST_KEY} letters, digits, '_', '-', '.', ' ', ':' or '/', and reads as a relative path without '..'.",
                           "Rename it.")
    return key


def check_value(kind: str, key: str, value: object, longest: int) -> str:
    """The text of a param or tag, if it is short enough."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > longest:
        raise InvalidInput(f"The {kind} {key!r} has {len(text)} characters.", f"A {kind} has at most {longest}.",
                           "Shorten it, or log it as an artifact.")
    return text


def check_number(key: str, value: Any) -> float:
    """The float of a metric: anything that is a number, NaN and infinities included, but no bool and no text."""
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes)) or type(value).__name__ in ("bool", "bool_") or not hasattr(value, "__float__"):
        raise InvalidInput(f"The metric {key!r} got {value!r} ({type(value).__name__}).", "A metric is a number.",
                           "Log texts as params or tags, bools as 0 or 1.")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"The metric {key!r} got {value!r}, which is no float.", "A metric is one number in the range of a double.",
                           "Log a single number.") from error


def check_step(key: str, step: Any) -> int:
    """The step as an int64."""
    if type(step) is int and -LARGEST_STEP <= step <= LARGEST_STEP:
        return step
    if isinstance(step, bool) or not hasattr(step, "__index__") or not -LARGEST_STEP - 1 <= int(step) <= LARGEST_STEP:
        raise InvalidInput(f"The metric {key!r} got the step {step!r}.", "A step is a whole number in 64 bits.", "Pass step=int(...).")
    return int(step)


def check_path(path: str) -> str:
    """An artifact's path: relative, with '/', without '..', so that it stays inside the folder that it is downloaded to."""
    if not isinstance(path, str):
        raise InvalidInput(f"A {type(path).__name__} came as the path of an artifact.", "The value comes first, then the file's name.",
                           'Write for example run.json({"auc": 0.7}, "scores.json")')
    if not path or len(path) > LONGEST_PATH or _not_normal(path) or _BAD_PATH.search(path):
        raise InvalidInput(f"{path!r} can't be the path of an artifact.", "It is relative, with '/', without '..', control characters or backslashes.",
                           "Rename it.")
    return path


def _not_normal(path: str) -> bool:
    return path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/"))


def telling_metrics(runs: Iterable[RunRecord], most: int, first: str | None = None) -> list[str]:
    """The few metrics that say most about these runs: `first`, then those of the test, then the others, those of most runs first.

    Counts, seconds, the ends of intervals and what the machine did come last.
    """
    counts: dict[str, int] = {}
    for run in runs:
        for key in run.metrics:
            counts[key] = counts.get(key, 0) + 1

    def rank(key: str) -> tuple[Any, ...]:
        return key != first, key.endswith(_ASIDE) or key.startswith("system/"), not key.startswith("test"), -counts[key], key

    found = sorted(counts, key=rank)[:most]
    return found if first is None or first in found else [first, *found[: most - 1]]
