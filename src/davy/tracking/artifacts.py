"""Artifacts: files of a run (or logged model) in the blobs, with an index in the database: path -> digest and size.

A file is stored first and indexed afterwards, so that the index never names a file that is not there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.errors import Conflict, InvalidInput, NotFound, nearest
from davy.schema.tables import artifacts
from davy.store.database import insert
from davy.store.garbage import claim
from davy.tracking.records import Artifact, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from davy.core.clock import Clock
    from davy.store.blobs import Blobs

_column = artifacts.c
_LOOKUP = 500


def add_artifacts(connection: sa.Connection, owner: str, files: Mapping[str, tuple[str, int]], *, clock: Clock, blobs: Blobs) -> None:
    """Index stored files: path -> (digest, size). A path that is there already means the new file from now on.

    Raises:
        Conflict: a path would be a file and a folder at once.
        Unavailable: a blob was collected since it was stored: store it again, then try again.
    """
    now = clock.now() // 1000
    rows = [{"owner": owner, "path": check_path(path), "digest": digest, "size": size, "creation_time": now} for path, (digest, size) in files.items()]
    if rows:
        _check_folders(connection, owner, files)
        claim(connection, blobs, (digest for digest, _ in files.values()))
        statement = insert(connection, artifacts)
        changed = {name: statement.excluded[name] for name in ("digest", "size", "creation_time")}
        connection.execute(statement.on_conflict_do_update(index_elements=["owner", "path"], set_=changed), rows)


def _check_folders(connection: sa.Connection, owner: str, files: Mapping[str, object]) -> None:
    """Refuse what no disk could hold: a file where a folder is."""
    folders = sorted({path[:index] for path in files for index, letter in enumerate(path) if letter == "/"})
    taken = {folder for folder in folders if folder in files}
    for start in range(0, len(folders), _LOOKUP):
        taken.update(connection.scalars(sa.select(_column.path).where(_column.owner == owner, _column.path.in_(folders[start:start + _LOOKUP]))))
    if taken:
        raise Conflict(f"{min(taken)!r} is a file of {owner}, so that nothing can lie beneath it.", "A path is a file or a folder.", "Rename one of them.")
    for path in files:
        if connection.scalar(sa.select(sa.literal(1)).where(_column.owner == owner, _column.path >= f"{path}/", _column.path < f"{path}0").limit(1)):
            raise Conflict(f"{path!r} is a folder of {owner}.", "A path is a file or a folder.", "Take another name.")


def list_artifacts(connection: sa.Connection, owner: str, folder: str = "", *, deep: bool = False) -> list[Artifact]:
    """What lies in a folder, files and folders by full path; a folder that does not exist is empty.

    Args:
        deep: all files beneath it instead, without the folders.
    """
    prefix = f"{check_path(folder)}/" if folder else ""
    query = sa.select(artifacts).where(_column.owner == owner).order_by(_column.path)
    if prefix:
        query = query.where(_column.path >= prefix, _column.path < prefix[:-1] + "0")
    found: dict[str, Artifact] = {}
    for row in connection.execute(query):
        head, slash, _ = row.path[len(prefix):].partition("/")
        if slash and not deep:
            found.setdefault(prefix + head, Artifact(prefix + head, is_dir=True))
        else:
            found[row.path] = Artifact(row.path, is_dir=False, size=row.size, digest=row.digest)
    return sorted(found.values(), key=lambda artifact: artifact.path)


def find_artifact(connection: sa.Connection, owner: str, path: str) -> Artifact:
    """The file at this path.

    Raises:
        NotFound: there is none; names the nearest.
    """
    found = get_artifact(connection, owner, check_path(path))
    if found is None:
        known = connection.scalars(sa.select(_column.path).where(_column.owner == owner).limit(1000)).all()
        raise NotFound(f"{owner} has no artifact {path!r}.", nearest(path, known), "Correct the path.")
    return found


def get_artifact(connection: sa.Connection, owner: str, path: str) -> Artifact | None:
    """The file at this path, if there is one."""
    row = connection.execute(sa.select(artifacts).where(_column.owner == owner, _column.path == path)).first()
    return None if row is None else Artifact(row.path, is_dir=False, size=row.size, digest=row.digest)


def read_artifact(connection: sa.Connection, blobs: Blobs, owner: str, path: str) -> bytes:
    """The content of a file, verified.

    Raises:
        NotFound: the owner has no such artifact.
        CorruptData: the stored bytes are not those that were logged.
    """
    return blobs.get(str(find_artifact(connection, owner, path).digest))


def remove_artifacts(connection: sa.Connection, owner: str, path: str) -> int:
    """Take a file, or all files of a folder (empty: of the owner), out of the index; returns how many. The blobs stay: others may share them."""
    if not path:
        return int(connection.execute(sa.delete(artifacts).where(_column.owner == owner)).rowcount)
    check_path(path)
    where = sa.or_(_column.path == path, sa.and_(_column.path >= f"{path}/", _column.path < f"{path}0"))
    return int(connection.execute(sa.delete(artifacts).where(_column.owner == owner, where)).rowcount)


def collect(source: Path, name: str) -> dict[str, Path]:
    """The files behind a path on disk: the file itself as `name`, or each file of the folder beneath `name`.

    Raises:
        NotFound: there is no such file or folder, or a link in it leads to nothing.
        InvalidInput: a link in the folder leads out of it, or in a circle.
    """
    if source.is_dir():
        root = source.resolve()
        return dict(_walk(root, name, root, (root,)))
    if not source.is_file():
        raise NotFound(f"There is no file or folder {source}.", "A text or bytes are logged with run.text(text, name) or run.artifact(data, name).",
                       "Correct the path.")
    return {name: source}


def _walk(folder: Path, name: str, root: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path, at = Path(entry.path), f"{name}/{entry.name}"
        if entry.is_symlink():
            path = _inside(path, root, above)
        if path.is_dir():
            yield from _walk(path, at, root, (*above, path))
        elif path.is_file():
            yield at, path


def _inside(link: Path, root: Path, above: tuple[Path, ...]) -> Path:
    """Where a link leads, if that is in the folder too: nobody logs what lies elsewhere without having named it."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise NotFound(f"The link {link} leads to nothing.", "", "Remove it, or mend it.") from error
    if not target.is_relative_to(root):
        raise InvalidInput(f"The link {link} leads out of the folder, to {target}.", "What is logged lies in the folder itself.",
                           f"Log it by its own name, or copy it into {root}.")
    if target in above:
        raise InvalidInput(f"The link {link} leads back to {target}, in a circle.", "A folder has an end.", "Remove the link.")
    return target
