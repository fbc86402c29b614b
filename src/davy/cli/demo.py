"""`davy demo`: the whole route, in front of your eyes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from davy.cli.output import Progress, note, print_json, progress

if TYPE_CHECKING:
    import subprocess
    from contextlib import AbstractContextManager

    from davy.demo.report import Report

_LOOK_EVERY = 0.2

class _Terminal:
    def note(self, text: str) -> None:
        note(text)

    def progress(self, label: str, total: int) -> AbstractContextManager[Progress]:
        return progress(label, total)


@click.command
@click.option("--once", is_flag=True, help="Stop the server at the end instead of leaving it up until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line of stdout.")
@click.option("--keep", "folder", default="davy-demo", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="The demo's folder: a project to look at and to go on with (default: davy-demo).")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Where to serve (default: a free port).")
@click.option("--days", default=61, type=click.IntRange(1, 61), help="How many days of May and June are replayed.")
def command(once: bool, as_json: bool, folder: Path, port: int, days: int) -> int:
    """A real year of flights out of New York through the whole route, in a minute or two.

    History from January to April is ingested, and May and June are replayed through a live gateway: each flight is asked about an hour
    before it should leave, and events arrive when they did. Meanwhile four versions are trained to tell which flights will be late. Each
    is judged by the gate, and those that pass are released to a part of the traffic first: the judge promotes what is no worse, and rolls
    back what does harm. At the end every logged vector is computed again and compared, bit for bit. Ends with 1 when one differs or a
    request failed.
    """
    from davy.demo.demo import Demo, run

    def ready(report: Report, server: subprocess.Popen[bytes]) -> None:
        if as_json:
            print_json(report.to_json())
        else:
            print("\n".join(report.lines()), flush=True)
        if not once:
            note(f"\nLook around at {report.address}; the project is in {report.folder}. Ctrl-C stops.")
            _wait(server)

    report = run(Demo(folder.resolve(), _Terminal(), ready, port=port, days=days))
    return 1 if report.different or report.failed else 0


def _wait(server: subprocess.Popen[bytes]) -> None:
    """Until it ends or Ctrl-C comes. Polars' signal handler restarts a blocking wait, so that it would never hear of it."""
    try:
        while server.poll() is None:
            time.sleep(_LOOK_EVERY)
    except KeyboardInterrupt:
        note("Stopping.")
