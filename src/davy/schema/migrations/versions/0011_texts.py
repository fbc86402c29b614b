"""Params and tags by their values, short ones; a parent's children are found by that too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the two indexes, and drop the one of parents."""
    short = sa.text("length(value) <= 100")
    for table in ("params", "tags"):
        op.create_index(f"ix_{table}_value", table, ["key", "value", "run_id"], sqlite_where=short, postgresql_where=short)
    op.drop_index("ix_tags_parent", table_name="tags")
