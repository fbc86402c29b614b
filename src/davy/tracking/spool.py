"""Spools: what a run has logged and its store could not take yet, on disk, as records in the order in which they came.

A spool is a folder of its own: `head.json` says where it is to go, numbered segments hold the records (each with its length
and checksum, a torn tail is cut off), `files/` the artifacts, `refused/` the records that the store will never take, and
`sent` the position up to which all is stored. Sending a record twice is the same as once, so a crash between sending and
noting it doubles nothing. A spool is sent by one process at a time, the one that holds its `lock`: the writer, as long as it lives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.digest import canonical_json
from davy.errors import CorruptData, DavyError, NotFound, StorageFull, Unavailable
from davy.store import wal
from davy.store.wal import Wal
from davy.tracking.inputs import Dataset
from davy.tracking.points import Points
from davy.tracking.records import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


FOLDER = "spool"
SEGMENT_BYTES = 1 << 20
_HEAD, _SENT, _LOCK, _FILES, _REFUSED = "head.json", "sent", "lock", "files", "refused"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Head(msgspec.Struct, frozen=True):
    """Whose spool it is. `server` is empty for the home that the spool lies in; `owner` is whether the writer ends the run."""

    run_id: str
    name: str
    server: str = ""
    owner: bool = True


class Created(msgspec.Struct, frozen=True, tag="created"):
    """A run was started. Times are milliseconds in all records."""

    experiment: str
    name: str
    user: str
    started: int
    tags: dict[str, str]
    params: dict[str, str]


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """Points by key: steps, times and values in the machine's own byte order."""

    columns: dict[str, tuple[bytes, bytes, bytes]]

    @staticmethod
    def of(columns: Mapping[str, Points]) -> Logged:
        """The record of these columns."""
        return Logged({key: (points.steps.tobytes(), points.times.tobytes(), points.values.tobytes()) for key, points in columns.items()})

    def points(self) -> dict[str, Points]:
        """The columns again."""
        return {key: Points(_array("q", steps), _array("q", times), _array("d", values)) for key, (steps, times, values) in self.columns.items()}


class Params(msgspec.Struct, frozen=True, tag="params"):
    """Params were set."""

    values: dict[str, str]


class Tags(msgspec.Struct, frozen=True, tag="tags"):
    """Tags were set."""

    values: dict[str, str]


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """An artifact: `file` is its name in the spool's own folder of files."""

    path: str
    file: str


class Used(msgspec.Struct, frozen=True, tag="used"):
    """A dataset was read."""

    dataset: Dataset
    context: str = ""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The run has ended."""

    status: Status
    ended: int


Record = Created | Logged | Params | Tags | Kept | Used | Ended
_DECODER = msgspec.msgpack.Decoder(Record)
_ENCODER = msgspec.msgpack.Encoder()


class Progress(msgspec.Struct):
    """How far a spool has been sent: `place` is what the store answered to `Created`, `ended` whether the run's end was sent."""

    position: int = 0
    place: dict[str, str] = {}
    ended: bool = False


class Spool:
    """The one writer of a new spool, which it holds the lock of. Safe to use from several threads.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path, self.head = path, head
        try:
            path.mkdir(parents=True)
            lock = take_lock(path)
            if lock is None:
                raise Unavailable(f"{path} is locked by another process.", "A spool has one writer.", "Try again.")
            self._lock_file = lock
            (path / _HEAD).write_bytes(msgspec.json.encode(head))
            self._wal = Wal(path, segment_bytes=SEGMENT_BYTES)
        except OSError as error:
            raise _failure(path, error) from error
        self._files = 0
        self._counting = threading.Lock()

    def append(self, record: Record, *, sync: bool = False) -> None:
        """Write a record. It survives `kill -9` when this returns, and the loss of power if it was to `sync`.

        Raises:
            StorageFull: it was not written.
        """
        self._wal.append([_ENCODER.encode(record)])
        if sync:
            self._wal.sync()

    def keep(self, source: Path | bytes) -> str:
        """Copy a file, or bytes, into the spool; returns its name there."""
        with self._counting:
            self._files += 1
            name = str(self._files)
        target = self.path / _FILES / name
        try:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source) if isinstance(source, bytes) else shutil.copyfile(source, target)
        except OSError as error:
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise _failure(target, error) from error
        return name

    @property
    def last(self) -> int:
        """The position of the last record."""
        return self._wal.last

    def close(self, *, remove: bool) -> None:
        """Let go of it, and remove it when all of it has been sent."""
        with suppress(DavyError, OSError):
            self._wal.close()
        if remove:
            _remove(self.path)
        os.close(self._lock_file)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        with suppress(OSError):
            os.close(self._lock_file)


class Backlog:
    """What of a spool is still to be sent, for the one who holds its lock.

    Attributes:
        path: the spool's folder.

    Raises:
        NotFound: another process has sent it meanwhile.
        CorruptData: the folder is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.head = msgspec.json.decode((path / _HEAD).read_bytes(), type=Head)
            sent = path / _SENT
            self.progress = msgspec.json.decode(sent.read_bytes(), type=Progress) if sent.exists() else Progress()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is gone.", "Another process has sent it.", "Nothing is left to do.") from error
        except (OSError, msgspec.DecodeError) as error:
            raise CorruptData(f"{path} can't be read as a spool: {error}.", "Its head.json says whose it is.", "Move the folder away, or remove it.") from error

    def records(self) -> Iterator[tuple[int, Record]]:
        """(position, record) of all that is not sent yet, a segment in memory at a time."""
        for position, payload in wal.read(self.path, self.progress.position):
            yield position, _decoded(self.path, payload)

    def count(self) -> int:
        """How many records are not sent yet."""
        try:
            return sum(1 for _ in wal.read(self.path, self.progress.position))
        except FileNotFoundError:  # its process is sending, and removes what it has sent
            return 0

    def refused(self) -> list[Record]:
        """The records that the store did not take for good."""
        folder = self.path / _REFUSED
        return [_decoded(folder, payload) for _, payload in wal.read(folder)] if folder.is_dir() else []

    def file(self, record: Kept) -> Path:
        """Where an artifact's content lies."""
        return self.path / _FILES / record.file

    def sent(self, position: int) -> None:
        """All records up to this position are stored, or set aside as refused."""
        self.progress.position = position
        temporary = self.path / f"{_SENT}.new"
        try:
            temporary.write_bytes(canonical_json(self.progress))
            temporary.replace(self.path / _SENT)
        except OSError as error:
            raise _failure(temporary, error) from error
        wal.truncate(self.path, position + 1)

    def done(self, record: Record) -> None:
        """This record is stored: what else belongs to it may go."""
        if isinstance(record, Kept):
            self.file(record).unlink(missing_ok=True)
        if isinstance(record, Ended):
            self.progress.ended = True

    def refuse(self, record: Record) -> None:
        """Keep this one as refused."""
        log = Wal(self.path / _REFUSED)
        log.append([_ENCODER.encode(record)])
        log.close()

    def keep_refused(self, records: list[Record]) -> None:
        """Keep these, and no others, as refused."""
        old, new = self.path / _REFUSED, self.path / f"{_REFUSED}.new"
        shutil.rmtree(new, ignore_errors=True)
        if records:
            log = Wal(new)
            log.append([_ENCODER.encode(record) for record in records])
            log.close()
        shutil.rmtree(old, ignore_errors=True)
        if records:
            new.rename(old)

    def last_written(self) -> int:
        """When the last record was written, in milliseconds."""
        return int(max(path.stat().st_mtime for _, path in wal.segment_files(self.path)) * 1000)

    def remove(self) -> None:
        """All is sent: nothing of it stays."""
        _remove(self.path)


def take_lock(path: Path) -> int | None:
    """The lock of a spool, held until the descriptor is closed or the process ends; None when another process holds it, or has removed all."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def spools(folder: Path) -> list[Path]:
    """The spools in a folder, the oldest run first."""
    return sorted(path.parent for path in folder.glob(f"*/{_HEAD}"))


def _remove(path: Path) -> None:
    (path / _HEAD).unlink(missing_ok=True)  # first, so that who looks in the middle of it finds no spool
    shutil.rmtree(path, ignore_errors=True)


def new_path(folder: Path, run_id: str) -> Path:
    """Where a further spool of a run may lie."""
    number = 1
    while (folder / f"{run_id}-{number}").exists():
        number += 1
    return folder / f"{run_id}-{number}"


def _decoded(path: Path, payload: bytes) -> Record:
    try:
        found: Record = _DECODER.decode(payload)
        return found
    except msgspec.DecodeError as error:
        raise CorruptData(f"{path} holds a record of another kind: {error}.", "A newer version of Davy has written it.",
                          "Upgrade: pip install -U davy") from error


def _array(kind: str, data: bytes) -> array[Any]:
    found = array(kind)
    found.frombytes(data)
    return found


def _failure(path: Path, error: OSError) -> Unavailable:
    kind = StorageFull if error.errno in _FULL else Unavailable
    return kind(f"{path} could not be written: {error.strerror}.", "A spool needs a folder with room.", f"Check: df -h {path.parent}")
