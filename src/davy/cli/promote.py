"""`davy promote`: end the comparison a release by hand."""

from __future__ import annotations

from davy.cli.hand import by_hand

command = by_hand("promote", (
    "Give all of MODEL's traffic to the version that is being released, whatever the evidence says by now.\n\n"
    "This is also the approval that a release waits for when davy.toml has release.approval = true."))
