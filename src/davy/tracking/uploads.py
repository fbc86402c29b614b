"""Uploads in parts: each part is a file of its own until all are there, then they become one blob.

They lie in a local folder whatever the blobs lie in, because a blob's name is the digest of the whole.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from davy.core.clock import SystemClock
from davy.errors import InvalidInput, NotFound, TooLarge
from davy.store.incoming import LocalIncoming
from davy.store.shelves import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from davy.store.blobs import Blobs

MOST_PARTS = 100_000
ABANDONED_SECONDS = 7 * 86_400
_UNIQUE = SystemClock()
_ID, _PART, _PIECE = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9]+-[0-9a-f]{64}"), 1 << 20


class Upload(msgspec.Struct):
    """What an upload is for, once it is complete what it has become, and whether that is indexed."""

    path: str
    digest: str | None = None
    size: int = 0
    indexed: bool = False


class Uploads:
    """The uploads of one home.

    Args:
        folder: where they lie; made when absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, path: str) -> str:
        """Begin an upload; returns its id, which nobody can guess. What was abandoned a week ago is removed."""
        self.sweep()
        upload_id = _UNIQUE.token(16).hex()
        (self._folder / upload_id).mkdir(parents=True)
        self._note(upload_id, Upload(path))
        return upload_id

    def get(self, upload_id: str) -> Upload:
        """The upload of that id.

        Raises:
            NotFound: there is none: it was aborted, or abandoned.
        """
        try:
            if not _ID.fullmatch(upload_id):
                raise FileNotFoundError(upload_id)
            return msgspec.json.decode((self._folder / upload_id / "upload.json").read_bytes(), type=Upload)
        except (FileNotFoundError, msgspec.DecodeError):
            raise NotFound(f"There is no upload {upload_id[:64]!r}.", "It may have been aborted, or abandoned for a week.", "Upload the file anew.") from None

    def part(self, upload_id: str, number: int) -> LocalIncoming:
        """Takes the bytes of a part; what `finish` returns as digest is the part's ETag. A part that comes again replaces the earlier one."""
        if not 1 <= number <= MOST_PARTS:
            raise InvalidInput(f"{number} is not the number of a part.", f"Parts are numbered from 1 to {MOST_PARTS}.", "Upload in larger parts.")
        self.get(upload_id)
        folder = self._folder / upload_id
        return LocalIncoming(folder, _UNIQUE.token(8).hex(), lambda path, digest: _place(path, folder / f"{number}-{digest[7:]}"),
                             lambda error: explain(error, str(self._folder)))

    def complete(self, upload_id: str, parts: Sequence[tuple[int, str]], blobs: Blobs, most: int) -> tuple[str, int]:
        """Make one blob of these parts, given as (number, ETag), in the order of their numbers; its digest and size. Doing it twice gives the same.

        The parts stay until it is `indexed`: where the blob was collected before that, it is made of them again.

        Raises:
            InvalidInput: a part did not come, or with another ETag, or no part is named, or one twice.
            TooLarge: together they have more than `most` bytes.
        """
        upload = self.get(upload_id)
        if upload.digest is None or not blobs.exists(upload.digest):
            files = self._files(upload_id, sorted(parts))
            if (total := sum(file.stat().st_size for file in files)) > most:
                raise TooLarge(f"The artifact has {total} bytes.", f"At most {most} are taken.", "Raise tracking.largest_artifact in davy.toml.")
            upload.digest, upload.size = blobs.put_stream(_pieces(files))
            self._note(upload_id, upload)
        return upload.digest, upload.size

    def indexed(self, upload_id: str) -> None:
        """Note that the blob of a complete upload is indexed: from now on that keeps it, not the upload."""
        upload = self.get(upload_id)
        upload.indexed = True
        self._note(upload_id, upload)
        for file in (self._folder / upload_id).iterdir():
            if _PART.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def abort(self, upload_id: str) -> None:
        """Forget the upload. If no such upload exists, this is a no-op."""
        if _ID.fullmatch(upload_id):
            shutil.rmtree(self._folder / upload_id, ignore_errors=True)

    def digests(self) -> Iterator[str]:
        """The blobs of uploads that are complete, but not yet indexed."""
        with suppress(FileNotFoundError):
            for folder in self._folder.iterdir():
                with suppress(NotFound):
                    upload = self.get(folder.name)
                    if upload.digest is not None and not upload.indexed:
                        yield upload.digest

    def sweep(self) -> None:
        """Remove what was abandoned a week ago."""
        oldest = _UNIQUE.now() / 1e6 - ABANDONED_SECONDS
        with suppress(FileNotFoundError):
            for folder in self._folder.iterdir():
                with suppress(FileNotFoundError):
                    if folder.stat().st_mtime < oldest:
                        self.abort(folder.name)

    def _files(self, upload_id: str, parts: Sequence[tuple[int, str]]) -> list[Path]:
        if not parts or len({number for number, _ in parts}) != len(parts):
            raise InvalidInput("The list of parts is empty, or names a part twice.", "It names each part once, with its ETag.", "Upload the file anew.")
        found = []
        for number, tag in parts:
            file = self._folder / upload_id / f"{number}-{tag.strip(chr(34)).removeprefix('sha256:')}"
            if not _PART.fullmatch(file.name) or not file.is_file():
                raise InvalidInput(f"Part {number} with the ETag {tag[:100]!r} has not come.", "Each part is uploaded before the upload is completed.",
                                   "Upload that part again.")
            found.append(file)
        return found

    def _note(self, upload_id: str, upload: Upload) -> None:
        file = self._folder / upload_id / "upload.json"
        partial = file.with_name(f".{_UNIQUE.token(4).hex()}")
        partial.write_bytes(msgspec.json.encode(upload))
        partial.replace(file)


def _place(path: Path, target: Path) -> None:
    path.replace(target)


def _pieces(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
