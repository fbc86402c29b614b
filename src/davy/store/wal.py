"""A write-ahead log: records of bytes in numbered segment files, on disk when `sync` returns.

A segment is named after its first record's position and starts with eight magic bytes. A record is a header
(u32 length of the payload, u32 CRC-32 of what follows it, u64 position, u64 position known to be on disk when this one was
written) and the payload. Positions count from 1 without a gap.

What a crash leaves half-written can only be at the tail and was never synced: it is cut off at the next open.
Damage anywhere else is told apart by the header's fourth number, and refused.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from davy.errors import CorruptData, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAGIC = b"davywal1"
SEGMENT_BYTES = 64 << 20
_HEADER = struct.Struct("<IIQQ")
_NUMBERS = struct.Struct("<QQ")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SEARCHED = 1000


class Wal:
    """The one writer of a directory of segments. Safe to use from several threads.

    Attributes:
        directory: where the segments lie; created when absent.
        last: the position of the last record, 0 when there has never been one.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._writing = threading.Lock()
        self._syncing = threading.RLock()
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = -1
        segments = segment_files(directory)
        first, path = segments[-1] if segments else (1, directory / _name(1))
        self._path, self._first = path, first
        self._size, self.last = _intact(path, first)
        self._open(path)
        self._synced, self._synced_size = self.last, self._size

    def append(self, payloads: Sequence[bytes]) -> int:
        """Write the records and return the position of the last. They are on disk after `sync`.

        Raises:
            StorageFull: no space; none of the records was taken, and the log goes on when there is space again.
        """
        with self._writing:
            if self._size >= self._segment_bytes:
                self._roll()
            data, position = [], self.last
            for payload in payloads:
                position += 1
                numbers = _NUMBERS.pack(position, self._synced)
                data.append(_HEADER.pack(len(payload), zlib.crc32(payload, zlib.crc32(numbers)), position, self._synced))
                data.append(payload)
            self._write(b"".join(data))
            self.last = position
            return position

    def sync(self) -> None:
        """Return when everything appended before is on disk.

        Raises:
            StorageFull, Unavailable: it isn't; the records since the last good sync were cut off again.
        """
        with self._syncing:
            with self._writing:
                last, size = self.last, self._size
            if last == self._synced:
                return
            try:
                os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)
            except OSError as error:
                with self._writing:
                    self._truncate(self._synced_size, self._synced)
                    with suppress(OSError):  # the disk has failed already, and that is what is told
                        os.fsync(self._descriptor)
                raise _failure(self._path, error) from error
            self._synced, self._synced_size = last, size

    def cut(self, position: int) -> None:
        """Take back all records after `position`, which must be no older than the segment now written to. On disk when it returns.

        Raises:
            StorageFull, Unavailable: they may come back after a loss of power.
        """
        with self._syncing, self._writing:
            size = len(MAGIC)
            for found, end, _ in _records(self._path.read_bytes(), self._first):
                if found > position:
                    break
                size = end
            try:
                self._truncate(size, position)
                os.fsync(self._descriptor)
            except OSError as error:
                raise _failure(self._path, error) from error
            finally:
                self._synced, self._synced_size = min(self._synced, self.last), min(self._synced_size, self._size)

    def replay(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """All records beyond the position `after`, in order.

        Raises:
            CorruptData: damaged in the middle; names the file and the byte.
        """
        return read(self.directory, after)

    def truncate(self, before: int) -> None:
        """Delete the segments that hold only records before this position."""
        truncate(self.directory, before)

    def roll(self) -> None:
        """Start a new segment, so that the one before can be truncated."""
        with self._writing:
            self._roll()

    @property
    def size(self) -> int:
        """Bytes of the segment now written to."""
        return self._size

    @property
    def first(self) -> int:
        """The first position of the segment now written to."""
        return self._first

    def close(self) -> None:
        """Sync and let go. Closing twice is a no-op."""
        with self._syncing:
            if self._descriptor >= 0:
                try:
                    self.sync()
                finally:
                    os.close(self._descriptor)
                    self._descriptor = -1

    def _open(self, path: Path) -> None:
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            if self._size < len(MAGIC):
                os.ftruncate(descriptor, 0)
                _write_all(descriptor, MAGIC, 0)
                self._size = len(MAGIC)
            os.ftruncate(descriptor, self._size)
            os.fsync(descriptor)
            sync_folder(self.directory)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise _failure(path, error) from error
        self._descriptor = descriptor

    def _roll(self) -> None:
        """Start the next segment. The one before is complete on disk, so that only the last can have a torn tail."""
        if not self._syncing.acquire(blocking=False):
            return
        try:
            if self._synced != self.last:
                os.fsync(self._descriptor)
                self._synced, self._synced_size = self.last, self._size
            before = (self._descriptor, self._size)
            path = self.directory / _name(self.last + 1)
            self._size = 0
            try:
                self._open(path)
            except BaseException:
                self._descriptor, self._size = before
                path.unlink(missing_ok=True)
                raise
            os.close(before[0])
            self._path, self._first, self._synced_size = path, self.last + 1, self._size
        except OSError as error:
            raise _failure(self._path, error) from error
        finally:
            self._syncing.release()

    def _write(self, data: bytes) -> None:
        try:
            _write_all(self._descriptor, data, self._size)
        except OSError as error:
            self._truncate(self._size, self.last)
            with suppress(OSError):  # the disk has failed already, and that is what is told
                os.fsync(self._descriptor)
            raise _failure(self._path, error) from error
        self._size += len(data)

    def _truncate(self, size: int, position: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._size, self.last = size, position


def segment_files(directory: Path) -> list[tuple[int, Path]]:
    """The segments as (position of the first record, path), in order."""
    return sorted((int(path.stem), path) for path in directory.glob("*.wal") if path.stem.isdigit())


def read(directory: Path, after: int = 0) -> Iterator[tuple[int, bytes]]:
    """All records beyond `after` of a log that another process may be writing to. A torn tail is left out, and left alone.

    Raises:
        CorruptData: damaged in the middle, or a segment is missing; names the file and the byte.
    """
    segments = segment_files(directory)
    for index, (first, path) in enumerate(segments):
        following = segments[index + 1][0] if index + 1 < len(segments) else None
        if following is not None and following <= after + 1:
            continue
        data = path.read_bytes()
        last, end = first - 1, min(len(MAGIC), len(data))
        for position, byte, payload in _records(data, first):
            if following is not None and position >= following:
                break
            last, end = position, byte
            if position > after:
                yield position, payload
        if following is None:
            _refuse_damage(path, data, end, last + 1)
        elif last + 1 < following:
            raise _damaged(path, end, last + 1)


class Tail:
    """Follows a log that another process writes to: each record once, and no byte is read twice.

    What has been opened can be read to its end, even when the writer's side deletes the file meanwhile.

    Attributes:
        missed: whether segments were deleted before they were read.
    """

    def __init__(self, directory: Path, after: int = 0) -> None:
        self._directory, self._next, self.missed = directory, after + 1, False
        self._descriptor, self._byte, self._rest, self._begun = -1, 0, b"", False

    def read(self) -> list[tuple[int, bytes]]:
        """(position, payload) of the records that have come since the last call."""
        found: list[tuple[int, bytes]] = []
        while self._descriptor >= 0 or self._open():
            following = self._following()  # looked up before the rest is read, so that nothing can come between
            self._take(found)
            if following is None:
                break
            self.close()
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._rest = -1, b""

    def _open(self) -> bool:
        segments = segment_files(self._directory)
        if not segments:
            return False
        first, path = max((segment for segment in segments if segment[0] <= self._next), default=segments[0])
        self.missed = self.missed or first > self._next
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        self._byte, self._begun, self._first, self._position = 0, False, first, first
        return True

    def _following(self) -> int | None:
        return next((first for first, _ in segment_files(self._directory) if first > self._first), None)

    def _take(self, found: list[tuple[int, bytes]]) -> None:
        size = os.fstat(self._descriptor).st_size
        data = self._rest + (os.pread(self._descriptor, size - self._byte, self._byte) if size > self._byte else b"")
        begin, self._byte = 0, max(self._byte, size)
        if not self._begun:
            self._begun = len(data) >= len(MAGIC)
            begin = len(MAGIC) if self._begun else 0
        while self._begun and (record := _record(data, begin, self._position)) is not None:
            begin += _HEADER.size + len(record[0])
            if self._position >= self._next:
                found.append((self._position, record[0]))
                self._next = self._position + 1
            self._position += 1
        self._rest = data[begin:]


def truncate(directory: Path, before: int) -> None:
    """Delete the segments that hold only records before this position; the last segment always stays."""
    segments = segment_files(directory)
    for (_, path), (following, _) in pairwise(segments):
        if following <= before:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Return when the names in this folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(first: int) -> str:
    return f"{first:020d}.wal"


def _records(data: bytes, first: int) -> Iterator[tuple[int, int, bytes]]:
    """(position, byte after the record, payload) of each intact record from the segment's start on."""
    if data[: len(MAGIC)] != MAGIC:
        return
    byte, position = len(MAGIC), first
    while True:
        found = _record(data, byte, position)
        if found is None:
            return
        payload, _ = found
        byte += _HEADER.size + len(payload)
        yield position, byte, payload
        position += 1


def _record(data: bytes, byte: int, position: int) -> tuple[bytes, int] | None:
    if byte + _HEADER.size > len(data):
        return None
    length, crc, found, synced = _HEADER.unpack_from(data, byte)
    start = byte + _HEADER.size
    if found != position or start + length > len(data):
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_NUMBERS.pack(found, synced))) != crc:
        return None
    return payload, synced


def _intact(path: Path, first: int) -> tuple[int, int]:
    """(bytes, last position) of the part of the last segment that is good."""
    data = path.read_bytes() if path.exists() else b""
    end, last = 0, first - 1
    for position, byte, _ in _records(data, first):
        end, last = byte, position
    if end == 0 and data[: len(MAGIC)] == MAGIC:
        end = len(MAGIC)
    _refuse_damage(path, data, end, last + 1)
    return end, last


def _refuse_damage(path: Path, data: bytes, byte: int, position: int) -> None:
    """Raise if a record beyond `byte` says that the one missing there had been on disk."""
    if byte == 0 and len(data) >= len(MAGIC) and data[: len(MAGIC)] != MAGIC:
        raise _damaged(path, 0, position)
    rest = (len(data) - byte) // _HEADER.size
    for later in range(position + 1, position + 1 + min(rest, _SEARCHED)):
        needle = struct.pack("<Q", later)
        at = data.find(needle, byte)
        while at >= 0:
            found = _record(data, at - 8, later) if at >= byte + 8 else None
            if found is not None:
                if found[1] >= position:
                    raise _damaged(path, byte, position)
                return
            at = data.find(needle, at + 1)


def _damaged(path: Path, byte: int, position: int) -> CorruptData:
    return CorruptData(f"{path} is damaged at byte {byte}: record {position} is not what was written.",
                       "Records behind it are intact, so this is not the trace of a crash.",
                       "Restore the file from a backup, or move it away to go on without what it holds.")


def _failure(path: Path, error: OSError) -> Unavailable:
    if error.errno in _FULL:
        return StorageFull(f"No space to write {path}: {error.strerror}.", "What was acknowledged before is safe; this was not taken.",
                           "Free disk space and send it again.")
    return Unavailable(f"{path} could not be written: {error.strerror}.", "What was acknowledged before is safe; this was not taken.",
                       "Check the disk and send it again.")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
