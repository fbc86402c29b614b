"""Where MLflow keeps the files of runs and logged models, and how they come from there into our blobs.

A root is what MLflow has noted when the run was made: an address of its server's proxy, an object store's, or a path on the machine where that was.
A database or a folder that was brought here from elsewhere names paths that are not here; the files are then looked for beside it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from davy.errors import InvalidInput, NotFound
from davy.tracking.records import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from davy.store.blobs import Blobs

PROXY = "mlflow-artifacts"


class Unreadable(Exception):
    """A file, or all that lies under a root, can't be had; the rest of the source may be well."""


class Found:
    """A file at the source: its path under the root, its size if the source tells it, and how a copy of it is stored.

    >>> digest, size = found.store()
    """

    def __init__(self, path: str, size: int | None, store: Callable[[], tuple[str, int]]) -> None:
        self.path, self.size, self.store = path, size, store


class Places:
    """The files of one source.

    Args:
        tracking_uri: what MLflow's client is asked through.
        beside: the folder that a database or an `mlruns` folder lies in; None for a server, whose paths are read as they are.
        kept: where the server of that database keeps the files that it serves; they are looked for there first.

    Attributes:
        missing: folders of artifacts that are not here, so that no files were found of runs, which may have had none.
    """

    def __init__(self, tracking_uri: str, blobs: Blobs, *, beside: Path | None = None, kept: Path | None = None) -> None:
        self._uri, self._blobs, self._beside = tracking_uri, blobs, beside
        self._bases = [base for base in (kept, *((beside / "mlartifacts", beside / "mlruns", beside, beside / ".trash") if beside else ())) if base is not None]
        self._kept = kept
        self.missing: set[str] = set()

    def under(self, root: str) -> Iterator[Found]:
        """All files under a root, one folder after the other. A root where nothing was ever put has none.

        Raises:
            Unreadable: they can't be listed, or not all of them.
        """
        place = self._local(root)
        if place is None:
            yield from self._listed(root)
        elif place.exists():
            yield from self._walked(place)

    def _local(self, root: str) -> Path | None:
        """The folder that a root stands for, if it is one of this machine."""
        parts = urlsplit(root)
        if parts.scheme == PROXY and self._beside is not None:
            return self._proxied(unquote(parts.path).strip("/"), root)
        if parts.scheme not in ("", "file"):
            return None
        path = Path(unquote(parts.path) if parts.scheme else root)
        if self._beside is None:
            if not path.is_dir() and not path.parent.parent.is_dir():
                raise Unreadable(f"The files at {root} lie on the server's own machine, which gives them to nobody. "
                                 "Copy its database and its folder of artifacts here, and import the database.")
            return path
        if self._kept is None and (path := self._beside / path).is_dir():
            return path
        for base in self._bases:  # experiment/run/artifacts, or experiment/models/model/artifacts
            for count in (4, 3):
                if len(path.parts) >= count and (moved := base.joinpath(*path.parts[-count:])).is_dir():
                    return moved
        if len(path.parts) > 3 and not path.parents[2].is_dir():
            self.missing.add(str(path.parents[2]))
        return path

    def _proxied(self, path: str, root: str) -> Path:
        for base in self._bases:
            if (base / path).is_dir():
                return base / path
        if not any(base.is_dir() for base in self._bases[:1]):
            raise Unreadable(f"The files at {root} lie where this database's server keeps them, and no folder mlartifacts is beside it. "
                             "Say where they are: --artifacts FOLDER")
        return self._bases[0] / path

    def _walked(self, root: Path) -> Iterator[Found]:
        for folder, names, files in os.walk(root, onerror=_fail):
            names.sort()
            links = [name for name in names if (Path(folder) / name).is_symlink()]  # which may lead in circles: told, not followed
            for name in sorted([*files, *links]):
                path = Path(folder) / name
                yield Found(path.relative_to(root).as_posix(), _size(path), partial(self._blobs.put_file, path))

    def _listed(self, root: str) -> Iterator[Found]:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with _told(root):
            repository: Any = get_artifact_repository(root, tracking_uri=self._uri)
        folders: list[str | None] = [None]
        while folders:
            folder = folders.pop()
            with _told(root):
                entries = repository.list_artifacts(folder)
            for entry in entries:
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    yield Found(entry.path, entry.file_size, partial(self._fetched, repository, root, entry.path))

    def _fetched(self, repository: Any, root: str, path: str) -> tuple[str, int]:
        with tempfile.TemporaryDirectory(prefix="davy-import-") as folder:
            local = Path(folder) / "file"
            with _told(f"{root}/{path}"):
                repository._download_file(path, str(local))
            return self._blobs.put_file(local)


def stored(found: Found) -> tuple[str, int]:
    """Store a copy of a file; its digest and size.

    Raises:
        Unreadable: it can't be read, or can't be kept under its name.
        StorageFull: there is no room for it here.
    """
    try:
        check_path(found.path)
        return found.store()
    except (InvalidInput, NotFound) as error:
        raise Unreadable(error.came) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # a link to nothing: storing it says so


def _fail(error: OSError) -> None:
    raise Unreadable(f"{error.filename} can't be read: {error.strerror}.") from error


@contextmanager
def _told(what: str) -> Iterator[None]:
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (ImportError, MlflowException, requests.RequestException, OSError) as error:
        said = str(getattr(error, "message", error)).splitlines()
        raise Unreadable(f"{what} can't be read: {said[0] if said else type(error).__name__}") from error
