"""Runs whose process is gone: `kill -9` and power cuts leave no time to say so."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from davy.schema.tables import runs, tags
from davy.tracking.runs import finish_run

if TYPE_CHECKING:
    from davy.home import Home

PROCESS = "davy.process"


def this_process() -> str:
    """Names this process of this machine, also against a later one with the same number."""
    return f"{platform.node()}:{os.getpid()}:{_started(os.getpid())}"


def alive(process: str) -> bool:
    """Whether the process that `this_process` named still runs; of another machine's nothing is known, so they count as running."""
    node, _, rest = process.rpartition(":")[0].rpartition(":")
    number, started = rest, process.rpartition(":")[2]
    if node != platform.node() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(number)) == started


def end_abandoned(home: Home) -> list[str]:
    """Mark as KILLED every run that is said to be running and whose process is gone; returns their ids."""
    query = (sa.select(runs.c.run_id, tags.c.value).join(tags, tags.c.run_id == runs.c.run_id)
             .where(runs.c.status == "RUNNING", runs.c.lifecycle_stage == "active", tags.c.key == PROCESS))
    with home.database.read() as connection:
        gone = [run_id for run_id, process in connection.execute(query) if not alive(process)]
    if gone:
        with home.database.begin() as connection:
            for run_id in gone:
                finish_run(connection, run_id, status="KILLED", ended=home.clock.now())
    return gone


def _started(number: int) -> str:
    """When the process began, in the kernel's ticks; empty where /proc does not say."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
