"""`davy train`: a tracked run and a registered version."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from davy.cli import open_home
from davy.cli.output import cell, note, print_json
from davy.core.time import to_micros

if TYPE_CHECKING:
    from davy.training.train import TrainResult

_TIME_HELP = "ISO 8601 with a zone, such as 2013-04-01T00:00:00Z."


@click.command
@click.argument("model")
@click.option("-p", "params", multiple=True, metavar="NAME=VALUE", help="A keyword argument of the training function; may be repeated.")
@click.option("--start", metavar="TIME", help=f"Learn from this moment on. {_TIME_HELP}")
@click.option("--end", metavar="TIME", help="Learn up to, and without, this moment.")
@click.option("--test-start", metavar="TIME", help="Test from this moment on (default: --end).")
@click.option("--test-end", metavar="TIME", help="Test up to, and without, this moment.")
@click.option("--as-known", type=click.Choice(["ingest", "event"]), default="ingest", show_default=True,
              help="What each row may see: what had arrived by its time, or (hindsight) all that had happened.")
@click.option("--experiment", metavar="NAME", help="Where the run is kept (default: the model's name).")
@click.option("--seed", type=int, metavar="N", help="Of every random generator (default: the function's own, or 0).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(model: str, params: tuple[str, ...], start: str | None, end: str | None, test_start: str | None, test_end: str | None, as_known: Any,
            experiment: str | None, seed: int | None, as_json: bool) -> None:
    """Train MODEL on its spine and register the version.

    The run records the code with every uncommitted change, the environment, the training set and the model by digest, so that
    `davy reproduce RUN` can train it again. A run that fails or is interrupted leaves no version.
    """
    from davy.project import load_project
    from davy.training.parameters import parse_assignments
    from davy.training.train import train

    home = open_home()
    given = parse_assignments(params)
    bounds = {name: None if text is None else to_micros(text) for name, text in (("start", start), ("end", end), ("test_start", test_start),
                                                                                 ("test_end", test_end))}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        began = time.perf_counter()
        result = train(load_project(home.root), home, model, params=given, **bounds, as_known=as_known, experiment=experiment, seed=seed,
                       report=lambda text: note(f"[{time.perf_counter() - began:6.1f} s] {text}"))
    finally:
        signal.signal(signal.SIGTERM, before)
        home.close()
    if as_json:
        print_json(msgspec.to_builtins(result, enc_hook=str))
    else:
        _show(result)


def _interrupt(*_: Any) -> NoReturn:
    """A SIGTERM ends the run as Ctrl-C does."""
    raise KeyboardInterrupt


def _show(result: TrainResult) -> None:
    code = f"commit {result.commit[:12]}" if result.commit else "files without a commit"
    print(f"{result.reference}  run {result.run}  {result.rows:,} rows  {code}{' with changes' if result.commit and result.dirty else ''}")
    for name, value in result.metrics.items():
        print(f"  {name:16} {cell(value)}")
    for text in result.notices:
        note(f"note: {text}")
    print(f"Serve it: davy traffic {result.model} {result.reference}=1      Prove it: davy reproduce {result.reference}")
