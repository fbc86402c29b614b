"""The newest version of each stage, found without reading the others."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Deleted versions get a stage of their own, as MLflow has it; the index then never meets them. Native versions get the place of their files."""
    op.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE deleted")
    op.execute(
        "UPDATE model_versions SET storage_location = (SELECT artifact_uri || '/model' FROM runs WHERE runs.run_id = model_versions.run_id)"
        " WHERE format IS NOT NULL AND run_id IN (SELECT owner FROM artifacts WHERE path >= 'model/' AND path < 'model0')"
    )
    op.create_index("ix_model_versions_stage", "model_versions", ["name", "current_stage", "version"], unique=False)
