"""`davy abort`: end a release by hand."""

from __future__ import annotations

from davy.cli.hand import by_hand

command = by_hand("abort", (
    "End the release of MODEL without a verdict: all traffic goes back to stable.\n\n"
    "After that, weights can be set by hand again."))
