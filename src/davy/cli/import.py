"""`davy import`: bring runs and models along from MLflow."""

from __future__ import annotations

import logging

import click
import msgspec

from davy.cli.output import note, print_json, progress, table
from davy.errors import Different


class _Lines(logging.Handler):
    """What MLflow finds wrong at the source, such as an experiment without its description, in a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage().splitlines()[0])


@click.command
@click.argument("kind", type=click.Choice(["mlflow"]))
@click.argument("uri")
@click.option("--experiment", "experiments", multiple=True, metavar="NAME", help="Only this experiment, and the models that its runs made; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the counts of both sides.")
def command(kind: str, uri: str, experiments: tuple[str, ...], as_json: bool) -> None:
    """Copy everything from the MLflow at URI: the address of a server, an mlruns folder, or an mlflow.db.

    Experiments, runs with whole histories, artifacts, logged models, registered models, versions, aliases and tags keep their ids,
    times and numbers. Typed again, it goes on with what is missing. At the end both sides are counted and must agree.
    """
    from davy.cli import open_home
    from davy.importing.mlflow import KINDS, import_mlflow
    from davy.importing.source import Source

    logging.basicConfig(format="%(message)s", handlers=[_Lines(logging.WARNING)], force=True)
    home = open_home()
    source = Source(uri, home.blobs)
    try:
        with progress("runs and models") as bar:
            found = import_mlflow(home, source, only=experiments, progress=lambda name: bar.advance(1))
    finally:
        source.close()
        home.close()
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        table([{"": kind, "there": found.source[kind], "here": found.here[kind]} for kind in KINDS])
        if found.known:
            note(f"{found.known} runs were here already.")
    if not found.equal:
        wrong = ", ".join(kind for kind in KINDS if found.source[kind] != found.here[kind])
        raise Different(f"The two sides differ in {wrong}.", "What was imported must be what is there; somebody may have changed one side meanwhile.",
                        "Type the same again; if they still differ, compare the runs in question.")
