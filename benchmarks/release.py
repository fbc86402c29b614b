"""How soon a release decides, and how often wrongly: seeded simulations with the controller's own kernels, every event looked at.

    python benchmarks/release.py [--runs 2000]

A good version is released many times under a constant share, a ramp with a daily cycle, sticky users and autocorrelated load:
`rolled_back` must stay at most 0.05. A bad one is found after `median` requests (`p80`: of four runs in five); beside it
stands `fixed_horizon`, what a one-sided z-test of 80 % power needs that was planned with the true effect, may be looked at
once, and is lost when the effect is another. Also measures what the judge costs for each logged request. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from statistics import NormalDist
from typing import Any

import numpy as np

from davy.release import simulate
from davy.release.evidence import Judge, Past
from davy.release.policy import Policy
from davy.serving.predictions import PredictionRecord


def wrongly(runs: int) -> dict[str, Any]:
    """How often a version that is as good as stable is rolled back, or a bad one promoted."""
    cases = {
        "constant share 10 %": simulate.errors(0.01, 0.01, 0.1, runs=runs, requests=60_000, seed=101),
        "constant share 50 %": simulate.errors(0.01, 0.01, 0.5, runs=runs, requests=60_000, seed=102),
        "ramp with a daily cycle": simulate.ramp(0.01, 1.0, runs=runs, requests=50_000, seed=103),
        "sticky users": simulate.sticky(1.0, 0.5, runs=runs, requests=20_000, seed=104),
        "sticky users, each request counted (not done)": simulate.sticky(1.0, 0.5, runs=runs, requests=20_000, seed=104, by_key=False),
        "latency": simulate.latency(0.5, runs=runs, requests=5_000, seed=105),
        "latency, autocorrelated load": simulate.latency(0.5, runs=runs, requests=5_000, seed=106, load=0.5),
        "shadow pairs": simulate.shadow(0.01, 0.01, runs=runs, requests=20_000, seed=107),
        "sample ratio": simulate.sample_ratio(0.1, 0.1, runs=runs, requests=20_000, seed=108),
        "revenue, heavy tail, 10 %": simulate.revenue(1.0, 0.1, runs=runs, requests=5_000, seed=109),
    }
    found: dict[str, Any] = {name: {"rolled_back": round(float(np.isfinite(hits).mean()), 4)} for name, hits in cases.items()}
    bad = simulate.errors(0.01, 0.02, 0.5, runs=runs, requests=20_000, seed=110, null=2.0)
    return {**found, "errors 1 to 2 %, delta 100 %": {"promoted": round(float(np.isfinite(bad).mean()), 4)}}


def soon(runs: int) -> dict[str, Any]:
    """After how many requests a bad version is found, or a good one shown to be harmless."""
    tail = tail_exceedance()
    cases = {
        "errors 1 to 2 %, 10 %": (simulate.errors(0.01, 0.02, 0.1, runs=runs, requests=80_000, seed=201), simulate.fixed_horizon(0.01, 0.02, 0.1)),
        "errors 1 to 2 %, 50 %": (simulate.errors(0.01, 0.02, 0.5, runs=runs, requests=30_000, seed=202), simulate.fixed_horizon(0.01, 0.02, 0.5)),
        "errors 1 to 5 %, 10 %": (simulate.errors(0.01, 0.05, 0.1, runs=runs, requests=20_000, seed=203), simulate.fixed_horizon(0.01, 0.05, 0.1)),
        "p99 +50 % in the tail only, 50 %": (simulate.latency(0.5, runs=runs, requests=10_000, seed=204, tail=1.5), simulate.fixed_horizon(*tail, 0.5)),
        "all latencies x 1.5, 50 %": (simulate.latency(0.5, runs=runs, requests=1_500, seed=205, shift=1.5),
                                      simulate.fixed_horizon(0.5, median_exceedance(), 0.5)),
        "shadow, errors 1 to 2 %": (simulate.shadow(0.01, 0.02, runs=runs, requests=10_000, seed=206), None),
        "ramp, errors doubled": (simulate.ramp(0.01, 2.0, runs=runs, requests=60_000, seed=207), None),
        "harmless shown at delta 100 %, errors 1 %, 50 %": (simulate.errors(0.01, 0.01, 0.5, runs=runs, requests=40_000, seed=208, null=2.0), None),
        "harmless shown at delta 20 %, errors 5 %, 50 %": (simulate.errors(0.05, 0.05, 0.5, runs=runs // 4, requests=80_000, seed=209, null=1.2), None),
    }
    return {name: {"found": round(float(np.isfinite(hits).mean()), 3), "median": whole(np.median(hits)), "p80": whole(np.quantile(hits, 0.8, method="higher")),
                   "fixed_horizon": fixed} for name, (hits, fixed) in cases.items()}


def tail_exceedance() -> tuple[float, float]:
    """How often an answer is slower than stable's p99.9, of stable and of a version whose slowest hundredth takes half as long again."""
    slack = math.log(1 + simulate.SLACK_US / (simulate.MEDIAN_US * math.exp(simulate.SIGMA * NormalDist().inv_cdf(0.999))))
    return 0.001, 1 - NormalDist().cdf(NormalDist().inv_cdf(0.999) - (math.log(1.5) - slack) / simulate.SIGMA)


def median_exceedance() -> float:
    """How often a version whose answers all take half as long again is slower than stable's median."""
    return 1 - NormalDist().cdf((math.log(1 + simulate.SLACK_US / simulate.MEDIAN_US) - math.log(1.5)) / simulate.SIGMA)


def cost() -> dict[str, float]:
    """Microseconds of the judge for each logged request, and for one look at everything."""
    draws = np.random.default_rng(301)
    records = []
    for number in range(50_000):
        canary = bool(draws.random() < 0.5)
        version, arm = (2, "canary") if canary else (1, "stable")
        records.append(PredictionRecord(f"{number:032x}", 0, 0, "late", version, arm, False, f"k{number}", "", {}, {}, {}, [], 0.5, 200, 50,
                                        int(100 * draws.lognormal()), "k", 0.5, "ok", "r"))
    judge = Judge(Policy(), "r", 2, Past(20_000, 20, (150.0, 400.0, 1_000.0, 2_000.0)))
    before = time.perf_counter()
    for record in records:
        judge.add(record)
    added = time.perf_counter()
    judge.findings()
    return {"us_per_request": round((added - before) / len(records) * 1e6, 2), "us_per_look": round((time.perf_counter() - added) * 1e6, 1)}


def whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2_000)
    given = parser.parse_args()
    print(json.dumps({"runs": given.runs, "wrongly": wrongly(given.runs), "soon": soon(given.runs), "cost": cost()}, indent=1))


if __name__ == "__main__":
    main()
