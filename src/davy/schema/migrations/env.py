"""What Alembic runs: migrations on the connection that the database hands over, inside its one transaction."""

from typing import Any

import sqlalchemy as sa
from alembic import context

from davy.schema.tables import metadata


def _as_in_sqlite(table: sa.Table, connection: sa.Connection, **_: Any) -> None:
    """Let PostgreSQL order and compare texts by their bytes and give each whole number 64 bits, whatever its database was made with."""
    if connection.dialect.name == "postgresql":
        for column in table.columns:
            if isinstance(column.type, sa.String):
                column.type = column.type.copy()
                column.type.collation = "C"
            elif isinstance(column.type, sa.Integer):
                column.type = sa.BigInteger()


_ODD = """
    SELECT attrelid::regclass AS table, quote_ident(attname) AS column, format_type(atttypid, atttypmod) AS type, atttypid = 'int4'::regtype AS whole
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped AND relname = ANY(:names)
    AND (collname <> 'C' OR atttypid = 'int4'::regtype)"""


def _mend_added() -> None:
    """The same for columns that were added to a table."""
    connection = context.get_bind()
    if connection.dialect.name == "postgresql":
        for odd in connection.execute(sa.text(_ODD), {"names": list(metadata.tables)}).all():
            kind = "bigint" if odd.whole else f'{odd.type} COLLATE "C"'
            connection.exec_driver_sql(f"ALTER TABLE {odd.table} ALTER COLUMN {odd.column} TYPE {kind}")


def _lock() -> None:
    """Wait for whoever writes, and hold the others off, in PostgreSQL: children before parents as an insert does, so that nobody waits in a circle."""
    connection = context.get_bind()
    if connection.dialect.name == "postgresql":
        there = set(sa.inspect(connection).get_table_names())
        if held := [table.name for table in reversed(metadata.sorted_tables) if table.name in there]:
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(held)} IN SHARE MODE")


context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
sa.event.listen(sa.Table, "before_create", _as_in_sqlite)
try:
    with context.begin_transaction():
        _lock()
        context.run_migrations()
        _mend_added()
finally:
    sa.event.remove(sa.Table, "before_create", _as_in_sqlite)
