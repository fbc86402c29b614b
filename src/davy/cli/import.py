"""`davy import`: bring runs and models along from MLflow."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import click
import msgspec

from davy.cli.output import note, print_json, progress, table
from davy.errors import Different


class _Lines(logging.Handler):
    """What MLflow finds wrong at the source, such as an experiment without its description, in a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines()[:1]:
            note(line)


@click.command
@click.argument("kind", type=click.Choice(["mlflow"]))
@click.argument("uri")
@click.option("--experiment", "experiments", multiple=True, metavar="NAME", help="Only this experiment, and the models that its runs made; may be repeated.")
@click.option("--artifacts", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the server of an mlflow.db keeps its files, if not in mlartifacts beside it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the counts of both sides.")
def command(kind: str, uri: str, experiments: tuple[str, ...], artifacts: Path | None, as_json: bool) -> None:
    """Copy everything from the MLflow at URI: the address of a server, an mlruns folder, or an mlflow.db.

    Experiments with their runs and whole histories, files, datasets, logged models, registered models, versions, aliases and tags.
    Runs and logged models keep their ids and times, versions their numbers; an experiment goes by its name. Typed again, it goes on
    with what is missing. At the end both sides are counted and must agree.
    """
    from davy.cli import open_home, role
    from davy.importing.mlflow import KINDS, import_mlflow
    from davy.importing.source import Source
    from davy.registry.aliases import Protection

    logging.basicConfig(format="%(message)s", handlers=[_Lines(logging.WARNING)], force=True)
    home = open_home(anywhere=True)
    try:
        with closing(Source(uri, home.blobs, artifacts=artifacts)) as source:
            found = import_mlflow(home, source, only=experiments, protection=Protection.of(home.config.registry.protected, role()),
                                  watch=lambda total: progress("runs and models", total))
    finally:
        home.close()
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        table([{"": kind, "there": found.source[kind], "here": found.here[kind]} for kind in KINDS])
        if found.known:
            note(f"{found.known} runs were here already.")
    for folder in found.missing:
        note(f"There is no folder {folder}, so that no files of the runs that name it were found. If they lie elsewhere: --artifacts FOLDER")
    for problem in found.problems:
        note(problem)
    if found.unread:
        raise Different(f"{found.unread} items could not be taken over; everything else is here.",
                        "What each of them is was said above.", "Mend that, then type the same again: it goes on with what is missing.")
    if not found.equal:
        wrong = ", ".join(kind for kind in KINDS if found.source[kind] != found.here[kind])
        raise Different(f"The two sides differ in {wrong}.", "What was imported must be what is there; somebody may have changed one side meanwhile.",
                        "Type the same again; if they still differ, compare the runs in question.")
