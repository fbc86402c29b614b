"""Calls of `run.log` per second, without a server, until `finish()` has returned and every point can be read.

One metric a call, ten metrics a call, and as many calls as a training makes in pieces. Beside ours stand, in the same
run, a loop that appends the same to a list, which is what the language itself allows, and trackio where an interpreter
that has it is named. Prints a line each and, last, one JSON object.

    python benchmarks/native_log.py [--calls 300000] [--rounds 3] [--trackio .venv-trackio/bin/python]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.home import Home
from davy.tracking import run as start_run
from davy.tracking.history import metric_history

if TYPE_CHECKING:
    from collections.abc import Callable

TEN = {f"metric_{number}": 0.5 + number for number in range(10)}
TRACKIO = """
import os, sys, time
os.environ["TRACKIO_DIR"] = sys.argv[1]
import trackio
calls, metrics = int(sys.argv[2]), {f"metric_{number}": 0.5 + number for number in range(int(sys.argv[3]))}
trackio.init(project="bench", name=f"run-{calls}-{len(metrics)}")
begin, processor = time.perf_counter(), time.process_time()
for step in range(calls):
    trackio.log(metrics, step=step)
trackio.finish()
print("SECONDS", time.perf_counter() - begin, time.process_time() - processor)
"""


def davy(calls: int, metrics: dict[str, float] | None) -> tuple[float, float]:
    """Calls per second, and per second of processor time of all threads; every point is counted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "davy.toml").write_text("")
        home = Home(Path(folder))
        home.database  # noqa: B018 - the schema is made before the clock starts
        begin, processor = time.perf_counter(), time.process_time()
        run = start_run("bench", home=home)
        if metrics is None:
            for step in range(calls):
                run.log(loss=0.5, step=step)
        else:
            for step in range(calls):
                run.log(metrics, step=step)
        run.finish()
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        for key in metrics or {"loss": 0.5}:
            with home.database.read() as connection:
                history = metric_history(connection, run.id, key)
            assert history.steps == list(range(calls)), key
        home.close()
    return calls / seconds, calls / processor


def bare(calls: int, metrics: dict[str, float] | None) -> tuple[float, float]:
    """The same of a method that appends to one list."""
    kept: list[Any] = []

    def log(values: dict[str, float] | None = None, *, step: int, **more: float) -> None:
        kept.append((step, dict(values or more)))

    begin, processor = time.perf_counter(), time.process_time()
    if metrics is None:
        for step in range(calls):
            log(loss=0.5, step=step)
    else:
        for step in range(calls):
            log(metrics, step=step)
    return calls / (time.perf_counter() - begin), calls / (time.process_time() - processor)


def trackio(python: str, calls: int, metrics: dict[str, float] | None) -> tuple[float, float]:
    """The same of trackio in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([python, "-c", TRACKIO, folder, str(calls), str(len(metrics or "x"))], capture_output=True, text=True, check=True)
    seconds, processor = map(float, done.stdout.rpartition("SECONDS")[2].split())
    return calls / seconds, calls / processor


def main() -> None:
    """Measure in turns, so that what disturbs the machine disturbs all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trackio", metavar="PYTHON", help="an interpreter that has trackio")
    options = parser.parse_args()
    peers: dict[str, Callable[[int, dict[str, float] | None], tuple[float, float]]] = {"davy": davy, "bare list": bare}
    if options.trackio:
        peers["trackio"] = lambda calls, metrics: trackio(options.trackio, min(calls, 50_000), metrics)
    found: dict[str, float] = {}
    for metrics, share in ((None, 1), (TEN, 4)):
        rates = {name: list[tuple[float, float]]() for name in peers}
        for _ in range(options.rounds):
            for name, rate in peers.items():
                rates[name].append(rate(options.calls // share, metrics))
        for name, measured in rates.items():
            what = f"{name}, {len(metrics) if metrics else 1} a call"
            found[what], processor = round(statistics.median(rate for rate, _ in measured)), statistics.median(rate for _, rate in measured)
            print(f"{what:24} {found[what]:>10,} calls/s, {processor:>10,.0f} a second of processor   (of {', '.join(f'{rate:,.0f}' for rate, _ in measured)})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
