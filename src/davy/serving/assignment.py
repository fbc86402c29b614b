"""Which version answers: a hash of the routing key against cumulative weights.

The point a key falls on depends on the model and the key alone, and versions lie along [0, 1) in the order of
their numbers. So a key keeps its version for as long as the weights stand (sticky), each version receives its
weight of the keys (exact), and when weight moves between two versions only keys of the one that shrinks move
(monotone): a ramp from 1 % to 100 % never sends a key back.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping

_UNIT = 2.0**-53


def point(salt: str, key: str) -> float:
    """Where the key lies in [0, 1): 53 bits of BLAKE2b, the same on every machine and in every release of Python."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "big") >> 11) * _UNIT


def arms(weights: Mapping[int, float], stable: int | None = None) -> dict[int, str]:
    """`stable` for the version that is named so, else for the heaviest (of equals the oldest); `canary` for the others."""
    if not weights:
        return {}
    if stable is None:
        stable = max(weights, key=lambda version: (weights[version], -version))
    return {version: "stable" if version == stable else "canary" for version in weights}


class Assignment:
    """Weights of one model, ready to be asked.

    Args:
        salt: the model's name.
        weights: version number -> weight; a version of weight 0 never answers.
    """

    __slots__ = ("_bounds", "_only", "_salt", "_versions")

    def __init__(self, salt: str, weights: Mapping[int, float]) -> None:
        self._salt = salt
        self._versions = tuple(version for version in sorted(weights) if weights[version] > 0)
        self._only = self._versions[0] if len(self._versions) == 1 else None
        total, bounds = 0.0, []
        for version in self._versions[:-1]:
            total += weights[version]
            bounds.append(total)
        self._bounds = bounds

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that may answer, in the order in which they lie along [0, 1)."""
        return self._versions

    def version(self, key: str) -> int:
        """The version that answers this routing key."""
        if self._only is not None:
            return self._only
        return self._versions[bisect_right(self._bounds, point(self._salt, key))]
