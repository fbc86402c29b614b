"""What Alembic runs: migrations on the connection that the database hands over, inside its one transaction."""

from alembic import context

from davy.schema.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
