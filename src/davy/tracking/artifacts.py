"""Artifacts: files of a run (or logged model) in the blobs, with an index in the database: path -> digest and size.

A file is stored first and indexed afterwards, so that the index never names a file that is not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.errors import NotFound, nearest
from davy.schema.tables import artifacts
from davy.store.database import insert
from davy.tracking.records import Artifact, check_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.core.clock import Clock
    from davy.store.blobs import Blobs

_column = artifacts.c


def add_artifacts(connection: sa.Connection, owner: str, files: Mapping[str, tuple[str, int]], *, clock: Clock) -> None:
    """Index stored files: path -> (digest, size). A path that is there already means the new file from now on."""
    now = clock.now() // 1000
    rows = [{"owner": owner, "path": check_path(path), "digest": digest, "size": size, "creation_time": now} for path, (digest, size) in files.items()]
    if rows:
        statement = insert(connection, artifacts)
        changed = {name: statement.excluded[name] for name in ("digest", "size", "creation_time")}
        connection.execute(statement.on_conflict_do_update(index_elements=["owner", "path"], set_=changed), rows)


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
    row = connection.execute(sa.select(artifacts).where(_column.owner == owner, _column.path == check_path(path))).first()
    if row is None:
        known = connection.scalars(sa.select(_column.path).where(_column.owner == owner).limit(1000)).all()
        raise NotFound(f"{owner} has no artifact {path!r}.", nearest(path, known), "Correct the path.")
    return Artifact(row.path, is_dir=False, size=row.size, digest=row.digest)


def read_artifact(connection: sa.Connection, blobs: Blobs, owner: str, path: str) -> bytes:
    """The content of a file, verified.

    Raises:
        NotFound: the owner has no such artifact.
        CorruptData: the stored bytes are not those that were logged.
    """
    return blobs.get(str(find_artifact(connection, owner, path).digest))


def remove_artifacts(connection: sa.Connection, owner: str, path: str) -> int:
    """Take a file, or all files of a folder, out of the index; returns how many. The blobs stay: others may share them."""
    check_path(path)
    where = sa.or_(_column.path == path, sa.and_(_column.path >= f"{path}/", _column.path < f"{path}0"))
    return int(connection.execute(sa.delete(artifacts).where(_column.owner == owner, where)).rowcount)


def collect(source: Path, name: str) -> dict[str, Path]:
    """The files behind a path on disk: the file itself as `name`, or each file of the folder beneath `name`."""
    if source.is_dir():
        return {f"{name}/{file.relative_to(source).as_posix()}": file for file in sorted(source.rglob("*")) if file.is_file()}
    if not source.is_file():
        raise NotFound(f"There is no file or folder {source}.", "A text or bytes are logged with run.text(text, name) or run.artifact(data, name).",
                       "Correct the path.")
    return {name: source}
