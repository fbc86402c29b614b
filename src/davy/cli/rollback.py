"""`davy rollback`: take back a release by hand."""

from __future__ import annotations

from davy.cli.hand import by_hand

command = by_hand("roll back", (
    "Give all of MODEL's traffic back to stable: during a release, or after the last one was promoted.\n\n"
    "No approval is needed. Gateways follow within a second."))
