"""The whole route on two months of flights: ingest; train, judge and release version after version; serve, replay, watch, prove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

import msgspec

from davy.core.time import to_micros
from davy.demo import data
from davy.demo.feed import MODEL
from davy.demo.folder import HOME, demo_folder
from davy.demo.report import Report
from davy.demo.story import Story
from davy.errors import Unavailable
from davy.server.process import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from davy.demo.feed import Month
    from davy.demo.replay import Tally
    from davy.home import Home

CONNECTIONS = 16
FEWEST_SCORED = 200
_READY_WITHIN_S = 120.0
_STOPS_WITHIN_S = 20.0
_COUNTED_WITHIN_S = 20.0


class Progress(Protocol):
    """What a long part tells how far it is."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        ...


class Show(Protocol):
    """Where the demo tells what it does."""

    def note(self, text: str) -> None:
        """One line."""
        ...

    def progress(self, label: str, total: int) -> AbstractContextManager[Progress]:
        """A bar, or lines."""
        ...


@dataclass(frozen=True)
class Demo:
    """How to run it.

    Attributes:
        port: 0 picks a free one.
        days: how many of May and June are replayed.
        ready: is handed the report while the server is still up; the server is stopped when it returns.
    """

    folder: Path
    show: Show
    ready: Callable[[Report, subprocess.Popen[bytes]], None]
    port: int = 0
    days: int = 61


def run(demo: Demo) -> Report:
    """Run everything. Whatever happens, the server is stopped at the end and the demo can be run again.

    Raises:
        DavyError: says what to do.
    """
    report = Report(demo.folder)
    began = time.perf_counter()
    with demo_folder(demo.folder), _sigterm_interrupts():
        with report.phase("data"):
            month = _data(demo)
        with _home(demo.folder) as home:
            _ingest(demo, report, home)
            story = Story(home, report, demo.show)
            story.go_on(to_micros(data.START))
            with _server(demo, report, home) as server:
                _replay(demo, report, home, month, story)
                _prove(demo, report, home)
                _watched(demo, report, home)
                report.wall_s = time.perf_counter() - began
                demo.ready(report, server)
    return report


def _data(demo: Demo) -> Month:
    from davy.demo import feed

    demo.show.note("Reading the flights of 2013")
    flights = data.load()
    data.write_history(flights, demo.folder / "data")
    return feed.month(flights, data.START, min(data.END, data.START + timedelta(days=demo.days)))


@contextmanager
def _home(folder: Path) -> Iterator[Home]:
    """A home whose clock stands at the first of May."""
    from davy.core.clock import DrivenClock
    from davy.demo.data import START
    from davy.home import CLOCK_FILE, Home

    DrivenClock(folder / HOME / CLOCK_FILE, start=to_micros(START))
    home = Home(folder)
    try:
        yield home
    finally:
        home.close()


def _ingest(demo: Demo, report: Report, home: Home) -> None:
    from davy.events.client import connect
    from davy.events.sources import read_source
    from davy.project import load_project

    project = load_project(home.root)
    with report.phase("ingest"):
        log = connect(home)
        try:
            for name, stream in project.streams.items():
                frame = read_source(home.root / str(stream.source))
                receipt = log.push_history(stream, frame)
                report.history += receipt.accepted
                demo.show.note(f"Ingested {receipt.accepted:,} {name}, January to April")
            log.ensure_views(project.view_specs())
        finally:
            log.close()


@contextmanager
def _server(demo: Demo, report: Report, home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """`davy up` in a process of its own; stopped at the end."""
    with report.phase("start"):
        command = [sys.executable, "-m", "davy", "up", "--project", str(home.root), "--port", str(demo.port)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
                                  preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM))
    try:
        with report.phase("start"):
            report.address = _address(home, server)
            _check_health(report.address)
        demo.show.note(f"Serving at {report.address}")
        yield server
    finally:
        with report.phase("stop"):
            server.terminate()
            try:
                server.wait(_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _address(home: Home, server: subprocess.Popen[bytes]) -> str:
    from davy.server.supervisor import running

    deadline = time.perf_counter() + _READY_WITHIN_S
    while time.perf_counter() < deadline:
        found = running(home)
        if found is not None and found.pid == server.pid:
            return found.address
        if server.poll() is not None:
            raise Unavailable(f"davy up ended with code {server.returncode} before it was ready.", "What it said stands above.", "Mend that, then: davy demo")
        time.sleep(0.02)
    raise Unavailable(f"davy up was not ready within {_READY_WITHIN_S:.0f} s.", f"Its log is {home.place('run', 'up.log')}.", "Look there, then: davy demo")


def _check_health(address: str) -> None:
    from davy.demo.client import health

    where = urlsplit(address)
    found = msgspec.json.decode(health(str(where.hostname), int(where.port or 80)))
    if MODEL not in found["models"]:
        raise Unavailable(f"The server answers, but not for {MODEL}: {found['problems']}", "", "Run the demo again: davy demo")


def _replay(demo: Demo, report: Report, home: Home, month: Month, story: Story) -> None:
    from davy.core.clock import DrivenClock
    from davy.demo.client import Client
    from davy.demo.replay import Replay
    from davy.home import CLOCK_FILE

    where = urlsplit(report.address)
    client = Client(str(where.hostname), int(where.port or 80), connections=CONNECTIONS)
    demo.show.note(f"Replaying {demo.days} days of May and June: {month.predictions:,} flights are asked about, {month.events:,} events arrive")
    try:
        with report.phase("replay"), demo.show.progress("predictions", month.predictions) as bar:
            tally = Replay(client, DrivenClock(home.place(*CLOCK_FILE.split("/"))), bar.advance, story.go_on).run(month)
    finally:
        client.close()
    report.requests, report.failed, report.retried = tally.requests, tally.failed, tally.retried
    report.events, report.duplicates, report.outcomes, report.late_events = tally.accepted, tally.duplicates, tally.outcomes, month.late
    report.prediction, report.last_asked = tally.last, tally.last_time
    _measure(report, tally)


def _measure(report: Report, tally: Tally) -> None:
    import numpy as np

    from davy.training.evaluation import auc

    for version, scored in tally.scored.items():
        answers, late = (np.array(column) for column in zip(*scored, strict=True))
        report.answered[f"{MODEL}@{version}"] = len(scored)
        if len(late) >= FEWEST_SCORED and 0 < late.sum() < len(late):
            report.live_auc[f"{MODEL}@{version}"] = auc(answers.astype(np.float64), late.astype(bool))
    if tally.waits:
        report.us_per_request = {name: float(np.quantile(tally.waits, share)) for name, share in (("p50", 0.5), ("p99", 0.99))}


def _prove(demo: Demo, report: Report, home: Home) -> None:
    """`davy replay` here, `davy why` beside it in a process of its own."""
    from davy.monitoring.skew import replay

    demo.show.note("Computing every logged vector again, as of its time and watermarks")
    with report.phase("prove"):
        command = [sys.executable, "-m", "davy", "why", report.prediction, "--project", str(home.root)]
        why = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            found = replay(home, MODEL)
            report.lineage = why.communicate()[0].splitlines()
        finally:
            why.kill()
            why.wait()
    report.replayed, report.different, report.lateness = found.checked, found.checked - found.equal, found.lateness


def _watched(demo: Demo, report: Report, home: Home) -> None:
    """What the monitor has seen, when it has counted everything, and what the answers of each version cost."""
    from davy.monitoring.cohorts import stored_cohorts, update_cohorts
    from davy.monitoring.kpis import kpi_events
    from davy.monitoring.profiles import latest
    from davy.monitoring.summary import drift_alarms
    from davy.project import load_project

    demo.show.note("Adding up what the monitor saw")
    definition = load_project(home.root).models[MODEL]
    with report.phase("watch"):
        deadline = time.perf_counter() + _COUNTED_WITHIN_S
        while (latest(home, MODEL) or 0) < report.last_asked and time.perf_counter() < deadline:
            time.sleep(0.1)
        update_cohorts(home, definition)
        values: dict[int, list[float]] = {}
        for event in kpi_events(home, definition):
            values.setdefault(event.version, []).append(event.value)
        report.kpi = {f"{MODEL}@{version}": sum(found) / len(found) for version, found in values.items()}
        report.alarms = drift_alarms(home, MODEL, stored_cohorts(home, MODEL), definition)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Being stopped is being interrupted: the server is stopped on the way out."""
    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
