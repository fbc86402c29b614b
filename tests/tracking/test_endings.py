"""However a program ends, what it logged is there, once."""

from __future__ import annotations

import mmap
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from davy.tracking import run as start_run
from davy.tracking import runs
from davy.tracking.history import metric_history
from davy.tracking.search import search_run_ids
from davy.tracking.spool import FOLDER, spools
from server_kit import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.home import Home

# Each step is noted in a shared page once it is logged, so that the one who kills knows what had been logged when.
LOGGER = """
import itertools, mmap, os, signal, struct, sys, time
from davy.tracking import run
with open("noted", "r+b") as file:
    page = mmap.mmap(file.fileno(), 8)
r = run("script")
print(r.id, flush=True)
for step in itertools.count():
    r.log({"loss": float(step), "other": 0.5}, step=step)
    struct.pack_into("<q", page, 0, step)
    PACE
"""


class Logger:
    """A process that logs without an end."""

    def __init__(self, home: Home, pace: str = "") -> None:
        noted = home.root / "noted"
        noted.write_bytes(bytes(8))
        with noted.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)
        self.process = subprocess.Popen([sys.executable, "-c", LOGGER.replace("PACE", pace)], cwd=home.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        assert self.process.stdout is not None
        self.run_id = self.process.stdout.readline().strip()

    def logged(self) -> int:
        """The last step that it has logged."""
        return int(struct.unpack_from("<q", self._page)[0])

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._page.close()


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """Another process holds the database's write lock."""
    other = sqlite3.connect(home.path / "davy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def _steps(home: Home, run_id: str, key: str = "loss") -> list[int]:
    with home.database.read() as connection:
        return metric_history(connection, run_id, key).steps


def _status(home: Home, run_id: str) -> str:
    with home.database.read() as connection:
        return runs.get_run(connection, run_id).status


def _runs(home: Home) -> int:
    with home.database.read() as connection:
        return len(search_run_ids(connection).ids)


@pytest.mark.parametrize("pace", ["", "time.sleep(0.001)", "time.sleep(100) if step == 20 else None"])
def test_kill_takes_nothing_that_was_logged_a_moment_before(home: Home, pace: str) -> None:
    with Logger(home, pace) as logger:
        logged = until(lambda: (steps := logger.logged()) > 10 and steps)
        time.sleep(0.5)
        logger.process.kill()
        logger.process.wait()
        start_run("next", home=home).finish()  # where the disk was too slow for so much, points were set aside
        steps = _steps(home, logger.run_id)
        assert len(steps) > logged > 10
        assert steps == list(range(len(steps)))
        assert abs(len(_steps(home, logger.run_id, "other")) - len(steps)) == 0


@pytest.mark.sqlite("it locks the file")
def test_a_locked_database_holds_up_nobody_and_kill_takes_nothing(home: Home) -> None:
    with Logger(home) as logger:
        time.sleep(0.3)
        with locked(home):
            before = logger.logged()
            deadline = time.monotonic() + 60
            while logger.logged() < before + 100_000:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            logged = logger.logged()
            time.sleep(1.0)
            logger.process.kill()
            logger.process.wait()
        assert len(_steps(home, logger.run_id)) < logged
        assert spools(home.path / FOLDER)
        done = subprocess.run([sys.executable, "-m", "davy", "sync"], cwd=home.root, capture_output=True, text=True, check=False)
        assert (done.returncode, "sent" in done.stdout) == (0, True), done
        steps = _steps(home, logger.run_id)
        assert len(steps) > logged
        assert steps == list(range(len(steps)))
        assert (_status(home, logger.run_id), spools(home.path / FOLDER)) == ("KILLED", [])


@pytest.mark.sqlite("it locks the file")
def test_what_was_set_aside_is_stored_when_the_lock_is_gone(home: Home) -> None:
    with start_run(home=home) as run:
        run.log(loss=0.0, step=0)
        run.flush()
        with locked(home):
            step = 0
            while not spools(home.path / FOLDER):
                step += 1
                run.log(loss=float(step), step=step)
    assert _steps(home, run.id) == list(range(step + 1))
    assert (_status(home, run.id), spools(home.path / FOLDER)) == ("FINISHED", [])


@pytest.mark.sqlite("it locks the file")
def test_a_forked_child_leaves_nothing_set_aside(home: Home) -> None:
    program = """
import os, sqlite3, sys
from pathlib import Path
from davy.tracking import run
with run("script", system_metrics=False) as r:
    print(r.id, flush=True)
    child = os.fork()
    if child == 0:
        other = sqlite3.connect(".davy/davy.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        step = 0
        while not list(Path(".davy/spool").glob("*/head.json")):
            r.log(loss=float(step), step=step)
            step += 1
        print(step, flush=True)
        other.execute("ROLLBACK")
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=home.root, capture_output=True, text=True, check=True, timeout=100)
    run_id, logged = done.stdout.split()
    assert (_steps(home, run_id), spools(home.path / FOLDER), done.stderr) == (list(range(int(logged))), [], "")


@pytest.mark.sqlite("it locks the file")
def test_sigterm_while_the_program_ends_does_not_keep_it_from_ending_its_run(home: Home) -> None:
    program = """
import atexit, sys
from davy.tracking import run
r = run("script", system_metrics=False)
r.log(loss=1.0)
atexit.register(print, r.id, flush=True)
sys.stdin.readline()
r.log(loss=2.0)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=home.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as child:
        assert child.stdout is not None
        while not _runs(home):
            time.sleep(0.02)
        with locked(home):
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
            run_id = child.stdout.readline().strip()
            time.sleep(0.2)  # by now it waits for the database
            child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (0, "")
    assert (_steps(home, run_id), _status(home, run_id)) == ([0, 1], "FINISHED")


@pytest.mark.parametrize(("block", "ending", "code", "status"), [
    ("with r:", "time.sleep(100)", 143, "KILLED"), ("if r:", "time.sleep(100)", 143, "KILLED"),
    ("if r:", "sys.exit(3)", 3, "FINISHED"), ("with r:", "sys.exit(3)", 3, "FAILED"), ("if r:", "1 / 0", 1, "FAILED"), ("if r:", "pass", 0, "FINISHED")],
    ids=("with-killed", "if-killed", "if-exit", "with-exit", "if-error", "if-pass"))
def test_nothing_is_lost_however_the_program_ends(home: Home, block: str, ending: str, code: int, status: str) -> None:
    program = f"""
import sys, time
from davy.tracking import run
r = run("script")
print(r.id, flush=True)
{block}
    for step in range(70_000):
        r.log(loss=float(step), step=step)
    print("logged", flush=True)
    {ending}
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=home.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        assert child.stdout.readline() == "logged\n"
        if code == 143:
            child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
    assert child.returncode == code, said
    assert _steps(home, run_id) == list(range(70_000))
    assert _status(home, run_id) == status, said


def test_a_programs_own_handler_of_sigterm_stays(project: Path) -> None:
    program = """
        import signal
        import davy
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with davy.run():
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with davy.run():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=project, check=True)


FORKS = {
    "os.fork": """
child = os.fork()
if child == 0:
    log("child")
    sys.exit()
log("parent")
os.waitpid(child, 0)
""",
    "os._exit": """
child = os.fork()
if child == 0:
    log("child")
    r.flush()
    os._exit(0)
log("parent")
os.waitpid(child, 0)
""",
    "multiprocessing": """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=log, args=("child",))
child.start()
log("parent")
child.join()
assert child.exitcode == 0
"""}


@pytest.mark.parametrize("kind", FORKS)
def test_a_forked_child_writes_to_the_run_and_only_its_parent_ends_it(home: Home, kind: str) -> None:
    program = f"""
import os, sys
from davy.tracking import run
def log(key):
    for step in range(5000):
        r.log({{key: float(step), "both": float(step)}}, step=step if key == "parent" else step + 5000)
with run("script") as r:
    print(r.id, flush=True)
    r.log(before=1.0)
{"".join(f"    {line}{chr(10)}" for line in FORKS[kind].splitlines())}
    r.log(after=1.0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=home.root, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    assert {key: _steps(home, run_id, key) for key in ("before", "parent", "after")} == {"before": [0], "parent": list(range(5000)), "after": [0]}
    assert _steps(home, run_id, "child") == list(range(5000, 10_000))
    assert _steps(home, run_id, "both") == list(range(10_000))
    assert _status(home, run_id) == "FINISHED"


def test_threads_that_count_on_never_share_a_step(home: Home) -> None:
    with start_run(home=home) as run:
        threads = [threading.Thread(target=lambda: [run.log(loss=1.0) for _ in range(5000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert _steps(home, run.id) == list(range(20_000))


def test_a_handler_that_logs_in_the_middle_of_logging_does_not_hang(home: Home) -> None:
    hit = 0
    before = signal.getsignal(signal.SIGALRM)

    def handler(*_: object) -> None:
        nonlocal hit
        hit += 1
        run.log(alarm=float(hit), step=hit)
        run.flush()
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    with start_run(home=home) as run:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        try:
            step = 0
            while hit < 50:
                run.log(loss=float(step), step=step)
                step += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert _steps(home, run.id) == list(range(step))
    assert _steps(home, run.id, "alarm") == list(range(1, hit + 1))


def test_no_point_waits_for_the_next_one(home: Home) -> None:
    draw = random.Random(7)
    with start_run(home=home) as run:
        logged = 0
        for _ in range(25):
            for _ in range(draw.choice((1, 2, 500, 20_000))):
                run.log(loss=float(logged), step=logged)
                logged += 1
            time.sleep(draw.choice((0, 0.01, 0.06, 0.09)))
            run.log(loss=float(logged), step=logged)
            logged += 1
            deadline = time.monotonic() + 30
            while len(_steps(home, run.id)) < logged:
                assert time.monotonic() < deadline
                time.sleep(0.02)
