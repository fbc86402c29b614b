"""How failures add up, against the rule written down plainly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davy.auth.attempts import FORGET_SECONDS, MOST_KEYS, Attempts, Limit
from davy.errors import TooManyAttempts

LIMIT = Limit(3, 60.0)


def test_the_first_failures_are_free_and_then_the_delay_doubles_up_to_its_limit() -> None:
    attempts, now, delays = Attempts(LIMIT), 0.0, []
    for _ in range(12):
        try:
            attempts.begin("ada", now)
            delays.append(0.0)
        except TooManyAttempts as error:
            delays.append(error.after)
            now += error.after
            attempts.begin("ada", now)
    assert delays == [0.0, 0.0, 0.0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_while_the_delay_lasts_nothing_is_looked_at_or_counted() -> None:
    attempts = Attempts(LIMIT)
    for _ in range(3):
        attempts.begin("ada", 0.0)
    for _ in range(100):
        with pytest.raises(TooManyAttempts) as found:
            attempts.begin("ada", 0.5)
        assert found.value.after == 1
    assert attempts.begin("ada", 1.0) == 4
    assert attempts.begin("bob", 0.5) == 1


def test_a_clock_that_is_set_back_holds_nobody_up() -> None:
    attempts = Attempts(LIMIT)
    for _ in range(3):
        attempts.begin("ada", 5000.0)
    with pytest.raises(TooManyAttempts) as found:
        attempts.begin("ada", 10.0)
    assert found.value.after == 1


def test_a_success_forgets_and_so_does_time() -> None:
    attempts = Attempts(LIMIT)
    for _ in range(3):
        attempts.begin("ada", 0.0)
    attempts.succeed("ada")
    assert attempts.begin("ada", 0.0) == 1
    for _ in range(2):
        attempts.begin("ada", 0.0)
    assert attempts.begin("ada", FORGET_SECONDS + 1) == 1


def test_what_was_good_after_all_is_taken_back_and_what_failed_before_stays() -> None:
    attempts = Attempts(LIMIT)
    assert [attempts.begin("net", 0.0), attempts.begin("net", 0.0)] == [1, 2]
    attempts.take_back("net")
    assert attempts.begin("net", 0.0) == 2
    attempts.take_back("never heard of")


def test_what_was_good_after_all_begins_no_delay_anew() -> None:
    attempts = Attempts(LIMIT)
    for moment in (0.0, 0.0, 0.0, 1.0, 3.0):
        attempts.begin("net", moment)
    attempts.begin("net", 7.0)  # after the four seconds that five failures cost
    attempts.take_back("net")
    assert attempts.begin("net", 7.0) == 6


def test_what_is_held_is_bounded_and_the_oldest_goes_first() -> None:
    attempts = Attempts(LIMIT)
    for number in range(MOST_KEYS + 10):
        attempts.begin(str(number), 0.0)
    assert len(attempts._failed) == MOST_KEYS
    assert attempts.begin("0", 0.0) == 1
    assert attempts.begin(str(MOST_KEYS), 0.0) == 2


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60))
def test_it_does_what_the_plain_rule_says(steps: list[tuple[float, bool]]) -> None:
    attempts, now = Attempts(LIMIT), 0.0
    failures: list[float] = []
    for pause, good in steps:
        now += pause
        if failures and now - failures[-1] > FORGET_SECONDS:
            failures = []
        over = len(failures) - LIMIT.free
        blocked = over >= 0 and now < failures[-1] + min(2.0**over, LIMIT.longest)
        try:
            attempts.begin("ada", now)
        except TooManyAttempts:
            assert blocked
            continue
        assert not blocked
        failures.append(now)
        if good:
            attempts.succeed("ada")
            failures = []
