"""The judge: what counts for whom, and the same findings from the same records however they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from davy.config import Kpi
from davy.release.evidence import BURN_IN, Judge, Observation, Past, thresholds
from davy.release.findings import Finding, Findings
from davy.release.kernels import log_labels, log_mean, log_pairs
from davy.release.policy import Policy
from davy.serving.predictions import PredictionRecord

POLICY = Policy(unit="request", latency_slack=0)
GAP = 300_000
PAST = Past(10_000, 10, (100.0, 200.0, 400.0, 800.0))


def record(number: int, canary: bool, share: float = 0.5, *, status: str = "ok", arm: str = "", taken: int = 50, key: str = "",
           **changes: Any) -> PredictionRecord:
    version, weight = (2, share) if canary else (1, 1 - share)
    arm, output = arm or ("canary" if canary else "stable"), None if status in ("error", "timeout") else 0.1
    made = PredictionRecord(f"{number:032x}", number * GAP, number * GAP, "fraud", version, arm, False, key or f"k{number}", "", {}, {}, {}, [], output, taken,
                            0, taken, "k", weight, status, "r1")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def judged(records: list[PredictionRecord], policy: Policy = POLICY, past: Past = PAST, **how: Any) -> Findings:
    judge = Judge(policy, "r1", 2, past)
    for one in records:
        judge.add(one)
    return judge.findings(**how)


def metric(findings: Findings, name: str) -> Finding:
    return next(found for found in findings.metrics if found.metric == name)


def traffic(seed: int, count: int = 2_000, *, worse: float = 1.0, slower: float = 1.0) -> list[PredictionRecord]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        share = 0.05 if number < count // 2 else 0.5
        canary = bool(random.random() < share)
        failed = random.random() < 0.02 * (worse if canary else 1.0)
        taken = int(100 * random.lognormal() * (slower if canary else 1.0))
        found.append(record(number, canary, share, status="error" if failed else "ok", taken=taken))
    return found


def test_findings_are_the_kernels_over_the_records() -> None:
    records, judge = traffic(1), Judge(POLICY, "r1", 2, PAST)
    for one in records:
        judge.add(one)
    found = judge.findings()

    def steps(bad: list[PredictionRecord]) -> list[tuple[float, int, int]]:
        shares = [one.share if one.version == 2 else round(1 - one.share, 12) for one in bad]
        return [(share, shares.count(share), sum(one.version == 2 and one.share == share for one in bad)) for share in (0.05, 0.5)]

    errors = metric(found, "errors")
    assert errors.worse == pytest.approx(log_labels(steps([one for one in records if one.status == "error"])))
    assert errors.worse_limit == pytest.approx(math.log(2 / 0.05))
    answered = [one for one in records if one.status == "ok"]
    parts = [log_labels(steps([one for one in answered if one.model_time > limit])) for limit in PAST.thresholds]
    dispersions = [events.dispersion() for events in judge._latency]
    assert all(1 <= dispersion < 2 for dispersion in dispersions)
    assert metric(found, "latency").worse == pytest.approx(log_mean([part / dispersion for part, dispersion in zip(parts, dispersions, strict=True)]))
    assert (found.stable, found.canary) == (sum(one.version == 1 for one in records), sum(one.version == 2 for one in records))


def test_the_order_of_records_and_where_one_began_to_count_do_not_matter() -> None:
    records = traffic(2, worse=2.0)
    shuffled = [*(records[index] for index in np.random.default_rng(0).permutation(len(records) - 1)), records[-1]]
    assert judged(records) == judged(shuffled)


def test_what_says_nothing_about_a_version_is_passed_over() -> None:
    records = [record(number, number % 2 == 0) for number in range(100)]
    others = [record(200, True, pinned=True, arm="pinned"), record(201, False, status="fallback"), record(202, True, release="another"),
              record(203, True, release="")]
    assert judged([*records, *others]) == judged(records)


def test_a_failing_version_is_bad_and_a_better_one_fine() -> None:
    assert judged(traffic(3, 8_000, worse=4.0)).worse == ("errors",)
    assert judged(traffic(4, 4_000, slower=2.0)).worse == ("latency",)
    better = judged(traffic(5, 12_000))
    assert better.fine
    assert better.worse == ()
    assert better.needed == 0


def test_slow_answers_that_come_together_are_no_independent_coins() -> None:
    """A process that stands still makes all that it has before it slow at once: equal versions that do so alike are not told apart."""
    rolled_back = untempered = 0
    for seed in range(60):
        random, judge = np.random.default_rng(seed), Judge(POLICY, "r1", 2, PAST)
        for second in range(120):
            stands_still = [random.random() < 0.1, random.random() < 0.1]
            for number in range(20):
                canary = number % 2 == 0
                slow = stands_still[canary] or random.random() < 0.01
                judge.add(record(second * 20 + number, canary, taken=500 if slow else 50, logged=second * 1_000_000))
        rolled_back += "latency" in judge.findings().worse
        untempered += metric(judge.findings(), "latency").worse * judge._latency[2].dispersion() >= math.log(2 / 0.05)
        assert judge._latency[2].dispersion() > 3
    assert rolled_back <= 3
    assert untempered > 3


def test_harm_that_comes_together_on_one_side_only_is_still_found() -> None:
    records = []
    for second in range(40):
        for number in range(20):
            canary = number % 2 == 0
            records.append(record(second * 20 + number, canary, taken=500 if canary and second % 3 == 0 else 50, logged=second * 1_000_000))
    assert judged(records).worse == ("latency",)


@pytest.mark.parametrize(("tail", "shift", "runs", "requests"), [(1.5, 1.0, 25, 8_000), (1.0, 1.5, 25, 1_000), (1.0, 1.0, 60, 2_000)])
def test_the_judge_is_as_quick_and_as_careful_as_its_kernels(tail: float, shift: float, runs: int, requests: int) -> None:
    """Log-normal latencies, twenty requests a second, looked at every twenty; the whole judge, with tempering, slack and keys."""
    median, found = 10_000.0, []
    limits = tuple(median * math.exp(0.5 * z) for z in (0.0, 1.2816, 2.3263, 3.0902))
    for seed in range(runs):
        random, judge, when = np.random.default_rng(seed), Judge(Policy(alpha=0.1), "r1", 2, Past(20_000, 0, limits)), math.inf
        labels, taken = random.random(requests) < 0.5, median * np.exp(0.5 * random.standard_normal(requests))
        taken = np.where(labels & (taken > limits[2]), taken * tail, taken) * np.where(labels, shift, 1.0)
        for number in range(requests):
            judge.add(record(number, bool(labels[number]), taken=int(taken[number]), logged=number * 50_000))
            if number % 20 == 19 and judge.findings().worse:
                when = number + 1
                break
        found.append(when)
    if tail == shift == 1.0:
        assert np.isfinite(found).mean() <= 0.1
    else:
        assert np.median(found) <= (3_000 if tail > 1 else 400)


def test_no_evidence_is_neither_pass_nor_fail_and_says_what_is_missing() -> None:
    nothing = judged([])
    assert [found.verdict for found in nothing.metrics] == ["not enough data", "not enough data"]
    assert nothing.needed is None
    early = judged(traffic(6, 200))
    assert metric(early, "latency").verdict == "not enough data"
    assert early.needed is not None
    assert 50 < early.needed < 50_000


def test_the_forecast_is_about_right() -> None:
    """What is forecast half-way comes true on the average."""
    policy = Policy(unit="request", tolerated={"errors": 0.0})
    ratios = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        judge, number, forecast = Judge(policy, "r1", 2, PAST), 0, 0
        while metric(judge.findings(), "errors").verdict != "fine":
            for _ in range(100):
                number += 1
                judge.add(record(number, bool(random.random() < 0.5), status="error" if random.random() < 0.05 else "ok"))
            if number == 300:
                forecast = number + (metric(judge.findings(), "errors").needed or 0)
        ratios.append(number / max(forecast, 1))
    assert 0.5 < np.median(ratios) < 2.5


def test_of_each_key_the_first_bad_event_counts() -> None:
    many = [record(number, True, key="one", status="error") for number in range(50)]
    assert metric(judged(many, Policy(unit="key")), "errors").canary.bad == 1
    assert metric(judged(many, Policy(unit="request")), "errors").canary.bad == 50
    assert judged(many, Policy(unit="key")).worse == ()


def test_a_key_that_moves_to_the_canary_counts_where_its_first_bad_event_was() -> None:
    records = [record(0, False, 0.05, key="one", status="error"), record(1, True, 0.5, key="one", status="error")]
    found = metric(judged(records, Policy(unit="key")), "errors")
    assert (found.stable.bad, found.canary.bad) == (1, 0)


def test_without_a_past_the_first_answers_of_stable_fix_the_thresholds() -> None:
    early = [record(number, False, taken=number + 1) for number in range(BURN_IN)]
    later = [record(1_000 + number, number % 2 == 0, taken=150) for number in range(40)]
    assert metric(judged(early, past=Past()), "latency").stable.total == 0
    assert metric(judged([*early, *later], past=Past()), "latency").canary.total == 20
    assert thresholds(list(range(1, 1_001))) == (501.0, 901.0, 991.0, 1_000.0)


def test_the_slack_is_the_canarys_alone() -> None:
    records = [record(number, number % 2 == 0, taken=120) for number in range(400)]
    found = judged(records, Policy(unit="request", latency_slack=50))
    assert found.metrics[1].detail["p50"] < 0
    assert judged(records).metrics[1].detail["p50"] > -10


def test_shadow_pairs_are_compared_request_by_request() -> None:
    records = []
    for number in range(200):
        stable_failed, shadow_failed = number % 40 == 0, number % 8 == 0
        records.append(record(number, False, 0.0, status="error" if stable_failed else "ok"))
        records.append(record(1_000 + number, True, 0.0, arm="shadow", status="error" if shadow_failed else "ok", answered=f"{number:032x}"))
    found = judged(records, paired=True)
    assert (found.shadow, found.stable, found.canary) == (200, 200, 0)
    assert found.metrics[0].worse == pytest.approx(log_pairs(20, 0))
    assert found.worse == ("errors",)
    assert (found.metrics[0].stable.bad, found.metrics[0].canary.bad) == (5, 25)


def test_a_version_with_all_the_traffic_is_held_against_stables_past() -> None:
    random = np.random.default_rng(7)
    same = [record(number, True, 1.0, taken=int(100 * random.lognormal(sigma=0.5))) for number in range(10_000)]
    worse = [record(number, True, 1.0, status="error" if random.random() < 0.02 else "ok", taken=50) for number in range(3_000)]
    slower = [record(number, True, 1.0, taken=int(200 * random.lognormal(sigma=0.5))) for number in range(300)]
    assert judged(same, alone=True).worse == ()
    assert metric(judged(same, alone=True), "errors").verdict == "fine"
    assert judged(worse, alone=True).worse == ("errors",)
    assert "latency" in judged(slower, alone=True).worse
    assert judged(worse).worse == ()  # without anyone beside it there is nothing to compare


def test_over_many_releases_both_promises_hold_for_the_whole_judge() -> None:
    """Errors of 1 % against 1 and 2 %, looked at every fifty requests: canary, and alone against a past of 5,000."""
    wrongly = {"rolled back": 0, "promoted": 0, "alone": 0}
    policy = Policy(unit="request", tolerated={"errors": 0.001})
    for seed in range(60):
        random = np.random.default_rng(seed)
        past = Past(5_000, int(random.binomial(5_000, 0.01)), ())
        judges = {name: Judge(policy, "r1", 2, past) for name in wrongly}
        ended: set[str] = set()
        for number in range(2_000):
            canary, chance = bool(random.random() < 0.5), float(random.random())
            for name, rate in (("rolled back", 0.01), ("promoted", 0.02 if canary else 0.01), ("alone", 0.01)):
                if name not in ended:
                    judges[name].add(record(number, canary or name == "alone", 1.0 if name == "alone" else 0.5, status="error" if chance < rate else "ok"))
                    if number % 50 == 49:
                        found = metric(judges[name].findings(alone=name == "alone"), "errors")
                        if found.verdict == ("fine" if name == "promoted" else "worse"):
                            ended.add(name)
                            wrongly[name] += 1
    assert max(wrongly.values()) <= 6, wrongly  # of 60, at a probability of at most one in twenty


def test_a_split_that_is_off_is_told() -> None:
    right = [record(number, number % 10 == 0, 0.1) for number in range(5_000)]
    wrong = [record(number, number % 5 == 0, 0.1) for number in range(5_000)]
    assert not judged(right).split_is_wrong
    assert judged(wrong).split_is_wrong


def test_kpis_count_where_the_policy_names_them() -> None:
    policy = Policy(unit="request", kpis={"complaint": Kpi(delta=1.0, tolerated=0.5), "cost": Kpi("mean", "lower", cap=5.0)})
    judge, random = Judge(policy, "r1", 2, PAST), np.random.default_rng(8)
    for number in range(6_000):
        canary = bool(random.random() < 0.5)
        version, key = (2, f"k{number}") if canary else (1, f"k{number}")
        complained = random.random() < (0.06 if canary else 0.02)
        judge.observe(Observation("complaint", "r1", version, 0.5, key, number, float(complained)))
        judge.observe(Observation("cost", "r1", version, 0.5, key, number, float(random.exponential(2.0 if canary else 1.0))))
        judge.observe(Observation("unheard", "r1", version, 0.5, key, number, 1.0))
        judge.observe(Observation("complaint", "another", version, 0.5, key, number, 1.0))
    found = judge.findings()
    assert [one.metric for one in found.metrics] == ["errors", "latency", "complaint", "cost"]
    assert found.worse == ("complaint", "cost")
    assert metric(found, "complaint").worse_limit == pytest.approx(math.log(4 / 0.05))
    assert metric(found, "cost").canary.bad / metric(found, "cost").canary.total == pytest.approx(2.0, rel=0.15)


def test_memory_is_constant() -> None:
    import tracemalloc

    judge = Judge(Policy(), "r1", 2, PAST)
    for one in traffic(9, 3_000):
        judge.add(one)
    tracemalloc.start()
    for number in range(6_000):
        judge.add(record(10_000 + number, number % 2 == 0, taken=number % 1_000, status="error" if number % 50 == 0 else "ok"))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200_000
