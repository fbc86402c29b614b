"""Being asked to stop, by SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import time


class Stop:
    """Notices the signals from now on, for a loop that looks at it.

    It takes no lock: a handler runs in the middle of whatever the main thread does, and `threading.Event.set` would wait for
    ever where it interrupts that thread's own `wait`.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._notice)

    def wait(self, seconds: float) -> bool:
        """Sleep that long, unless one has asked already; whether one has."""
        if not self.asked:
            time.sleep(seconds)
        return self.asked

    def _notice(self, *_: object) -> None:
        self.asked = True
