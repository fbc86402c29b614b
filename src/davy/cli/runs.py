"""`davy runs`: the tracked runs, or one of them in full."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli.output import note, print_json, table, when
from davy.errors import InvalidInput, NotFound, nearest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from davy.tracking.records import RunRecord

SHOWN_METRICS = 4
SHORTEST_ID = 12


@click.command
@click.argument("run", required=False)
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--status", type=click.Choice(["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"], case_sensitive=False), help="Only runs with this status.")
@click.option("--order", metavar="METRIC", help="Sort by this metric, highest first (default: the newest first).")
@click.option("--ascending", is_flag=True, help="Lowest, or oldest, first.")
@click.option("--limit", type=click.IntRange(1, 50_000), default=20, show_default=True, help="How many.")
@click.option("--artifact", metavar="PATH", help="Write this file of the RUN to stdout, such as error.txt.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: runs and next, or the run.")
def command(run: str | None, experiment: str | None, status: Any, order: str | None, ascending: bool, limit: int, artifact: str | None, as_json: bool) -> None:
    """List runs, or show the RUN whose id begins so: its params, metrics, tags and artifacts."""
    from davy.cli import open_home
    from davy.tracking.artifacts import read_artifact
    from davy.tracking.experiments import get_experiment
    from davy.tracking.runs import get_run
    from davy.tracking.search import search_runs

    home = open_home()
    with home.database.read() as connection:
        if artifact is not None:
            if run is None:
                raise InvalidInput("--artifact came without the run that it is of.", "", f"Write: davy runs RUN --artifact {artifact}")
            click.echo(read_artifact(connection, home.blobs, get_run(connection, run).id, artifact), nl=False)
            return
        if run is not None:
            _show(connection, run, as_json)
            return
        if experiment is not None:
            get_experiment(connection, experiment)
        page = search_runs(connection, experiment=experiment, status=status, order=order, ascending=ascending, limit=limit)
    if order is not None and page.runs and order not in page.runs[0].metrics:  # those that have it come first
        raise NotFound(f"None of these runs has the metric {order!r}.", nearest(order, {key for found in page.runs for key in found.metrics}),
                       "Name one that davy runs RUN lists.")
    if as_json:
        print_json({"runs": [_plain(found) for found in page.runs], "next": page.next})
        return
    table(_rows(page.runs, order), empty="No runs yet. Start one: davy train MODEL, or davy.run(...) in Python.")
    if page.next is not None:
        note(f"There are more; see them with --limit {limit * 5}.")


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
