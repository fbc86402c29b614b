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


context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
sa.event.listen(sa.Table, "before_create", _as_in_sqlite)
try:
    with context.begin_transaction():
        context.run_migrations()
finally:
    sa.event.remove(sa.Table, "before_create", _as_in_sqlite)
