"""`davy pause`: hold a release by hand."""

from __future__ import annotations

from davy.cli.hand import by_hand

command = by_hand("pause", (
    "Hold the release of MODEL where it is: its traffic stays, and nothing is decided.\n\n"
    "Go on with davy resume."))
