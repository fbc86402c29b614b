"""`davy reproduce`: a run trained again from its record, and graded."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec

from davy.cli import open_home
from davy.cli.output import cell, note, print_json

if TYPE_CHECKING:
    from davy.training.reproduce import Reproduction


@click.command
@click.argument("run")
@click.option("--environment", is_flag=True, help="Install the run's packages into a fresh environment first (needs a package index).")
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="The largest difference of two answers that still counts as near.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(run: str, environment: bool, tolerance: float, as_json: bool) -> int:
    """Train RUN again from its record and grade how near the model comes.

    RUN is a run's id, the beginning of one, or a version such as late@2. The code is laid out in a clean worktree with the run's
    uncommitted changes, the training set is rebuilt from the log as it was then, and training runs in a process of its own.

    The grade is `same bytes`, `same predictions`, `within tolerance` or `different`; whatever differs is named, causes before
    effects. Exit code 0 for the first two, else 1. Nothing is registered.
    """
    from davy.training.reproduce import reproduce

    home = open_home()
    began = time.perf_counter()
    try:
        found = reproduce(home, run, environment=environment, tolerance=tolerance,
                          report=lambda text: note(f"[{time.perf_counter() - began:6.1f} s] {text}"))
    finally:
        home.close()
    if as_json:
        print_json({**msgspec.to_builtins(found), "same": found.same})
    else:
        _show(found)
    sys.stdout.flush()
    return 0 if found.same else 1


def _show(found: Reproduction) -> None:
    largest = "" if found.largest is None else f", largest difference of two answers {cell(found.largest)}"
    print(f"{found.grade}: {found.model}, run {found.run}")
    print(f"  training set {'equal' if found.training_set else 'different'}, {found.rows:,} rows; trained in {found.seconds:.1f} s{largest}")
    for place, item in enumerate(found.differences):
        label = "without effect" if found.same else "first difference" if place == 0 else "then"
        print(f"  {label}: {item.cause}: {item.what}")
    for text in found.notices:
        note(f"note: {text}")
