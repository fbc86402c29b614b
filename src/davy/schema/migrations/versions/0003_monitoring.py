"""What monitoring keeps: profiles, drift detectors and their alarms, cohorts of outcomes, replays, alerts and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of monitoring."""
    _found()
    _evaluated()
    _alerts()


def _found() -> None:
    op.create_table(
        "monitor_cursors",
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_monitor_cursors")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "monitor_references",
        sa.Column("training_set", sa.String(length=71), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("creation_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("training_set", name=op.f("pk_monitor_references")),
    )
    op.create_table(
        "monitor_profiles",
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(length=100), nullable=False),
        sa.Column("span", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "arm", "span", "start", name=op.f("pk_monitor_profiles")),
    )
    op.create_index("ix_monitor_profiles_recent", "monitor_profiles", ["model", "span", "start"], unique=False)
    op.create_table(
        "monitor_banks",
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reference", sa.String(length=71), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_monitor_banks")),
    )


def _evaluated() -> None:
    op.create_table(
        "monitor_alarms",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("feature", sa.String(length=500), nullable=False),
        sa.Column("began", sa.BigInteger(), nullable=False),
        sa.Column("raised", sa.BigInteger(), nullable=False),
        sa.Column("cleared", sa.BigInteger(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_monitor_alarms")),
    )
    op.create_index("ix_monitor_alarms_model", "monitor_alarms", ["model", "raised"], unique=False)
    op.create_table(
        "monitor_cohorts",
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(length=100), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "arm", "start", name=op.f("pk_monitor_cohorts")),
    )
    op.create_index("ix_monitor_cohorts_recent", "monitor_cohorts", ["model", "start"], unique=False)
    op.create_table(
        "monitor_replays",
        sa.Column("model", sa.String(length=500), nullable=False),
        sa.Column("until", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("checked", sa.BigInteger(), nullable=False),
        sa.Column("equal", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "until", name=op.f("pk_monitor_replays")),
    )


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("rule", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=500), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject", name=op.f("pk_alerts")),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("rule", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=500), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_deliveries")),
    )
    op.create_index("ix_alert_deliveries_due", "alert_deliveries", ["ended", "due"], unique=False)
