"""Asking workers and a gateway, one row, many rows, or under load while weights move; runs in the stand's event loop."""

from __future__ import annotations

import asyncio
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from davy.errors import DavyError, ModelFailed, Unavailable
from davy.serving.routes import ModelRoute
from davy.serving.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from davy.serving.gateway import Gateway
    from davy.serving.link import Link
    from davy.serving.routes import VersionRoute

INTERNAL_ERROR = 500
MOST_SILENT = 5
_STRIDE = 1009


class Asked(msgspec.Struct, frozen=True):
    """One request of a rehearsal: when it was begun and answered (seconds), by whom, or with which error."""

    began: float
    ended: float
    status: int
    version: int | None
    error: str | None


class Rehearsal(msgspec.Struct, frozen=True):
    """What clients met while weights moved. `moments` are when each step's weights were set, in seconds."""

    plan: tuple[dict[int, float], ...]
    moments: tuple[float, ...]
    asked: tuple[Asked, ...]


def packed(matrix: np.ndarray) -> Iterator[bytes]:
    """Each row as it goes to a worker (see serving/frames.py)."""
    if matrix.dtype == object:
        return map(msgspec.msgpack.encode, matrix.tolist())
    return (row.tobytes() for row in np.ascontiguousarray(matrix, dtype="<f8"))


async def predict(link: Link, matrix: np.ndarray, batch: int) -> list[Any]:
    """The answers to all rows, in requests of `batch` rows."""
    found: list[Any] = []
    for start in range(0, len(matrix), batch):
        part = matrix[start : start + batch]
        found += await link.predict(len(part), b"".join(packed(part)))
    return found


async def predict_each(link: Link, matrix: np.ndarray) -> list[Any]:
    """The answers to all rows, each asked alone; an error takes the place of an answer that did not come.

    A worker that was silent several times is not waited for again: its last error stands for all other rows.
    """
    found: list[Any] = []
    silent = 0
    for row in packed(matrix):
        try:
            found += await link.predict(1, row)
        except DavyError as error:
            found.append(error)
            silent += isinstance(error, Unavailable)
            if silent >= MOST_SILENT:
                return [*found, *[error] * (len(matrix) - len(found))]
    return found


async def time_pairs(links: Mapping[int, Link], rows: Mapping[int, Sequence[bytes]], pairs: int, seconds: float) -> dict[int, list[float]]:
    """Microseconds of single rows, the versions taking turns, and who begins too."""
    took: dict[int, list[float]] = {version: [] for version in links}
    end = time.perf_counter() + seconds
    for turn in range(pairs):
        for version in links if turn % 2 == 0 else reversed(list(links)):
            row = rows[version][turn % len(rows[version])]
            before = time.perf_counter_ns()
            with suppress(ModelFailed):
                await links[version].predict(1, row)
            took[version].append((time.perf_counter_ns() - before) / 1000)
        if time.perf_counter() > end:
            break
    return took


async def ask(gateway: Gateway, model: str, body: bytes, version: int | None, key: str | None = None) -> tuple[int, Any]:
    """What the server's application makes of it: a DavyError has its status, anything else is a 500."""
    try:
        return 200, msgspec.json.decode(await gateway.predict(model, body, version=version, routing_key=key))
    except DavyError as error:
        return error.status, f"{error.code}: {error.came}"
    except Exception as error:  # noqa: BLE001 - any other exception is what the server answers 500 for; the check tells of it
        return INTERNAL_ERROR, "".join(traceback.format_exception_only(error)).strip()


async def ask_all(gateway: Gateway, model: str, bodies: Sequence[bytes], version: int) -> list[tuple[int, Any]]:
    """`ask` for each, one after the other; fewer answers than bodies when the server was silent (503, 504) several times."""
    found: list[tuple[int, Any]] = []
    for body in bodies:
        found.append(await ask(gateway, model, body, version))
        if found[-1][0] > INTERNAL_ERROR and sum(status > INTERNAL_ERROR for status, _ in found) >= MOST_SILENT:
            break
    return found


async def rehearse(gateway: Gateway, routes: Mapping[int, VersionRoute], plan: Sequence[Mapping[int, float]], asking: Callable[[int], Any],
                   clients: int, seconds: float) -> Rehearsal:
    """Set the weights of each step for `seconds`, while clients ask without a pause.

    Args:
        asking: (turn) -> a coroutine that asks once and returns (status, answer).
    """
    asked: list[Asked] = []
    stop = asyncio.Event()
    set_weights(gateway, plan[0], routes, 1)
    working = [asyncio.create_task(_client(number, asking, asked, stop)) for number in range(clients)]
    moments = [time.perf_counter()]
    await asyncio.sleep(seconds)
    for revision, weights in enumerate(plan[1:], 2):
        set_weights(gateway, weights, routes, revision)
        moments.append(time.perf_counter())
        await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*working)
    return Rehearsal(tuple(dict(weights) for weights in plan), tuple(moments), tuple(asked))


def set_weights(gateway: Gateway, weights: Mapping[int, float], routes: Mapping[int, VersionRoute], revision: int) -> None:
    """What a running gateway does when it has seen new weights."""
    model = next(iter(routes.values())).model
    traffic = Traffic(model, revision, {f"{model}@{version}": weight for version, weight in weights.items()}, 0, "gate")
    gateway.routes.models[model] = ModelRoute(traffic, {version: routes[version] for version in weights})


async def _client(number: int, asking: Callable[[int], Any], asked: list[Asked], stop: asyncio.Event) -> None:
    turn = number
    while not stop.is_set():
        before = time.perf_counter()
        status, answer = await asking(turn)
        asked.append(Asked(before, time.perf_counter(), status, answer["version"] if status == 200 else None, None if status == 200 else str(answer)))
        turn += _STRIDE
