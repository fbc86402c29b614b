"""Spools: what a run has logged and its store could not take yet, on disk, as records in the order in which they came.

A spool is a folder of its own: `head.json` says where it is to go, numbered segments hold the records (each with its length
and checksum, a torn tail is cut off), `files/` the artifacts, `refused/` the records that the store will never take, and
`sent` the position up to which all is stored. Sending a record twice is the same as once, so a crash between sending and
noting it doubles nothing. A spool is sent by one process at a time, the one that holds its `lock`: the writer, as long as it lives.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
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
    """A new spool of a run and its one writer, which holds its lock. Safe to use from several threads.

    Args:
        folder: where the spools lie.

    Attributes:
        path: its own folder.
    """

    def __init__(self, folder: Path, head: Head) -> None:
        self.head = head
        try:
            self.path = _new_folder(folder, head.run_id)
        except OSError as error:
            raise _failure(folder, error) from error
        self._lock_file = -1
        try:
            lock = take_lock(self.path)
            if lock is None:
                raise Unavailable(f"{self.path} is locked by another process.", "A spool has one writer.", "Try again.")
            self._lock_file = lock
            whole = self.path / f"{_HEAD}.new"  # who looks for spools finds a whole head, or none
            whole.write_bytes(msgspec.json.encode(head))
            whole.replace(self.path / _HEAD)
            self._wal = Wal(self.path, segment_bytes=SEGMENT_BYTES)
        except BaseException as error:
            _remove(self.path)
            self.abandon()
            if isinstance(error, OSError):
                raise _failure(self.path, error) from error
            raise
        self._files = 0
        self._counting = threading.Lock()
        self._named = False

    def append(self, record: Record, *, sync: bool = False) -> None:
        """Write a record. It survives `kill -9` when this returns, and the loss of power if it was to `sync`.

        Raises:
            StorageFull: it was not written.
        """
        self._wal.append([_ENCODER.encode(record)])
        if sync:
            self.sync()

    def sync(self) -> None:
        """Return when all that was appended before survives the loss of power."""
        if not self._named:
            try:
                _sync(self.path / _HEAD)
                for folder in (self.path, self.path.parent):
                    wal.sync_folder(folder)
            except OSError as error:
                raise _failure(self.path, error) from error
            self._named = True
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
        self.abandon()

    def abandon(self) -> None:
        """Let go of the lock alone, as a forked child does with what is its parent's."""
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


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
            _sync(temporary)
            temporary.replace(self.path / _SENT)
            wal.truncate(self.path, position + 1)
        except OSError as error:
            raise _failure(temporary, error) from error

    def drop_file(self, record: Record) -> None:
        """This record is stored and noted as sent, so the file that belongs to it, if one does, may go."""
        if isinstance(record, Kept):
            with suppress(OSError):  # it goes with the folder, at the latest
                self.file(record).unlink()

    def refuse(self, record: Record) -> None:
        """Keep this one as refused."""
        _write_log(self.path / _REFUSED, [record])

    def keep_refused(self, records: list[Record]) -> None:
        """Keep these, and no others, as refused."""
        old, new = self.path / _REFUSED, self.path / f"{_REFUSED}.new"
        shutil.rmtree(new, ignore_errors=True)
        if records:
            _write_log(new, records)
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
        if os.path.samestat(os.fstat(descriptor), os.stat(path / _LOCK)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)  # another process has it; or it was removed meanwhile, and another spool may lie there by now
    return None


def spools(folder: Path) -> list[Path]:
    """The spools in a folder, the oldest run first."""
    return sorted(path.parent for path in folder.glob(f"*/{_HEAD}"))


def _remove(path: Path) -> None:
    (path / _HEAD).unlink(missing_ok=True)  # first, so that who looks in the middle of it finds no spool
    shutil.rmtree(path, ignore_errors=True)


def _new_folder(folder: Path, run_id: str) -> Path:
    """A folder for a further spool of a run, which no other process has made: a run and its forks have one each."""
    for number in itertools.count(1):
        path = folder / f"{run_id}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError


def _write_log(folder: Path, records: list[Record]) -> None:
    log = Wal(folder)
    try:
        log.append([_ENCODER.encode(record) for record in records])
    finally:
        log.close()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
