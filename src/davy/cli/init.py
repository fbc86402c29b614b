"""`davy init`: a small project that runs, to change until it is yours."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from davy.cli.output import note


@click.command
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write a small project into DIR: one stream with made-up data, a view, a derived feature, a model.

    Its README.md names the commands that take it from events to a prediction that can be proven.
    """
    from davy.core.clock import SystemClock
    from davy.demo.project import start_project

    start_project(folder, now=SystemClock().now())
    place = folder.resolve()
    note(f"Wrote a project into {place}. Next:")
    if place != Path.cwd():
        print(f"  cd {shlex.quote(str(folder))}")
    for line in ("davy ingest orders", "davy train returned", "davy traffic returned returned@1=1", "davy up"):
        print(f"  {line}")
