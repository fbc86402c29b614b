"""`davy.agg`: what a view takes over its events, and how far back."""

from __future__ import annotations

from typing import Any

from davy.core.time import UNITS, format_duration, parse_duration
from davy.errors import DefinitionError, nearest
from davy.features.calls import checked_call
from davy.features.definition import Aggregate, FeatureSpec

EXACT_HOP = 1
_HOPS = ((2 * UNITS["h"], UNITS["min"]), (2 * UNITS["d"], 15 * UNITS["min"]), (14 * UNITS["d"], UNITS["h"]), (60 * UNITS["d"], 6 * UNITS["h"]))


class Agg:
    """An aggregate that becomes a feature when a view gives it a name."""

    def __init__(self, aggregate: Aggregate, field: str | None, window: str | None, hop: str | None, ttl: str | None = None) -> None:
        self.aggregate, self.field = aggregate, field
        self.window = parse_duration(window) if window is not None else None
        self.ttl = parse_duration(ttl) if ttl is not None else None
        self.hop = hop

    def spec(self, name: str, where: str) -> FeatureSpec:
        """The checked feature of this name."""
        if self.window is None:
            if self.aggregate != "last":
                raise DefinitionError(f"{where} has no window.", "Every aggregate but last is taken over a window.", 'Write for example window="1h".')
            if self.hop is not None:
                raise DefinitionError(f"{where} has a hop but no window.", "A hop is the step of a window's far edge.", "Give it a window, or remove the hop.")
            return FeatureSpec(name, self.aggregate, self.field, None, 1, self.ttl)
        if self.ttl is not None:
            raise DefinitionError(f"{where} has a window and a ttl.", "A last has one or the other.", "Remove one.")
        if self.window <= 0:
            raise DefinitionError(f"{where} has a window of {self.window} µs.", "A window is longer than nothing.", 'Write for example window="1h".')
        hop = self._hop(where)
        return FeatureSpec(name, self.aggregate, self.field, self.window, hop)

    def _hop(self, where: str) -> int:
        assert self.window is not None
        if self.hop == "exact":
            return EXACT_HOP
        hop = parse_duration(self.hop) if self.hop is not None else next((hop for limit, hop in _HOPS if self.window <= limit), UNITS["d"])
        if hop <= 0 or self.window % hop:
            raise DefinitionError(
                f"{where}: the window {format_duration(self.window)} is not a multiple of its hop {format_duration(hop)}.",
                "The far edge of a window moves in hops.",
                'Change one of them, or write hop="exact".',
            )
        return hop


class _Aggregates:
    """`davy.agg`: the aggregates. `field` names a column of the view's stream, `window` reaches back from the asked time, `hop` is the step of its far edge."""

    @checked_call("agg.count")
    def count(self, field: str | None = None, *, window: str, hop: str | None = None) -> Any:
        """How many events (or how many with a value in `field`); 0 over none."""
        return Agg("count", field, window, hop)

    @checked_call("agg.sum")
    def sum(self, field: str, *, window: str, hop: str | None = None) -> Any:
        """The exact sum; 0 over none."""
        return Agg("sum", field, window, hop)

    @checked_call("agg.mean")
    def mean(self, field: str, *, window: str, hop: str | None = None) -> Any:
        """The exact sum over the count, rounded once; null over none."""
        return Agg("mean", field, window, hop)

    @checked_call("agg.std")
    def std(self, field: str, *, window: str, hop: str | None = None) -> Any:
        """The sample standard deviation (n - 1); null below two values."""
        return Agg("std", field, window, hop)

    @checked_call("agg.min")
    def min(self, field: str, *, window: str, hop: str | None = None) -> Any:
        """The smallest value; null over none."""
        return Agg("min", field, window, hop)

    @checked_call("agg.max")
    def max(self, field: str, *, window: str, hop: str | None = None) -> Any:
        """The largest value; null over none."""
        return Agg("max", field, window, hop)

    @checked_call("agg.last")
    def last(self, field: str, *, window: str | None = None, ttl: str | None = None, hop: str | None = None) -> Any:
        """The newest non-null value by (time, offset): within a window, within a time to live, or ever."""
        return Agg("last", field, window, hop, ttl)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"davy.agg has no {name!r}: {nearest(name, (known for known in vars(_Aggregates) if not known.startswith('_')))}")


agg = _Aggregates()
