"""`davy runs`: the tracked runs, or one of them in full."""

from __future__ import annotations

import math
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli.output import note, print_json, table, when
from davy.errors import InvalidInput, NotFound, nearest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.tracking.records import RunRecord

SHOWN = 20
SHOWN_METRICS = 4
SHORTEST_ID = 12


@click.command
@click.argument("what", metavar="[RUN|FILTER]", required=False)
@click.option("--experiment", "experiments", metavar="NAME", multiple=True, help="Only runs of this experiment; may be repeated.")
@click.option("--order-by", metavar="FIELD [DESC]", multiple=True, help="Sort by this field; may be repeated (default: the newest first).")
@click.option("--limit", type=click.IntRange(1), help="How many (default: 20 in a table and as JSON, all in a file).")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True,
              help="What to write; the ending of --output says it too.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write CSV or Parquet there.")
@click.option("--artifact", metavar="PATH", help="Write this file of the RUN to stdout, such as error.txt.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: runs and next, or the run.")
def command(what: str | None, experiments: tuple[str, ...], order_by: tuple[str, ...], limit: int | None, form: str, output: Path | None, artifact: str | None,
            as_json: bool) -> None:
    """List the runs that match a FILTER such as "metrics.auc > 0.7 and params.model = 'lgbm'", or show the RUN whose id begins so:
    its params, metrics, tags and artifacts."""
    from davy.cli import open_home
    from davy.tracking.artifacts import read_artifact
    from davy.tracking.experiments import get_experiment
    from davy.tracking.runs import get_run

    home = open_home()
    one = what is not None and re.fullmatch(r"[\w-]+", what) is not None
    with home.database.read() as connection:
        if artifact is not None:
            if not one:
                raise InvalidInput("--artifact came without the run that it is of.", "", f"Write: davy runs RUN --artifact {artifact}")
            click.echo(read_artifact(connection, home.blobs, get_run(connection, what or "").id, artifact), nl=False)
            return
        if one:
            _show(connection, what or "", as_json or form == "json")
            return
        asked: dict[str, Any] = {"filter": what or "", "order_by": order_by,
                                 "experiments": [get_experiment(connection, name).id for name in experiments] or None}
        if form == "table" and output is not None and (ending := Path(output).suffix.removeprefix(".")) in ("csv", "parquet"):
            form = ending
        if form in ("csv", "parquet"):
            _write(connection, form, output, limit, asked)
        elif output is not None:
            raise InvalidInput(f"--output came with --format {form}.", "A file is CSV or Parquet.", "Add --format csv, or --format parquet.")
        else:
            _list(connection, limit or SHOWN, as_json or form == "json", asked)


def _list(connection: Connection, limit: int, as_json: bool, asked: dict[str, Any]) -> None:
    from davy.tracking.hints import unknown_keys
    from davy.tracking.languages import RUNS
    from davy.tracking.search import MOST, search_runs

    page = search_runs(connection, limit=min(limit, MOST), **asked)
    ordered = [key.target.key for key in RUNS.order(asked["order_by"]) if key.target.entity == "metric"]
    for key in ordered[:1]:
        if page.runs and key not in page.runs[0].metrics:  # those that have it come first
            raise NotFound(f"None of these runs has the metric {key!r}.", nearest(key, {name for found in page.runs for name in found.metrics}),
                           "Name one that davy runs RUN lists.")
    if as_json:
        print_json({"runs": [_plain(found) for found in page.runs], "next": page.next})
        return
    empty = "No run matches." if asked["filter"] else "No runs yet. Start one: davy train MODEL, or davy.run(...) in Python."
    table(_rows(page.runs, ordered[0] if ordered else None), empty=empty)
    if not page.runs:
        for hint in unknown_keys(connection, experiments=asked["experiments"], filter=asked["filter"]):
            note(hint)
    if page.next is not None:
        note(f"There are more; see them with --limit {limit * 5}, or write all: --format csv -o runs.csv")


def _write(connection: Connection, form: str, output: Path | None, limit: int | None, asked: dict[str, Any]) -> None:
    from davy.tracking.frames import write_runs

    if output is None and form == "parquet":
        raise InvalidInput("--format parquet came without a file.", "Parquet is no text for a terminal.", "Add -o runs.parquet")
    with tempfile.TemporaryDirectory(prefix="davy-runs-") as folder:
        path = output if output is not None else Path(folder) / "runs.csv"
        try:
            count = write_runs(connection, path, Path(folder), csv=form == "csv", limit=limit, **asked)
            if output is None:
                with path.open("rb") as written:
                    shutil.copyfileobj(written, sys.stdout.buffer)
        except OSError as error:
            raise InvalidInput(f"{path} can't be written: {error.strerror or error}.", "It is a file in a folder that is there.", "Correct it.") from error
    if output is not None:
        note(f"{count:,} runs in {output}")


def _rows(found: list[RunRecord], order: str | None) -> list[dict[str, Any]]:
    from davy.tracking.records import telling_metrics

    ranked = telling_metrics(found, SHOWN_METRICS, order)
    digits = next(digits for digits in range(SHORTEST_ID, 33) if len({run.id[:digits] for run in found}) == len(found) or digits == 32)
    return [{"run": run.id[:digits], "name": run.name, "experiment": run.experiment, "status": run.status, "started (UTC)": when(run.started),
             "took": _duration(run), **{key: run.metrics.get(key) for key in ranked}} for run in found]


def _plain(run: RunRecord) -> dict[str, Any]:
    """The run for JSON, which has no NaN and no infinities: those are texts, as in MLflow's protocol."""
    metrics = {key: value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
               for key, value in run.metrics.items()}
    return {**msgspec.to_builtins(run), "metrics": metrics}


def _duration(run: RunRecord) -> str:
    if run.ended is None:
        return ""
    seconds = (run.ended - run.started) / 1e6
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _show(connection: Connection, run_id: str, as_json: bool) -> None:
    from davy.registry.models import list_versions
    from davy.tracking.artifacts import list_artifacts
    from davy.tracking.runs import get_run

    run = get_run(connection, run_id)
    files = list_artifacts(connection, run.id, deep=True)
    versions = [version.reference for version in list_versions(connection, run_id=run.id)]
    if as_json:
        print_json({**_plain(run), "artifacts": msgspec.to_builtins(files), "versions": versions})
        return
    facts = {"run": run.id, "name": run.name, "experiment": run.experiment, "status": run.status, "user": run.user, "started (UTC)": when(run.started),
             "took": _duration(run), "commit": run.commit, "versions": ", ".join(versions)}
    table([{"": key, "value": value} for key, value in facts.items() if value])
    for title, values in (("param", run.params), ("metric", run.metrics), ("tag", run.tags)):
        if values:
            print()
            table([{title: key, "value": value} for key, value in values.items()])
    if files:
        print()
        table([{"artifact": file.path, "bytes": file.size} for file in files])
