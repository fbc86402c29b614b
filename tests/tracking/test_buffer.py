"""What is logged stays held until it is kept somewhere, whatever happens between the threads that log, store and set aside."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from davy.core.clock import SystemClock
from davy.tracking import run as start_run
from davy.tracking.history import metric_keys
from davy.tracking.writer import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from davy.home import Home
    from davy.tracking.points import Points


class Slow:
    """A place where runs are written to that keeps points once it may, and sets them aside once it may."""

    def __init__(self) -> None:
        self.run_id, self.clock = "0" * 32, SystemClock()
        self.stores, self.sets_aside, self.storing, self.setting = (threading.Event() for _ in range(4))
        self.asides = self.interrupted = 0
        self.kept: set[tuple[str, int, float]] = set()

    def points(self, columns: Mapping[str, Points]) -> None:
        self.storing.set()
        assert self.stores.wait(60)
        self._keep(columns)

    def aside(self, columns: Mapping[str, Points]) -> None:
        self.setting.set()
        self.asides += 1
        if self.asides == self.interrupted:
            raise KeyboardInterrupt
        assert self.sets_aside.wait(60)
        self._keep(columns)

    def _keep(self, columns: Mapping[str, Points]) -> None:
        for key, points in columns.items():
            self.kept |= {(key, step, value) for step, value in zip(points.steps, points.values, strict=True)}

    def holds(self, *_: object) -> bool:
        return False

    def nothing(self, *_: Any) -> None:
        return

    write = files = finish = leave = fork = nothing


def test_an_interruption_while_points_are_set_aside_loses_none() -> None:
    sink = Slow()
    sink.interrupted = 2
    sink.sets_aside.set()
    run = Run(sink, "slow")
    run.log(loss=0.0, step=0)
    assert sink.storing.wait(30)
    logged = 1

    def log_on() -> None:
        nonlocal logged
        while True:
            run.log(loss=float(logged), step=logged)
            logged += 1
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        log_on()
    sink.stores.set()
    run.finish()
    assert sink.kept == {("loss", step, float(step)) for step in range(logged)}


def test_a_flush_waits_for_who_is_setting_points_aside() -> None:
    sink = Slow()
    run = Run(sink, "slow")

    def log() -> None:
        while not sink.setting.is_set():
            run.log(loss=1.0)
            time.sleep(0.01)

    logger, flusher = threading.Thread(target=log), threading.Thread(target=run.flush)
    logger.start()
    assert sink.setting.wait(30)
    sink.stores.set()
    flusher.start()
    flusher.join(0.2)
    assert flusher.is_alive()
    sink.sets_aside.set()
    flusher.join(30)
    assert not flusher.is_alive()
    logger.join()
    run.finish()


def test_new_metrics_come_while_others_are_stored(home: Home) -> None:
    with start_run(home=home, system_metrics=False) as run:
        def log(name: str) -> None:
            for number in range(1500):
                run.log({f"{name}/{number}": number})
                if number % 10 == 0:
                    run.flush()

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=log, args=(name,)) for name in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
    with home.database.read() as connection:
        assert metric_keys(connection, run.id) == {f"{name}/{number}": 1 for name in "ab" for number in range(1500)}
