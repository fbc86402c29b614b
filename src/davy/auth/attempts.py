"""How often one may fail to log in: a few times freely, then after delays that double. Per user, so that a password is not
guessed from many addresses, and per address, so that many names are not tried from one."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from davy.errors import TooManyAttempts

MOST_KEYS = 10_000
FORGET_SECONDS = 900.0


class Limit(NamedTuple):
    """So many failures cost nothing; the delays after them double up to `longest` seconds."""

    free: int
    longest: float


USER, ADDRESS = Limit(5, 30.0), Limit(20, 300.0)


class Attempts:
    """Counts failures in a row. An attempt counts as failed until it is known to have been good, so that many at once don't slip through.

    What it holds is bounded: the key that was not heard of for the longest is forgotten first.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def begin(self, key: str, now: float) -> int:
        """Count one more attempt; how many there are in a row.

        Raises:
            TooManyAttempts: the delay is not over; it is not counted, nor looked at.
        """
        count, last = self._failed.get(key, (0, now))
        if now - last > FORGET_SECONDS:
            count = 0
        delay = self._delay(count)
        left = min(last + delay - now, delay)  # a clock that was set back holds nobody up for longer
        if left > 0:
            after = math.ceil(left)
            error = TooManyAttempts("Too many logins have failed.", "After some failures each must wait, longer each time.", f"Try again in {after} s.")
            error.after = after
            raise error
        self._failed[key] = count + 1, now
        self._failed.move_to_end(key)
        if len(self._failed) > MOST_KEYS:
            self._failed.popitem(last=False)
        return count + 1

    def succeed(self, key: str) -> None:
        """Forget the failures."""
        self._failed.pop(key, None)

    def take_back(self, key: str) -> None:
        """The last attempt was no failure: earlier ones stay counted, and their delay, which it has waited for, does not begin anew."""
        count, last = self._failed.get(key, (0, 0.0))
        if count > 1:
            self._failed[key] = count - 1, last - self._delay(count - 1)
        else:
            self._failed.pop(key, None)

    def _delay(self, count: int) -> float:
        over = count - self._limit.free
        return 0.0 if over < 0 else min(2.0 ** min(over, 20), self._limit.longest)
