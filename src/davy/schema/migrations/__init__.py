"""Alembic's environment and the revisions. tests/schema fails until they lead to exactly what tables.py says."""
