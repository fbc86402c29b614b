"""What gates found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of gates."""
    op.create_table(
        "gates",
        sa.Column("gate_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("stable", sa.Integer(), nullable=True),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], name=op.f("fk_gates_name_version"), ondelete="CASCADE",
                                onupdate="CASCADE"),
        sa.PrimaryKeyConstraint("gate_id", name=op.f("pk_gates")),
    )
    op.create_index("ix_gates_version", "gates", ["name", "version", "seq"], unique=False)
