"""What a feature is, in the most obvious way. Never optimised."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from davy.features.definition import FeatureSpec


def value(feature: FeatureSpec, events: list[dict[str, Any]], t: int, watermark: int, scale: int) -> Any:
    """`events` are one entity's, each with offset, time and stored values by field."""
    start = -math.inf if feature.window is None else (t - feature.window) // feature.hop * feature.hop
    start = t - feature.ttl if feature.ttl is not None else start
    known = [event for event in events if start <= event["time"] < t and event["offset"] <= watermark]
    if feature.field is None:
        return len(known)
    known = sorted((e for e in known if e[feature.field] is not None), key=lambda e: (e["time"], e["offset"]))
    stored = [event[feature.field] for event in known]
    if feature.aggregate == "count":
        return len(stored)
    if feature.aggregate == "sum":
        return sum(stored) / 10**scale if scale else sum(stored)
    if not stored:
        return None
    if feature.aggregate == "mean":
        return float(Fraction(sum(stored), len(stored) * 10**scale))
    if feature.aggregate == "std":
        mean = Fraction(sum(stored), len(stored))
        variance = sum((x - mean) ** 2 for x in stored) / (len(stored) - 1) / 10 ** (2 * scale) if len(stored) > 1 else None
        return None if variance is None else math.sqrt(float(variance))
    chosen = {"min": min, "max": max, "last": lambda values: values[-1]}[feature.aggregate](stored)
    return chosen / 10**scale if scale else chosen
