"""The prediction log: what was answered, with the vector, the time and the watermarks that prove it.

Each gateway process writes a write-ahead log of its own: a prediction is handed to the operating system before it is
answered, so that the end of the process loses nothing, and is on disk within 100 ms (or before the answer, with
`predictions.durability = "acknowledged"`). `flush_predictions` moves all of them into Delta tables, exactly once.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import shutil
import threading
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.clock import SystemClock, new_id
from davy.errors import CorruptData, DavyError, NotFound, Unavailable
from davy.store.wal import Wal, read, truncate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from davy.features.definition import FeatureSet
    from davy.home import Home

SYNC_SECONDS = 0.05
SEGMENT_BYTES = 16 << 20
CHUNK = 20_000
_MOVED, _OWNER, _UNREADABLE = "moved", "owner.lock", "unreadable"
_LOG = logging.getLogger("davy.serving")
OK, ERROR, TIMEOUT, FALLBACK = "ok", "error", "timeout", "fallback"


class PredictionRecord(msgspec.Struct, array_like=True, gc=False):
    """One answer.

    Attributes:
        time: microseconds; the moment as of which the features were read.
        logged: microseconds; when the answer was written down.
        routing_key: what the version was chosen by.
        feature_set: digest of the definitions behind `values`.
        entities, request: as the request gave them, typed (times as microseconds).
        watermarks: per stream the last offset that had been applied.
        values: the vector, in the order of the feature set's outputs.
        output: a number, a label, or one probability per class.
        kernel: which code computed the vector (see features/kernel.py).
        latency, features, model_time: microseconds spent in all, on features, and waiting for the model.
        share: the weight of the version that the request was routed to, in force at that moment; 0 for a shadow, 1 for a pinned version.
        status: `ok`; `error` or `timeout` when the version failed (`output` is None, and with an empty `kernel` there is no vector either);
            `fallback` when this version answered because the one that the request was routed to had failed.
        release: id of the release in force, empty for none.
        answered: of a failure or a shadow, the id of the record that the request was answered with, where there is one.
    """

    id: str
    time: int
    logged: int
    model: str
    version: int
    arm: str
    pinned: bool
    routing_key: str
    feature_set: str
    entities: dict[str, Any]
    request: dict[str, Any]
    watermarks: dict[str, int]
    values: list[Any]
    output: Any
    latency: int
    features: int
    model_time: int
    kernel: str = ""
    share: float = 1.0
    status: str = OK
    release: str = ""
    answered: str = ""


ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(PredictionRecord)


class Unreadable(msgspec.Struct):
    """A line of the file `unreadable`: a record whose feature set is unknown, and where it was. `record` is its MessagePack, in Base64."""

    gateway: str
    position: int
    id: str
    model: str
    version: int
    feature_set: str
    record: bytes


_LINE = msgspec.json.Decoder(Unreadable)


class PredictionLog:
    """The write-ahead log of one gateway process. `append` belongs to one thread; a second one syncs.

    Args:
        folder: `.davy/wal/predictions`; each log makes a folder of its own in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._unsynced: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._dirty, self._stopping = threading.Event(), False
        self._open()
        self._thread = threading.Thread(target=self._keep_syncing, name="prediction-log", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Hand the records to the operating system.

        Raises:
            StorageFull, Unavailable: they were not taken, so they must not be answered.
        """
        payloads = [ENCODER.encode(record) for record in records]
        with self._lock:
            self._wal.append(payloads)
            self._unsynced += payloads
        if not self._dirty.is_set():
            self._dirty.set()

    def on_disk(self) -> asyncio.Future[None]:
        """A future that is done when everything appended so far is on disk."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append(future)
        self._dirty.set()
        return future

    def close(self) -> None:
        """Sync and let go."""
        self._stopping = True
        self._dirty.set()
        self._thread.join()
        self._wal.close()
        os.close(self._owner)

    def _open(self) -> None:
        self.id = new_id(SystemClock())
        directory = self._folder / self.id
        directory.mkdir(parents=True)
        self._owner = _own(directory)
        self._wal = Wal(directory, segment_bytes=SEGMENT_BYTES)

    def _keep_syncing(self) -> None:
        pause = threading.Event()
        while not self._stopping or self._unsynced:
            self._dirty.wait()
            self._dirty.clear()
            if not self._waiting and not self._stopping:
                pause.wait(SYNC_SECONDS)
            if not self._sync():
                pause.wait(SYNC_SECONDS)
                self._dirty.set()
                if self._stopping:
                    return

    def _sync(self) -> bool:
        with self._lock:
            count, self._waiting, waiting = len(self._unsynced), [], self._waiting
        try:
            self._wal.sync()
        except DavyError:
            return self._start_anew(waiting)
        with self._lock:
            del self._unsynced[:count]
        for future in waiting:
            with suppress(RuntimeError):  # the loop is closed already
                future.get_loop().call_soon_threadsafe(_resolve, future)
        return True

    def _start_anew(self, waiting: list[asyncio.Future[None]]) -> bool:
        """After a failed sync the tail was cut off: what was answered meanwhile is written to a new log."""
        with self._lock:
            self._waiting = waiting + self._waiting
            try:
                before, owner = self._wal, self._owner
                self._open()
                self._wal.append(self._unsynced)
            except (DavyError, OSError):
                return False
        with suppress(DavyError):
            before.close()
        os.close(owner)
        self._dirty.set()
        return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _own(directory: Path) -> int:
    """Hold the directory's lock; it is released by the system when the process ends, however it ends."""
    descriptor = os.open(directory / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Unavailable(f"The log {directory} belongs to a running gateway.") from error
    return descriptor


def folder_of(home: Home) -> Path:
    """Where the write-ahead logs of this home's gateways lie."""
    return home.place("wal", "predictions")


def table_name(model: str, feature_set: str) -> str:
    """The Delta table with the predictions of this model on this feature set."""
    return f"predictions/{model}/{feature_set.removeprefix('sha256:')[:12]}"


def flush_predictions(home: Home) -> int:
    """Move what all gateways have logged, dead ones too, into Delta tables, exactly once. Returns how many were moved.

    Any process may call it; one at a time works, the others wait. Records whose feature set is unknown can't be read: they are
    appended to the file `unreadable` beside the logs, a JSON object a line, and a warning names it.
    """
    if not folder_of(home).exists():
        return 0
    with flushing(folder_of(home)), _uncollected():
        return sum(_flush_one(home, directory) for directory in logs_of(home))


@contextmanager
def flushing(folder: Path) -> Iterator[None]:
    """While nothing is moved from the write-ahead logs into tables, or only by this block."""
    descriptor = os.open(folder / "flush.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cycle collector, which would walk through tens of thousands of records again and again; they have no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def logs_of(home: Home) -> list[Path]:
    """The folders of all write-ahead logs, dead gateways' too."""
    folder = folder_of(home)
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def _flush_one(home: Home, directory: Path) -> int:
    finished = _is_finished(directory)
    before, count = moved_of(directory), 0
    moved = before
    records = read(directory, moved)
    while chunk := list(islice(records, CHUNK)):
        count += _append_chunk(home, directory.name, chunk)
        moved = chunk[-1][0]
        scratch = directory / f"{_MOVED}.new"
        scratch.write_text(str(moved))
        scratch.rename(directory / _MOVED)
    if finished:
        shutil.rmtree(directory)
    elif moved > before:
        truncate(directory, moved + 1)
    return count


def _is_finished(directory: Path) -> bool:
    """Whether the gateway that wrote it is gone."""
    try:
        os.close(_own(directory))
    except Unavailable:
        return False
    return True


def moved_of(directory: Path) -> int:
    """Up to which position a log's records are in tables."""
    with suppress(FileNotFoundError, ValueError):
        return int((directory / _MOVED).read_text())
    return 0


def _append_chunk(home: Home, gateway: str, chunk: list[tuple[int, bytes]]) -> int:
    from davy.serving.prediction_frames import to_frame

    decoded = sorted(((position, decode(payload, gateway)) for position, payload in chunk), key=lambda item: (item[1].model, item[1].feature_set, item[0]))
    count = 0
    for (model, feature_set), group in groupby(decoded, key=lambda item: (item[1].model, item[1].feature_set)):
        features = _known_feature_set(home, feature_set)
        if features is None:
            _set_aside(home, gateway, list(group))
            continue
        table, writer = home.table(table_name(model, feature_set)), f"gateway/{gateway}"
        committed = table.committed(writer)
        fresh = [(position, record) for position, record in group if position > committed]
        if fresh:
            table.append(to_frame([record for _, record in fresh], features), writer=writer, position=fresh[-1][0])
            count += len(fresh)
    return count


def _set_aside(home: Home, gateway: str, records: Sequence[tuple[int, PredictionRecord]]) -> None:
    """Keep records that nobody can read now; one that is kept already, because a flush was killed after it, is passed over."""
    from davy.events.streams import replace_file

    path = folder_of(home) / _UNREADABLE
    lines = path.read_bytes().splitlines() if path.exists() else []
    kept = {(line.gateway, line.position) for line in map(_LINE.decode, lines)}
    fresh = [Unreadable(gateway, position, record.id, record.model, record.version, record.feature_set, ENCODER.encode(record))
             for position, record in records if (gateway, position) not in kept]
    replace_file(path, b"".join(line + b"\n" for line in (*lines, *map(msgspec.json.encode, fresh))))
    _LOG.warning("%d predictions of %s were made with the feature set %s, which is not known here: they are in %s instead of a table.",
                 len(fresh), records[0][1].model, records[0][1].feature_set, path)


def decode(payload: bytes, gateway: str) -> PredictionRecord:
    """One record of a gateway's log.

    Raises:
        CorruptData: it is none.
    """
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise CorruptData(f"The prediction log of gateway {gateway} holds a record that is no prediction: {error}.", "",
                          "Move its folder in .davy/wal/predictions away to go on without it.") from error


def feature_set_of(home: Home, digest: str, *, verified: bool = True) -> FeatureSet:
    """The stored feature set of this digest."""
    from davy.registry.definitions import get_feature_set

    with home.database.read() as connection:
        return get_feature_set(connection, digest, verified=verified)


def _known_feature_set(home: Home, digest: str) -> FeatureSet | None:
    try:
        return feature_set_of(home, digest)
    except NotFound:
        return None


def pending_predictions(home: Home) -> list[PredictionRecord]:
    """What gateways have logged and nobody has moved into a table yet (some of it may be in a table already)."""
    found = []
    for directory in logs_of(home):
        with suppress(FileNotFoundError):  # moved and removed meanwhile
            found += [decode(payload, directory.name) for _, payload in read(directory, moved_of(directory))]
    return found


def read_predictions(home: Home, model: str, *, start: int | None = None, end: int | None = None, version: int | None = None) -> dict[str, pl.DataFrame]:
    """The predictions of a model, those of the last seconds too: per feature set's digest a frame in order of time and id.

    Args:
        start, end: microseconds; start <= time < end.

    Returns columns prediction, time, logged_time, model, version, arm, pinned, routing_key, feature_set, entities, request, watermarks
    and features (structs of typed values; absent when they have no field), output, output_json, latency_us, features_us, model_us, kernel,
    share, status, release, answered.
    """
    from davy.serving.prediction_frames import gather

    pending = [record for record in pending_predictions(home) if record.model == model]
    registered = feature_sets_of(home, model)
    found = {}
    for digest in dict.fromkeys([*registered, *(record.feature_set for record in pending)]):
        features = feature_set_of(home, digest, verified=False) if digest in registered else _known_feature_set(home, digest)
        if features is None:
            continue  # the next flush sets these records aside, and says so
        frame = gather(home.table(table_name(model, digest)), features,
                       [record for record in pending if record.feature_set == digest], start=start, end=end, version=version)
        if frame is not None and frame.height:
            found[digest] = frame
    return found


def with_vector(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the failures whose vector could not be computed."""
    import polars as pl

    return frame.filter((pl.col("status") != ERROR) | (pl.col("kernel") != ""))


def find_prediction(home: Home, id: str) -> PredictionRecord:
    """The prediction with this id.

    Raises:
        NotFound: none has it.
    """
    from davy.serving.prediction_frames import find_row

    for record in pending_predictions(home):
        if record.id == id:
            return record
    for model in _models(home):
        for digest in feature_sets_of(home, model):
            found = find_row(home.table(table_name(model, digest)), feature_set_of(home, digest), id)
            if found is not None:
                return found
    raise NotFound(f"There is no prediction {id!r}.", "An id is the prediction_id of an answer: 32 hex digits.", "Check it against the answer.")


def _models(home: Home) -> list[str]:
    import sqlalchemy as sa

    from davy.schema.tables import model_versions

    with home.database.read() as connection:
        return [row[0] for row in connection.execute(sa.select(model_versions.c.name).distinct())]


def feature_sets_of(home: Home, model: str) -> list[str]:
    """The digests of the feature sets that the model's versions were registered with."""
    import sqlalchemy as sa

    from davy.schema.tables import model_versions as versions

    query = sa.select(versions.c.feature_set).where(versions.c.name == model, versions.c.feature_set.is_not(None)).distinct()
    with home.database.read() as connection:
        return sorted(row[0] for row in connection.execute(query))
