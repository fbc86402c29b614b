"""Blobs that are collected, and the way from a blob to what points at it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of collected blobs and the index of artifacts by digest."""
    op.create_table(
        "collected_blobs",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("began", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_collected_blobs")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_artifacts_digest", "artifacts", ["digest"], unique=False)
