"""The database's schema: `tables` says what there is, `migrations` how an older database gets there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davy.store.database import Database

HEAD = "0005"
MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str | Path) -> Database:
    """The database at this URL or path, at this version's schema; a new one is made where there is none."""
    from davy.store.database import Database

    database = Database(url, head=HEAD, migrations=MIGRATIONS)
    database.migrate()
    return database
