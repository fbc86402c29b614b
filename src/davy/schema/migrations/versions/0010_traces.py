"""Traces of programs, found by tags and metadata."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "traces",
        sa.Column("trace_id", sa.String(length=250), nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("client_request_id", sa.String(length=500), nullable=True),
        sa.Column("request_preview", sa.Text(), nullable=True),
        sa.Column("response_preview", sa.Text(), nullable=True),
        sa.Column("assessments", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.experiment_id"], name=op.f("fk_traces_experiment_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trace_id", name=op.f("pk_traces")),
    )
    op.create_index("ix_traces_recent", "traces", ["experiment_id", "time", "trace_id"], unique=False)
    for table in ("trace_tags", "trace_metadata"):
        op.create_table(
            table,
            sa.Column("trace_id", sa.String(length=250), nullable=False),
            sa.Column("key", sa.String(length=250), nullable=False),
            sa.Column("value", sa.Text(), nullable=False),
            sa.ForeignKeyConstraint(["trace_id"], ["traces.trace_id"], name=op.f(f"fk_{table}_trace_id"), ondelete="CASCADE"),
            sa.PrimaryKeyConstraint("trace_id", "key", name=op.f(f"pk_{table}")),
            sqlite_with_rowid=False,
        )
