"""Shares are exact, keys stay where they are, and a ramp moves keys in one direction only."""

from __future__ import annotations

import math

import pytest

from davy.serving.assignment import Assignment, arms, point

KEYS = [f"user-{number}" for number in range(20_000)]


def shares(weights: dict[int, float]) -> dict[int, float]:
    assignment = Assignment("late", weights)
    found = [assignment.version(key) for key in KEYS]
    return {version: found.count(version) / len(KEYS) for version in weights}


@pytest.mark.parametrize("weights", [{1: 0.9, 2: 0.1}, {1: 0.5, 2: 0.5}, {3: 0.01, 7: 0.99}, {1: 0.2, 2: 0.3, 3: 0.5}])
def test_each_version_receives_its_weight_within_binomial_noise(weights: dict[int, float]) -> None:
    found = shares(weights)
    for version, weight in weights.items():
        assert abs(found[version] - weight) < 4 * math.sqrt(weight * (1 - weight) / len(KEYS))


def test_a_key_keeps_its_version() -> None:
    first, second = Assignment("late", {1: 0.7, 2: 0.3}), Assignment("late", {1: 0.7, 2: 0.3})
    assert [first.version(key) for key in KEYS[:1000]] == [second.version(key) for key in KEYS[:1000]]


def test_a_ramp_never_sends_a_key_back() -> None:
    before = set()
    for weight in (0.0, 0.01, 0.05, 0.25, 0.5, 0.9, 1.0):
        now = {key for key in KEYS[:5000] if Assignment("late", {1: 1 - weight, 2: weight}).version(key) == 2}
        assert before <= now
        before = now
    assert before == set(KEYS[:5000])


def test_a_ramp_of_an_older_version_never_sends_a_key_back_either() -> None:
    before = set()
    for weight in (0.0, 0.1, 0.5, 1.0):
        now = {key for key in KEYS[:5000] if Assignment("late", {1: weight, 2: 1 - weight}).version(key) == 1}
        assert before <= now
        before = now


def test_models_do_not_share_their_luck() -> None:
    one, other = ([Assignment(name, {1: 0.5, 2: 0.5}).version(key) for key in KEYS[:4000]] for name in ("late", "early"))
    assert 0.45 < sum(a == b for a, b in zip(one, other, strict=True)) / 4000 < 0.55


def test_a_version_without_weight_never_answers() -> None:
    assert {Assignment("late", {1: 0.0, 2: 1.0, 3: 0.0}).version(key) for key in KEYS[:1000]} == {2}


def test_weights_that_round_below_one_leave_no_gap() -> None:
    weights = dict.fromkeys(range(1, 11), 0.1)
    assert sum(weights.values()) < 1
    assert Assignment("late", weights).version(max(KEYS, key=lambda key: point("late", key))) == 10


def test_the_point_is_the_same_forever() -> None:
    assert point("late", "user-1") == 0.5661363016612394


def test_the_heaviest_is_stable_and_of_equals_the_oldest() -> None:
    assert arms({1: 0.9, 2: 0.1}) == {1: "stable", 2: "canary"}
    assert arms({1: 0.1, 2: 0.9}) == {1: "canary", 2: "stable"}
    assert arms({1: 0.5, 2: 0.5}) == {1: "stable", 2: "canary"}
