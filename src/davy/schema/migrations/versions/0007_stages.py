"""The newest version of each stage, found without reading the others."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Deleted versions get a stage of their own, as MLflow has it; the index then never meets them."""
    op.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE deleted")
    op.create_index("ix_model_versions_stage", "model_versions", ["name", "current_stage", "version"], unique=False)
