"""Numbers and NaN apart in the index that orders runs by a metric."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Put `is_nan` into the index."""
    op.drop_index("ix_latest_metrics_order", table_name="latest_metrics")
    op.create_index("ix_latest_metrics_order", "latest_metrics", ["key", "is_nan", "value", "run_id"])
