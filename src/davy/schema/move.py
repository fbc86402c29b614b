"""A whole database copied into another, of the same kind or not: every row of every table, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.errors import Conflict, Different
from davy.schema.tables import experiments, metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from davy.store.database import Database

ROWS = 500


def copy_database(source: Database, target: Database, *, told: Callable[[int], object] = lambda rows: None) -> dict[str, int]:
    """Copy all rows in one transaction, in which nobody writes to the source; returns how many each table has, counted at the target.

    Args:
        target: open, and as new.
        told: called with the number of rows that were copied since it was last called.

    Raises:
        Conflict: the target holds something already.
        Different: the two sides do not count the same; nothing was copied.
        Unavailable: either database is away, or somebody wrote to it for too long.
    """
    with target.begin() as there:
        _require_new(there)
        for table in reversed(metadata.sorted_tables):
            there.execute(sa.delete(table))
        with source.begin() as here:
            for table in metadata.sorted_tables:
                for rows in here.execution_options(yield_per=ROWS).execute(sa.select(table)).mappings().partitions():
                    there.execute(sa.insert(table), [dict(row) for row in rows])
                    told(len(rows))
            counts, found = _counts(here), _counts(there)
        if counts != found:
            wrong = ", ".join(name for name in counts if counts[name] != found[name])
            raise Different(f"The two sides differ in {wrong}.", "Every row must arrive.", "Report this: it is a bug in Davy, and nothing was copied.")
        _continue_numbers(there)
    return found


def count_rows(database: Database) -> int:
    """How many rows there are in all tables."""
    with database.read() as connection:
        return sum(_counts(connection).values())


def _require_new(connection: sa.Connection) -> None:
    """A new database has the first experiment, and nothing else."""
    held = {name: count for name, count in _counts(connection).items() if count > (1 if name == experiments.name else 0)}
    if held:
        name, count = next(iter(held.items()))
        raise Conflict(f"The database to move to is not empty: {name} has {count:,} rows.", "What is there is never mixed with what comes.",
                       "Name a new one, or drop that one first if nobody needs it.")


def _counts(connection: sa.Connection) -> dict[str, int]:
    return {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in metadata.sorted_tables}


def _continue_numbers(connection: sa.Connection) -> None:
    """PostgreSQL counts numbers of experiments by itself, and has not seen those that came with their rows."""
    if connection.dialect.name == "postgresql":
        highest = connection.scalar(sa.select(sa.func.max(experiments.c.experiment_id))) or 0
        connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), :next, false)"), {"next": highest + 1})
