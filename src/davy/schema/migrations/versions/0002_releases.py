"""Releases: their state, their timeline, and what a gateway needs to know of the one in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of releases, and widen the traffic."""
    # Copied, not renamed: in PostgreSQL a renamed table keeps the name of its primary key, which the new one wants.
    op.execute("CREATE TABLE traffic_before AS SELECT * FROM traffic")
    op.drop_table("traffic")
    op.create_table(
        "traffic",
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("release", sa.String(length=32), server_default="", nullable=False),
        sa.Column("stable", sa.Integer(), nullable=True),
        sa.Column("shadow", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_traffic")),
    )
    op.execute("INSERT INTO traffic (model, revision, weights, updated, actor) SELECT model, revision, weights, updated, actor FROM traffic_before")
    op.drop_table("traffic_before")
    op.create_table(
        "releases",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("stable", sa.Integer(), nullable=False),
        sa.Column("strategy", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
    )
    op.create_index("ix_releases_recent", "releases", ["model", "created"], unique=False)
    op.create_index("uq_releases_open", "releases", ["model"], unique=True, sqlite_where=sa.text("ended IS NULL"), postgresql_where=sa.text("ended IS NULL"))
    op.create_table(
        "release_points",
        sa.Column("release", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["release"], ["releases.id"], name=op.f("fk_release_points_release"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("release", "number", name=op.f("pk_release_points")),
        sqlite_with_rowid=False,
    )
