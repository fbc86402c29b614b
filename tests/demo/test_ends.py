"""Ctrl-C ends a demo that is up, and its server does not outlive it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from server_kit import alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITS = """
import os, signal, subprocess, sys
from functools import partial
import polars as pl
from davy.cli.demo import _wait
from davy.server.process import end_with_parent
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell that starts the tests in the background has it ignored
pl.DataFrame({"a": [1]}).lazy().select(pl.col("a").sum()).collect()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True,
                         preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM))

class Server:
    told = False

    def tell(self):
        if not self.told:
            self.told = True
            print(child.pid, flush=True)

    def poll(self):
        self.tell()
        return child.poll()

    def wait(self):
        self.tell()
        return child.wait()

_wait(Server())
print(child.poll(), flush=True)
"""


@pytest.fixture
def waiting() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


def test_ctrl_c_ends_the_wait_also_after_polars_has_run(waiting: tuple[subprocess.Popen[str], int]) -> None:
    process, child = waiting
    assert alive(child)
    time.sleep(0.3)  # so that it is in the midst of the wait
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "None\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children notice by themselves")
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL])
def test_what_it_started_ends_with_it(waiting: tuple[subprocess.Popen[str], int], number: int) -> None:
    process, child = waiting
    process.send_signal(number)
    until(lambda: not alive(child))
