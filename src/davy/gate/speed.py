"""Latency and memory, measured in real workers, candidate and stable taking turns so that the machine's moods hit both alike."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from davy.core.time import format_duration, parse_duration
from davy.gate.asking import packed
from davy.gate.check import Check, Finding, failed, no_data, passed

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate

ROUNDS, PAIRS, ROUND_SECONDS = 6, 250, 0.4
WARM_UPS = 30
FEWEST_PAIRS = 30
SMALLEST_SLOWDOWN_US = 2000.0
NORMAL_95 = 1.959963984540054
TAIL, TAIL_LEVEL = 0.01, 0.001
LEAK_BYTES, LEAK_BYTES_PER_REQUEST = 512 << 10, 512
_MEASURED = "speed"


class Measured(msgspec.Struct, frozen=True):
    """What the rounds gave: microseconds of each request per version, in the order of asking, and resident bytes before and after each round."""

    took: dict[int, list[float]]
    memory: dict[int, list[int]]


def measured(candidate: Candidate) -> Measured:
    """One measurement that both checks read."""
    found = candidate.shared.get(_MEASURED)
    if isinstance(found, Measured):
        return found
    versions = [version.version for version in candidate.both]
    rows = {version.version: list(packed(candidate.sample_for(version))) for version in candidate.both}
    stand = candidate.stand
    stand.time_pairs(rows, pairs=WARM_UPS, seconds=ROUND_SECONDS)
    took: dict[int, list[float]] = {version: [] for version in versions}
    memory = {version: [stand.memory(version) or 0] for version in versions}
    for _ in range(ROUNDS):
        for version, times in stand.time_pairs(rows, pairs=PAIRS, seconds=ROUND_SECONDS).items():
            took[version] += times
            memory[version].append(stand.memory(version) or 0)
    made = candidate.shared[_MEASURED] = Measured(took, memory)
    return made


def latency(candidate: Candidate) -> Finding:
    """Fails beyond the limit, or when it is surely slower than stable: in the middle (median of paired ratios) or in the tail (paired sign test).

    Beyond the limit means that more than one request in a hundred surely is, and surely more often than stable in the same run: else it
    is the machine, or the limit, and nothing is said. Differences under 2 ms never stop a version.
    """
    found = measured(candidate)
    ours, limit = np.array(found.took[candidate.version.version]), parse_duration(candidate.settings.latency)
    over = int((ours > limit).sum())
    evidence: dict[str, Any] = {"requests": len(ours), **_quantiles(ours), "limit_us": limit, "beyond_limit": over}
    theirs = np.array(found.took[candidate.stable.version]) if candidate.stable is not None else None
    told = f"A row takes p50 {_ms(ours, 0.5)}, p99 {_ms(ours, 0.99)} of at most {format_duration(limit)}"
    if _wilson_low(over, len(ours)) > TAIL:
        if candidate.stable is not None and theirs is not None and _exceeds(ours, theirs, limit)[2] >= TAIL_LEVEL:
            return no_data(f"{told}, and {candidate.stable.reference} is beyond the limit in the same run too.",
                           fix="Measure on a quieter machine, or raise [gate] latency.", **evidence, stable=_quantiles(theirs))
        return failed(f"{over} of {len(ours)} single rows took longer than {format_duration(limit)}: p50 {_ms(ours, 0.5)}, p99 {_ms(ours, 0.99)}.",
                      fix="Make the model smaller or faster, or raise [gate] latency.", **evidence)
    if len(ours) < FEWEST_PAIRS:
        return no_data(f"{told}; {len(ours)} requests are too few to say more.", **evidence)
    if candidate.stable is None or theirs is None:
        return passed(f"{told}; {candidate.alone}.", **evidence)
    return _beside(candidate.stable.reference, candidate.settings.slowdown, ours, theirs, told, evidence)


def _beside(stable: str, factor: float, ours: np.ndarray, theirs: np.ndarray, told: str, evidence: dict[str, Any]) -> Finding:
    ratio, low, high = median_interval(ours / theirs)
    slower = float(np.median(ours - theirs))
    edge = factor * float(np.quantile(theirs, 0.9)) + SMALLEST_SLOWDOWN_US
    more, less, p = _exceeds(ours, theirs, edge)
    evidence["stable"] = {"version": stable, **_quantiles(theirs), "ratio": ratio, "low": low, "high": high, "slower_us": slower,
                          "method": "median of paired ratios, interval from order statistics; exact sign test on the pairs of which one is beyond the edge",
                          "edge_us": edge, "only_candidate_beyond": more, "only_stable_beyond": less, "p": p}
    beside = f"{ratio:.2f} times {stable} in the same run, 95 % [{low:.2f}, {high:.2f}]"
    faster = "Make the model smaller or faster, or raise [gate] slowdown."
    if low > factor and slower > SMALLEST_SLOWDOWN_US:
        return failed(f"It takes {beside}; at most {factor:g} times is allowed. p50 {_ms(ours, 0.5)}, p99 {_ms(ours, 0.99)}.", fix=faster, **evidence)
    if p < TAIL_LEVEL and more - less > TAIL * len(ours):
        return failed(f"{more} of {len(ours)} rows took longer than {edge / 1000:.2f} ms, and {less} of those that {stable} answered in turn: "
                      "its tail is slower.", fix=faster, **evidence)
    return passed(f"{told}, {beside}.", **evidence)


def _exceeds(ours: np.ndarray, theirs: np.ndarray, edge: float) -> tuple[int, int, float]:
    """In how many pairs only ours is beyond the edge, in how many only theirs, and the p-value of that."""
    more, less = int(((ours > edge) & (theirs <= edge)).sum()), int(((ours <= edge) & (theirs > edge)).sum())
    return more, less, sign_test(more, less)


def sign_test(more: int, less: int) -> float:
    """The one-sided exact p-value that of two equally slow versions one is beyond the edge so much more often (McNemar's test).

    >>> sign_test(5, 0)
    0.03125
    """
    count = more + less
    ways: int = sum(math.comb(count, hits) for hits in range(more, count + 1))
    return float(Fraction(ways, 2**count))


def memory(candidate: Candidate) -> Finding:
    """Fails beyond the limit, or when what the worker holds grows round after round with the requests it answers."""
    found = measured(candidate)
    held, asked = found.memory[candidate.version.version], len(found.took[candidate.version.version])
    if not held[0]:
        return no_data("The system does not tell how much memory a process holds.")
    limit = candidate.settings.memory_mb << 20
    evidence = {"bytes": held, "requests": asked, "limit": limit}
    if held[-1] > limit:
        return failed(f"Its worker holds {_mb(held[-1])}; at most {_mb(limit)} is allowed.", fix="Make the model smaller, or raise [gate] memory_mb.",
                      **evidence)
    grown = growth(held)
    beside = ""
    if candidate.stable is not None:
        theirs = found.memory[candidate.stable.version]
        evidence["stable"] = {"version": candidate.stable.reference, "bytes": theirs}
        beside = f", that of {candidate.stable.reference} {_mb(theirs[-1])}"
    rounds = (len(held) - 2) / ROUNDS
    if grown is not None and grown / max(asked * rounds, 1) >= LEAK_BYTES_PER_REQUEST:
        each = grown / max(asked * rounds, 1)
        left = int((limit - held[-1]) / each)
        return failed(f"Its memory grew round after round, by {each / 1024:,.1f} KB a request: {_mb(limit)} are reached after {left:,} more.",
                      fix="Its predict keeps what it was asked: store nothing on the object or in modules while predicting.", grown=grown, **evidence)
    return passed(f"Its worker holds {_mb(held[-1])} of at most {_mb(limit)}{beside}, and did not grow with {asked:,} requests.", **evidence)


def growth(held: list[int]) -> int | None:
    """Bytes grown after the first round, when the growth is steady: in each round but one, and half a megabyte in all. None: no leak is seen."""
    steps = np.diff(held[1:])
    total = held[-1] - held[1]
    return int(total) if total >= LEAK_BYTES and int((steps > 0).sum()) >= len(steps) - 1 else None


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median with its distribution-free 95 % interval from order statistics (normal approximation to the binomial)."""
    ordered, count = np.sort(values), len(values)
    reach = NORMAL_95 * math.sqrt(count) / 2
    low, high = max(math.floor(count / 2 - reach), 0), min(math.ceil(count / 2 + reach), count - 1)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def _wilson_low(hits: int, count: int) -> float:
    share, square = hits / count, NORMAL_95**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    return centre - NORMAL_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)


def _quantiles(times: np.ndarray) -> dict[str, float]:
    return {f"p{share:g}_us": float(np.quantile(times, share / 100)) for share in (50, 90, 99)}


def _ms(times: np.ndarray, share: float) -> str:
    return f"{np.quantile(times, share) / 1000:.2f} ms"


def _mb(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MB"


CHECKS = (
    Check("latency", "It answers within the limit, and not much slower than stable", latency),
    Check("memory", "It stays within its memory, however often it is asked", memory),
)
