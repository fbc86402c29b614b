"""`davy resume`: go on with a release by hand."""

from __future__ import annotations

from davy.cli.hand import by_hand

command = by_hand("resume", (
    "Go on with the paused release of MODEL.\n\n"
    "After an alarm of the sample ratio its evidence is counted anew from here on."))
