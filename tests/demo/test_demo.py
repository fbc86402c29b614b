"""The demo from beginning to end, interrupted, run again, and with every process killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from davy.demo import data, feed
from davy.demo.demo import Demo, run
from davy.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from davy.demo.data import Flights
    from davy.demo.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.sqlite("the demo makes its folder by itself, with the database in it")]
PARTS = ("davy.events.keeper", "davy.server.gateway", "davy.serving.worker", "davy.release.controller", "davy.server.monitor")


def processes(folder: Path) -> dict[int, str]:
    """The running processes that name this folder, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in command:
                found[int(entry.name)] = command
    return found


class Killing:
    """Watches the replay, and kills one part after another while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done, self.killed = folder, 0, 0

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Killing]:
        yield self

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self.killed < len(PARTS) and self.done >= 150 * (self.killed + 1):
            part = PARTS[self.killed]
            self.killed += 1
            for process, command in processes(self.folder).items():
                if part in command:
                    os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_killing_every_part_loses_and_doubles_nothing(tmp_path: Path, flights: Flights) -> None:
    folder = tmp_path / "demo"
    watching = Killing(folder)
    seen: list[tuple[Report, dict[str, pl.DataFrame]]] = []

    def ready(report: Report, server: subprocess.Popen[bytes]) -> None:
        home = Home(folder)
        frames = {name: home.table(f"events/{name}").scan().collect() for name in ("departures", "arrivals", "weather")}
        frames["outcomes"] = home.table("outcomes/late").scan().collect()
        home.close()
        seen.append((report, frames))

    report = run(Demo(folder, watching, ready, days=1))
    assert watching.killed == len(PARTS)
    assert report.retried > 0
    assert (report.failed, report.different) == (0, 0)
    assert report.replayed >= report.requests > 900
    (_, frames), = seen
    month = feed.month(flights, data.START, data.START + timedelta(days=1))
    for name, key in (("departures", "flight_id"), ("arrivals", "flight_id"), ("weather", "observation"), ("outcomes", "prediction")):
        assert frames[name][key].is_unique().all(), name
        assert frames[name]["_offset"].sort().to_list() == list(range(1, frames[name].height + 1)), name
    assert sum(frames[name].height for name in ("departures", "arrivals", "weather")) == report.history + month.events
    assert frames["outcomes"].height == report.outcomes
    assert not processes(folder)


def test_interrupted_it_stops_everything_and_can_be_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "davy", "demo", "--once", "--json", "--keep", str(folder)]
    first = subprocess.Popen([*command, "--days", "61"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("Replaying"):
            break
    assert processes(folder)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert (first.returncode, output) == (130, "")
    assert not processes(folder)

    second = subprocess.run([*command, "--days", "5"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout.splitlines()[-1])
    assert list(found)[:9] == ["wall_s", "requests", "failed", "replayed", "different", "late_events", "promoted", "rolled_back", "kpi"]
    assert found["replayed"] >= found["requests"] > 4500
    assert (found["failed"], found["different"]) == (0, 0)
    assert found["late_events"] > 0
    assert 0.6 < found["held_out_auc"]["late@1"] < found["held_out_auc"]["late@2"] < 0.85
    assert set(found["answered"]) >= {"late@1"}
    assert (found["promoted"], found["rolled_back"], found["refused"]) == (None, None, [])
    assert all(found["gate"][version]["features"] == "pass" for version in ("late@1", "late@2"))
    assert [release["state"] for release in found["releases"].values()] == ["promoted", "step"]
    assert 0 < found["kpi"]["late@1"] < 50
    assert not processes(folder)
