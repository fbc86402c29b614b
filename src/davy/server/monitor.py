"""The process of a running server that watches: `python -m davy.server.monitor --project DIR --home DIR`.

It gives way to everything else on the machine. After each round it leaves the numbers for `/metrics` in a file, so that answering
costs the gateway no more than reading it.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from davy.core.time import parse_duration
from davy.errors import Conflict
from davy.home import Home
from davy.monitoring.monitor import Monitor
from davy.protocols.prometheus import write_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE, WRITTEN_EVERY = 2.0, 15.0


def take_lock(home: Home) -> int:
    """Be the one who watches this home, until the descriptor is closed.

    Raises:
        Conflict: another process is.
    """
    descriptor = os.open(home.place("run", "monitor.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"{home.path} is watched already.", "One process does.", "It is part of davy up.") from error
    return descriptor


def watch(home: Home, pause: Callable[[float], None]) -> None:
    """Rounds without end. Nothing is left half done by whoever ends this process."""
    monitor, settings, written = Monitor(home), home.config.monitoring, -1e9
    every = parse_duration(settings.every) / 1e6
    seldom = min(parse_duration(settings.evaluate_every) / 1e6, WRITTEN_EVERY)
    pause(min(every, FIRST_PAUSE))
    while True:
        began = time.monotonic()
        monitor.round()
        if began - written >= seldom:
            monitor.attempt("writing /metrics", lambda: write_metrics(home, monitor))
            written = began
        pause(max(every - (time.monotonic() - began), every / 10))


def main() -> None:
    """Watch until a signal comes."""
    parser = argparse.ArgumentParser(prog="davy.server.monitor", description="Watches what a home serves.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="monitor: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    with suppress(OSError):
        os.nice(10)
    home = Home.open(options.project, home=options.home)
    lock = take_lock(home)
    try:
        watch(home, time.sleep)
    finally:
        os.close(lock)
        home.close()


if __name__ == "__main__":
    main()
