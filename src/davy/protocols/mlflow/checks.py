"""What MLflow's server refuses, in its words: clients and tools match on them."""

from __future__ import annotations

import json
import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from davy.protocols.mlflow.wire import MlflowError, invalid, required_missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from davy.protocols.mlflow.wire import KeyValue

LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG, LONGEST_EXPERIMENT_TAG, LONGEST_NAME = 250, 6000, 8000, 20_000, 500
MOST_METRICS, MOST_PARAMS, MOST_TAGS, MOST_TOGETHER = 1000, 100, 100, 1000
_NAME = re.compile(r"[/\w.\- :]*")
_BAD_CHARACTERS = ("Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/).")
_VIEWS: dict[str | int, Literal["active", "deleted", "all"]] = {
    "ACTIVE_ONLY": "active", 1: "active", "DELETED_ONLY": "deleted", 2: "deleted", "ALL": "all", 3: "all"}
_FARTHEST = (2**63 - 1) // 1000
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")


def bad_value(path: str, value: Any, why: str) -> MlflowError:
    """`Invalid value ... for parameter ...`."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return invalid(f"Invalid value {shown if len(shown) <= 500 else shown[:500] + '...'} for parameter '{path}' supplied: {why}")


def check_name(name: str, path: str) -> str:
    """A key of a metric, param or tag that reads as a relative path. One that is too long anyhow is not remembered."""
    return (_named if len(name) <= LONGEST_KEY else _named.__wrapped__)(name, path)


@lru_cache(4096)
def _named(name: str, path: str) -> str:
    if not _NAME.fullmatch(name):
        raise bad_value(path, name, _BAD_CHARACTERS)
    resolved = posixpath.normpath(name)
    if resolved != name or resolved == "." or resolved.startswith(("..", "/")):
        raise bad_value(path, name, "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
                                    f"This name would resolve to {resolved!r}")
    return name


def check_length(what: str, value: str, limit: int) -> str:
    """The value, if it is not longer."""
    if len(value) > limit:
        raise invalid(f"'{what}' exceeds the maximum length of {limit} characters")
    return value


def check_param(item: KeyValue, path: str = "") -> tuple[str, str]:
    """Key and value of a param; a long value is cut, as MLflow's server does by default."""
    key = check_length("Param key", check_name(item.key or "", _join(path, "key")), LONGEST_KEY)
    return key, (item.value or "")[:LONGEST_PARAM]


def check_tag(item: KeyValue, path: str = "") -> tuple[str, str]:
    """Key and value of a run's tag; a long value is cut."""
    key = check_length(_join(path, "key"), check_name(item.key or "", _join(path, "key")), LONGEST_KEY)
    return key, (item.value or "")[:LONGEST_TAG]


def check_experiment_tag(item: KeyValue) -> tuple[str, str]:
    """Key and value of an experiment's tag; a long value is refused."""
    key = check_length("key", check_name(item.key or "", "key"), LONGEST_KEY)
    return key, check_length("value", item.value or "", LONGEST_EXPERIMENT_TAG)


def check_metric(key: str, value: float, timestamp: int, path: str = "") -> None:
    """A metric's key and time."""
    check_name(key, _join(path, "name"))
    if timestamp < 0:
        raise bad_value(_join(path, "timestamp"), timestamp, f"metric '{key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) ")
    check_length("Metric name", key, LONGEST_KEY)


def check_time(time: int | None, path: str) -> int | None:
    """A time in milliseconds whose microseconds have room in 64 bits."""
    if time is not None and abs(time) > _FARTHEST:
        raise bad_value(path, time, "It is a time in milliseconds since 1970; this one is more than 290,000 years from then.")
    return time


def check_run_id(run_id: str) -> str:
    """An id that a run may have."""
    if not _RUN_ID.fullmatch(run_id):
        raise invalid(f"Invalid value {json.dumps(run_id[:300])} for parameter 'run_id' supplied.")
    return run_id


def check_batch(metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
    """Not more at once than MLflow's server takes."""
    for what, most, count in (("metrics", MOST_METRICS, len(metrics)), ("params", MOST_PARAMS, len(params)), ("tags", MOST_TAGS, len(tags)),
                              ("metrics, params, and tags", MOST_TOGETHER, len(metrics) + len(params) + len(tags))):
        if count > most:
            raise invalid(f"A batch logging request can contain at most {most} {what}. Got {count} {what}. Please split up {what} across multiple requests "
                          "and try again.")


def check_unique(keys: Iterable[str]) -> None:
    """No param twice in one batch."""
    seen: set[str] = set()
    twice: list[str] = []
    for key in keys:
        (twice.append if key in seen else seen.add)(key)
    if twice:
        raise invalid(f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request contains only one param value per param key.")


def check_keys(items: Sequence[KeyValue], path: str) -> None:
    """Each item has a key."""
    for index, item in enumerate(items):
        if not item.key:
            raise required_missing(f"{path}[{index}].key")


def page_size(asked: int | None, default: int, most: int = 50_000) -> int:
    """How many results a page has."""
    if asked is None:
        return default
    if asked < 1:
        raise invalid(f"Invalid value {asked} for parameter 'max_results' supplied. It must be a positive integer")
    if asked > most:
        raise invalid(f"Invalid value {asked} for parameter 'max_results' supplied. It must be at most {most}")
    return asked


def view_of(asked: str | int | None) -> Literal["active", "deleted", "all"]:
    """Which of the active and the deleted are asked for."""
    found = _VIEWS.get(asked or 1)
    if found is None:
        raise bad_value("view_type", asked, "It is one of ACTIVE_ONLY, DELETED_ONLY, ALL.")
    return found


def experiment_number(text: str | None) -> int:
    """The number of an experiment; none is the default one."""
    if not text:
        return 0
    try:
        number = int(text)
        if not -(2**31) <= number < 2**31:
            raise ValueError
        return number
    except ValueError:
        raise invalid(f"Invalid experiment ID '{text[:100]}'. Experiment ID must be a valid integer.") from None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
