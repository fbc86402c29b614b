"""Being asked to stop, however often and at whatever moment."""

from __future__ import annotations

import subprocess
import sys

ASKED_OFTEN = """
import os, signal, threading
from davy.core.signals import Stop

stop = Stop()
threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2000)]).start()
while not stop.wait(0.0001):
    pass
while threading.active_count() > 1:
    stop.wait(0.0001)
print("ended")
"""


def test_a_loop_ends_though_signals_meet_it_anywhere() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED_OFTEN], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
