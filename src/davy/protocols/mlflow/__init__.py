"""MLflow's REST protocol over Davy's tracking and registry: thin translation, so that the unmodified `mlflow` client works."""

from __future__ import annotations

VERSION = "3.17.2"
"""The release of MLflow whose protocol is spoken; clients ask for it at `/version`."""
