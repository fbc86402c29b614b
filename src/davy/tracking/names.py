"""Names for runs that nobody named."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davy.core.clock import Clock

_ADJECTIVES = ("brisk", "calm", "clear", "deep", "eager", "fair", "gentle", "keen", "level", "lucid", "merry", "noble", "plain", "quiet", "rapid", "steady")
_NOUNS = ("anchor", "beacon", "bridge", "canal", "comet", "delta", "ember", "flint", "harbor", "lantern", "meadow",
          "orchard", "prism", "river", "summit", "valley")


def made_up(clock: Clock) -> str:
    """An adjective, a noun and a number: `calm-river-117`."""
    adjective, noun, number = clock.token(3)
    return f"{_ADJECTIVES[adjective % len(_ADJECTIVES)]}-{_NOUNS[noun % len(_NOUNS)]}-{number}"
