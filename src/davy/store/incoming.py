"""A blob on its way in: written and hashed as its bytes come, in one thread at a time, and kept or dropped at the end."""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Self

from obstore.exceptions import BaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from davy.errors import DavyError


class Incoming(ABC):
    """Takes bytes by `write`; `finish` stores them. Leaving the block without `finish` drops them, and leaves nothing behind.

    Attributes:
        size: how many bytes have come.
    """

    def __init__(self, explain: Callable[[Exception], DavyError]) -> None:
        self.size = 0
        self._hasher = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._tell = explain

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            StorageFull: they don't fit; drop it.
        """
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(data)
        except OSError as error:
            raise self._tell(error) from error
        self._hasher.update(data)
        self.size += len(data)

    def finish(self) -> tuple[str, int]:
        """Store what has come; returns digest and size once it is there to stay."""
        digest = f"sha256:{self._hasher.hexdigest()}"
        try:
            if self._file is None:
                self._file = self._open()
            self._file.flush()
            self._keep(self._file, digest)
        except (OSError, BaseError) as error:
            raise self._tell(error) from error
        self._close()
        return digest, self.size

    def drop(self) -> None:
        """Forget what has come. After `finish`, or twice, this is a no-op."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk may refuse what is dropped anyway
                self._file.close()

    @abstractmethod
    def _open(self) -> BinaryIO:
        """The empty file that takes the bytes."""

    @abstractmethod
    def _keep(self, file: BinaryIO, digest: str) -> None:
        """Make a blob of the file."""


class LocalIncoming(Incoming):
    """A file beside the blobs that is renamed.

    Args:
        arrive: gives the file, which is on disk, its name as a blob.
    """

    def __init__(self, folder: Path, name: str, arrive: Callable[[Path, str], None], explain: Callable[[Exception], DavyError]) -> None:
        super().__init__(explain)
        self._path, self._arrive = folder / name, arrive

    def drop(self) -> None:
        super().drop()
        self._path.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("xb")
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("xb")

    def _keep(self, file: BinaryIO, digest: str) -> None:
        os.fsync(file.fileno())
        self._arrive(self._path, digest)


class SpooledIncoming(Incoming):
    """A temporary file without a name that is sent to where blobs live; a killed process leaves nothing of it.

    Args:
        send: brings the file's bytes there, given their number and digest.
    """

    def __init__(self, folder: Path | None, send: Callable[[BinaryIO, int, str], None], explain: Callable[[Exception], DavyError]) -> None:
        super().__init__(explain)
        self._folder, self._send = folder, send

    def _open(self) -> BinaryIO:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        # Up to a megabyte it stays in memory.
        return tempfile.SpooledTemporaryFile(1 << 20, dir=None if self._folder is None else str(self._folder))  # type: ignore[return-value] # a file in all but name

    def _keep(self, file: BinaryIO, digest: str) -> None:
        self._send(file, self.size, digest)
