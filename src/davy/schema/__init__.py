"""The database's schema: `tables` says what there is, `migrations` how an older database gets there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davy.store.database import Database

HEAD = "0011"
MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str | Path, *, folder: Path | None = None) -> Database:
    """The database at this URL or path, at this version's schema; a new file is made where there is none.

    Args:
        folder: where the files that go with a database on a server are kept.
    """
    from davy.store.database import Database

    database = Database(url, head=HEAD, migrations=MIGRATIONS, folder=folder)
    database.migrate()
    return database
