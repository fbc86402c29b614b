"""Alembic's environment and the revisions. To write the next one, see `scripts/` and tests/schema."""
